"""Checkpoints against the class that a task loads: tiny seeded models, saved as transformers saves them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from ortc.common.errors import StageError
from ortc.frontend.reference.load import load
from ortc.frontend.reference.model import Reference
from ortc.plan.plan import AxisPlan, ExportPlan
from ortc.spec.model_sources import HuggingFaceSource

TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 120,
    "max_position_embeddings": 64,
}
DECODER = {**TEXT, "num_key_value_heads": 2, "head_dim": 8}


def save(place: Path, name: str, **config: Any) -> Path:
    """A seeded checkpoint of a class of transformers."""
    import torch
    import transformers

    torch.manual_seed(0)
    kind = getattr(transformers, name)
    kind(kind.config_class(**config)).save_pretrained(place)
    return place


def edit(place: Path, *, drop: str = "", **config: Any) -> Path:
    """Change a checkpoint: entries of its configuration, or tensors that are not there any more."""
    document = json.loads((place / "config.json").read_bytes())
    document.update(config)
    (place / "config.json").write_text(json.dumps(document), "utf-8")
    if drop:
        tensors = {key: value for key, value in load_file(place / "model.safetensors").items() if drop not in key}
        save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})
    return place


def loaded(place: Path, *, outputs: tuple[str, ...] | None = ("last_hidden_state",), **fields: Any) -> Reference:
    source = HuggingFaceSource.model_validate({"source": "huggingface", "path": "model", **fields})
    axes = (AxisPlan(name="batch", min=1, typical=1, max=4), AxisPlan(name="sequence", min=1, typical=8, max=32))
    export = ExportPlan(opset=20, ir_version=9, exporter="auto", axes=axes, inputs=None, outputs=outputs)
    return load(source, place, place.parent, export)


@pytest.mark.parametrize(
    ("where", "config"),
    [
        ("`architectures` names `EncoderModel`, which transformers", {"architectures": ["EncoderModel"]}),
        ("names `EncoderModel`", {"architectures": ["BertModel", "EncoderModel"]}),
        ("`vision_config.architectures` names `Eye`", {"vision_config": {"architectures": ["Eye"]}}),
        ("`auto_map` names modeling_x.X", {"auto_map": {"AutoModel": "modeling_x.X"}}),
    ],
)
@pytest.mark.parametrize("weights", ["pretrained", "random"])
def test_code_of_a_repository_is_not_replaced(tmp_path: Path, where: str, config: Any, weights: str) -> None:
    place = edit(save(tmp_path / "model", "BertModel", **TEXT), **config)
    with pytest.raises(StageError) as caught:
        loaded(place, weights=weights)
    assert where in caught.value.message
    assert "source: pytorch" in str(caught.value.help)


def test_an_architecture_of_another_type_of_model(tmp_path: Path) -> None:
    place = edit(save(tmp_path / "model", "BertModel", **TEXT), architectures=["RobertaModel"])
    with pytest.raises(StageError, match=r"names `RobertaModel`, a model of RobertaConfig, but `model_type` `bert`"):
        loaded(place)
    # The same model under the name of another framework's class.
    assert loaded(edit(place, architectures=["TFBertModel"])).parts_left_out == ()


def test_a_head_of_a_pretraining_that_the_configuration_names_is_named(tmp_path: Path) -> None:
    place = save(tmp_path / "model", "BertForMaskedLM", **TEXT)
    assert loaded(place).parts_left_out == (
        "config.json: the head of BertForMaskedLM (BertModel is loaded)",
        "weights: cls.predictions (5 tensors)",
    )
    place = save(tmp_path / "both", "BertForPreTraining", **TEXT)
    assert "weights: cls.seq_relationship (2 tensors)" in loaded(place).parts_left_out
    masked = loaded(edit(place, architectures=["BertForMaskedLM"]), outputs=("logits",), task="fill-mask")
    assert masked.parts_left_out == ("weights: bert.pooler (2 tensors)", "weights: cls.seq_relationship (2 tensors)")


@pytest.mark.parametrize(
    ("name", "named", "config", "lost"),
    [
        ("BertForSequenceClassification", "BertForSequenceClassification", TEXT, "classifier (2 tensors)"),
        ("BertForSequenceClassification", "BertModel", TEXT, "classifier (2 tensors)"),
        ("BertForTokenClassification", None, TEXT, "classifier (2 tensors)"),
        ("BertForMaskedLM", "BertModel", TEXT, "cls.predictions (5 tensors)"),
        ("LlamaForCausalLM", "LlamaForCausalLM", DECODER, "lm_head (1 tensor)"),
        ("BertForQuestionAnswering", "BertForMaskedLM", TEXT, "qa_outputs (2 tensors)"),
    ],
)
def test_a_trained_head_is_lost_by_leave_alone(
    tmp_path: Path, name: str, named: str | None, config: Any, lost: str
) -> None:
    place = edit(save(tmp_path / "model", name, **config), architectures=[named] if named else None)
    with pytest.raises(StageError, match=r"trained weights that \w+Model does not load") as caught:
        loaded(place)
    assert lost in caught.value.message
    assert "`interface: tensors`" in str(caught.value.help)
    assert f"weights: {lost}" in loaded(place, interface="tensors").parts_left_out


def test_tied_weights_and_buffers_are_no_head(tmp_path: Path) -> None:
    import numpy as np

    place = save(tmp_path / "model", "LlamaForCausalLM", tie_word_embeddings=True, **DECODER)
    tensors = load_file(place / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(4, np.float32)
    save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})
    assert loaded(place).parts_left_out == ("config.json: the head of LlamaForCausalLM (LlamaModel is loaded)",)
    tensors["lm_head.weight"] = tensors["lm_head.weight"] + 1
    save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(StageError, match=r"lm_head \(1 tensor\)"):
        loaded(place)


@pytest.mark.parametrize("interface", ["auto", "tensors"])
def test_random_weights_never_reach_an_output(tmp_path: Path, interface: str) -> None:
    place = edit(save(tmp_path / "model", "BertModel", **TEXT), drop="pooler")
    assert loaded(place, interface=interface).outputs == ("last_hidden_state",)
    for outputs in (None, ("pooler_output",)):
        with pytest.raises(StageError, match=r"which the output `pooler_output` is computed with") as caught:
            loaded(place, outputs=outputs, interface=interface)
        assert outputs or "`export.outputs: [last_hidden_state]`" in str(caught.value.help)
    classifier = edit(save(tmp_path / "classifier", "BertForSequenceClassification", **TEXT), drop="pooler")
    with pytest.raises(StageError, match="which the output `logits` is computed with"):
        loaded(classifier, outputs=None, task="text-classification", interface=interface)
    with pytest.raises(StageError, match=r"lacks 3 of the model's weights, first `encoder\.layer\.0"):
        loaded(edit(place, drop="layer.0.output.dense.bias"), interface=interface)
    with pytest.raises(StageError, match=r"first `classifier\.bias`"):
        loaded(edit(classifier, drop="classifier"), task="text-classification", outputs=None, interface=interface)


def test_parts_of_a_directory_are_refused_where_it_is_loaded(tmp_path: Path) -> None:
    place = save(tmp_path / "model", "BertModel", **TEXT)
    modules = [{"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]
    (place / "modules.json").write_text(json.dumps(modules), "utf-8")
    with pytest.raises(StageError, match=r"modules\.json: .*Pooling"):
        loaded(place)
    assert loaded(place, interface="tensors").parts_left_out == ()
