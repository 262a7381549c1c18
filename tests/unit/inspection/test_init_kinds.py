"""What `ortc init` writes for each kind of Hugging Face model, and for each part of its repository."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.support.drafts import BERT, WEIGHTS, directory, written

from ortc.__main__ import run
from ortc.inspection.findings import InspectionError
from ortc.inspection.inspect_model import inspect
from ortc.plan.checks import check_spec
from ortc.spec.diagnostics.errors import SpecError
from ortc.spec.model_sources import HuggingFaceSource

pytestmark = pytest.mark.usefixtures("project")


@pytest.mark.parametrize(
    ("config", "task", "axes"),
    [
        ({"architectures": ["BertModel"], "vocab_size": 9}, "feature-extraction", {"batch", "sequence"}),
        ({"architectures": ["GPT2LMHeadModel"], "vocab_size": 9}, "causal-lm", {"batch", "sequence"}),
        ({"architectures": ["LlamaForCausalLM"], "vocab_size": 9}, "causal-lm", {"batch", "sequence"}),
        ({"architectures": ["T5EncoderModel"], "vocab_size": 9}, "text-encoding", {"batch", "sequence"}),
        # What generates has no head that is exported: the model without one.
        (
            {"architectures": ["T5ForConditionalGeneration"], "vocab_size": 9},
            "feature-extraction",
            {"batch", "sequence"},
        ),
        (
            {"architectures": ["WhisperForAudioClassification"], "num_mel_bins": 80, "max_source_positions": 1500},
            "audio-classification",
            {"batch"},
        ),
        (
            {"architectures": ["Wav2Vec2BertForCTC"], "feature_projection_input_dim": 160, "conv_depthwise": 31},
            "ctc",
            {"batch", "frames"},
        ),
        ({"architectures": ["ResNetForImageClassification"], "num_channels": 3}, "image-classification", {"batch"}),
        (
            {"architectures": ["Wav2Vec2ForSequenceClassification"], "feat_extract_norm": "group", "vocab_size": 32},
            "audio-classification",
            {"batch", "samples"},
        ),
        ({"architectures": ["Wav2Vec2ForCTC"], "conv_stride": [5], "vocab_size": 32}, "ctc", {"batch", "samples"}),
    ],
)
def test_kinds_of_models(config: dict[str, Any], task: str, axes: set[str], tmp_path: Path) -> None:
    directory(tmp_path / "model", config)
    spec = written("model").loaded.spec
    assert isinstance(spec.model, HuggingFaceSource)
    assert spec.model.task == task
    assert set(spec.export.dynamic_axes) == axes


def test_positions_kept_for_padding(tmp_path: Path) -> None:
    directory(tmp_path / "model", {"model_type": "roberta", "vocab_size": 9, "max_position_embeddings": 130})
    assert written("model").loaded.spec.export.dynamic_axes["sequence"].max == 128


GPT2 = {"model_type": "gpt2", "vocab_size": 9, "n_positions": 64}
CLIP = {"model_type": "clip", "text_config": {"vocab_size": 9, "max_position_embeddings": 20}, "vision_config": {}}


@pytest.mark.parametrize(("config", "most"), [(GPT2, 64), (CLIP, 20), ({"model_type": "t5", "n_positions": 64}, 512)])
def test_a_draft_is_no_longer_than_the_positions(config: dict[str, Any], most: int, tmp_path: Path) -> None:
    directory(tmp_path / "model", config)
    checked = written("model")
    assert checked.loaded.spec.export.dynamic_axes["sequence"].max == most
    text = Path("specs/out.yaml").read_text("utf-8")
    Path("specs/out.yaml").write_text(text.replace(f"max: {most}}}", "max: 1024}"), "utf-8")
    if most == 512:
        check_spec("specs/out.yaml")  # relative positions have no end
        return
    with pytest.raises(SpecError, match=f"goes to 1024, and the model has {most} positions") as refused:
        check_spec("specs/out.yaml")
    assert refused.value.diagnostics[0].rule.code == "ORTC337"


def test_texts_and_images_that_are_compared_have_axes_of_their_own(tmp_path: Path) -> None:
    directory(tmp_path / "model", CLIP)
    assert set(written("model").loaded.spec.export.dynamic_axes) == {"batch", "sequence", "images"}


@pytest.mark.parametrize("pad", [None, 8])
def test_a_decoder_without_a_padding_token_classifies_one_text(pad: int | None, tmp_path: Path) -> None:
    directory(tmp_path / "model", {**GPT2, "architectures": ["GPT2ForSequenceClassification"], "pad_token_id": pad})
    assert written("model").loaded.spec.export.dynamic_axes["batch"].max == (1 if pad is None else 16)


@pytest.mark.parametrize("kind", ["owlvit", "sam", "vitpose"])
def test_models_without_a_task_are_refused_with_a_way_out(kind: str, tmp_path: Path) -> None:
    directory(tmp_path / "model", {"model_type": kind})
    with pytest.raises(
        InspectionError, match=rf"holds {kind}, which no task of ortc covers.*ortc init module:function"
    ):
        inspect("model", tmp_path)


def test_parts_of_a_repository_are_left_out_with_a_comment(tmp_path: Path) -> None:
    place = directory(tmp_path / "model")
    stock = "sentence_transformers.models"
    modules = [{"path": "", "type": f"{stock}.Transformer"}, {"path": "1_Pooling", "type": f"{stock}.Pooling"}]
    (place / "modules.json").write_text(json.dumps(modules), "utf-8")
    (place / "1_Pooling").mkdir()
    (place / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}', "utf-8")
    model = written("model").loaded.spec.model
    assert isinstance(model, HuggingFaceSource)
    assert model.interface == "auto"
    recipe = {"modules.json", "1_Pooling/config.json", "tokenizer.json"}
    assert set(model.files) == {"config.json", "model.safetensors", *recipe}
    (place / "modules.json").write_text(json.dumps([*modules, {"path": "2_CNN", "type": f"{stock}.CNN"}]), "utf-8")
    model = written("model").loaded.spec.model
    assert isinstance(model, HuggingFaceSource)
    assert model.interface == "tensors"
    assert set(model.files) == {"config.json", "model.safetensors", "modules.json", "tokenizer.json"}
    text = Path("specs/out.yaml").read_text("utf-8")
    assert "# - modules.json: Pooling (cls), CNN\n" in text
    (place / "adapter_config.json").write_text('{"peft_type": "LORA"}', "utf-8")
    (place / "adapter_model.safetensors").write_bytes(WEIGHTS)
    model = written("model").loaded.spec.model
    assert isinstance(model, HuggingFaceSource)
    assert not {name for name in model.files if name.startswith("adapter")}
    text = Path("specs/out.yaml").read_text("utf-8")
    assert "# - adapter_config.json: an adapter (LORA)\n" in text
    assert "`model.adapter`, which merges it" in text
    (place / "modules.json").unlink()
    for file in place.glob("adapter*"):
        file.unlink()
    assert "interface" not in written("model").loaded.document.data["model"]


def test_an_image_processor_that_is_not_reproduced_leaves_the_tensors(tmp_path: Path) -> None:
    config = {"architectures": ["ViTForImageClassification"], "model_type": "vit", "num_channels": 3}
    place = directory(tmp_path / "model", config, tokenizer=False)
    processor = place / "preprocessor_config.json"
    processor.write_text('{"image_processor_type": "ViTImageProcessor"}', "utf-8")
    model = written("model").loaded.spec.model
    assert isinstance(model, HuggingFaceSource)
    assert (model.interface, "preprocessor_config.json" in model.files) == ("auto", True)
    processor.write_text('{"image_processor_type": "PerceiverImageProcessorFast"}', "utf-8")
    model = written("model").loaded.spec.model
    assert isinstance(model, HuggingFaceSource)
    assert model.interface == "tensors"
    assert "# The bundle takes tensors: the image processor PerceiverImageProcessorFast" in Path(
        "specs/out.yaml"
    ).read_text("utf-8")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"feature_extractor_type": "WhisperFeatureExtractor"}, "the feature extractor WhisperFeatureExtractor"),
        ({"processor_class": "Wav2Vec2ProcessorWithLM"}, "the language model of Wav2Vec2ProcessorWithLM"),
    ],
)
def test_a_feature_extractor_that_is_not_reproduced_leaves_the_tensors(
    tmp_path: Path, settings: dict[str, str], said: str
) -> None:
    config = {"architectures": ["Wav2Vec2ForCTC"], "model_type": "wav2vec2", "vocab_size": 9}
    place = directory(tmp_path / "model", config, tokenizer=False)
    known = {"feature_extractor_type": "Wav2Vec2FeatureExtractor"}
    extractor = place / "preprocessor_config.json"
    extractor.write_text(json.dumps(known), "utf-8")
    assert "interface" not in written("model").loaded.document.data["model"]
    extractor.write_text(json.dumps(known | settings), "utf-8")
    model = written("model").loaded.spec.model
    assert isinstance(model, HuggingFaceSource)
    assert model.interface == "tensors"
    assert f"# The bundle takes tensors: {said} is not reproduced" in Path("specs/out.yaml").read_text("utf-8")


def test_code_of_a_repository_is_not_drafted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory(tmp_path / "model", {**BERT, "auto_map": {"AutoModel": "modeling_x.X"}})
    assert run(["init", "model"]) == 2
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert "brings code of its own" in said
    assert "source: pytorch" in said


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"architectures": ["BertModel"], "model_type": "bert", "type_vocab_size": 2}, "position_ids, inputs_embeds"),
        (
            {"architectures": ["BertModel"], "model_type": "bert", "type_vocab_size": 1},
            "token_type_ids, position_ids, inputs_embeds",
        ),
        ({"architectures": ["LayoutLMModel"], "model_type": "layoutlm", "type_vocab_size": 2}, "position_ids"),
        (
            {"architectures": ["Wav2Vec2ForCTC"], "model_type": "wav2vec2", "feat_extract_norm": "group"},
            "attention_mask",
        ),
    ],
)
def test_inputs_that_are_left_out_are_named(tmp_path: Path, config: dict[str, Any], named: str) -> None:
    directory(tmp_path / "model", {"vocab_size": 9, **config})
    written("model")
    assert f"Left out, unless `inputs` declares them: {named}" in Path("specs/out.yaml").read_text("utf-8")


def test_an_adapter_is_drafted_with_its_base(tmp_path: Path) -> None:
    directory(tmp_path / "base", {**BERT, "architectures": ["BertModel"]})
    adapter = tmp_path / "reviews"
    adapter.mkdir()
    config = {"peft_type": "LORA", "task_type": "SEQ_CLS", "base_model_name_or_path": "/elsewhere/base"}
    (adapter / "adapter_config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(InspectionError, match=r"an adapter without adapter_model.safetensors"):
        inspect("reviews", tmp_path)
    (adapter / "adapter_model.safetensors").write_bytes(WEIGHTS)
    spec = written("reviews").loaded.spec
    assert spec.name == "base-reviews"
    assert isinstance(spec.model, HuggingFaceSource)
    assert (spec.model.path, spec.model.task) == ("base", "text-classification")
    assert spec.model.adapter is not None
    assert spec.model.adapter.path == "reviews"
    assert set(spec.model.adapter.files) == {"adapter_config.json", "adapter_model.safetensors"}
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "owner/x"}), "utf-8")
    with pytest.raises(InspectionError, match=r"an adapter over owner/x, .* `adapter: \{path: reviews\}` to `model`"):
        inspect("reviews", tmp_path)


def test_a_quantized_checkpoint_is_refused(tmp_path: Path) -> None:
    directory(tmp_path / "model", {**BERT, "quantization_config": {"quant_method": "awq"}})
    with pytest.raises(InspectionError, match="are quantized already, with AWQ; name the float32"):
        inspect("model", tmp_path)
