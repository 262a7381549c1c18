"""Inputs that decide an architecture's answers are inputs: tiny seeded configurations, loaded as a build loads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ortc.frontend.reference.load import load
from ortc.frontend.reference.model import Reference
from ortc.frontend.samples.inputs import InputFactory, Samples, synthetic
from ortc.plan.plan import AxisPlan, ExportPlan, InputPlan
from ortc.spec.model_sources import HuggingFaceSource

Json = dict[str, Any]
TEXT: Json = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 120,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
}
SPEECH: Json = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "conv_dim": [16, 16],
    "conv_kernel": [10, 3],
    "conv_stride": [5, 2],
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
    "num_feat_extract_layers": 2,
    "vocab_size": 32,
}
DETECTOR: Json = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "num_queries": 5,
    "num_labels": 4,
    "use_timm_backbone": False,
    "use_pretrained_backbone": False,
    "backbone": None,
    "backbone_config": {
        "model_type": "resnet",
        "embedding_size": 8,
        "hidden_sizes": [8, 16],
        "depths": [1, 1],
        "layer_type": "basic",
    },
}
TOKENS = ("batch", "sequence")
MASKED = {"input_ids": TOKENS, "attention_mask": TOKENS}
TYPED = {**MASKED, "token_type_ids": TOKENS}
BOXED = {**TYPED, "bbox": (*TOKENS, 4)}
AXES = {"batch": (1, 3), "sequence": (1, 40), "samples": (800, 4000), "frames": (8, 64), "side": (64, 64)}


def export_of(*names: str) -> ExportPlan:
    axes = tuple(AxisPlan(name=name, min=AXES[name][0], typical=AXES[name][0], max=AXES[name][1]) for name in names)
    return ExportPlan(opset=20, ir_version=10, exporter="auto", axes=axes, inputs=None, outputs=None)


def reference(place: Path, config: Json, *axes: str, task: str = "feature-extraction", **files: Json) -> Reference:
    for name, content in {"config": config, **files}.items():
        (place / f"{name}.json").write_text(json.dumps(content), "utf-8")
    source = HuggingFaceSource(source="huggingface", path="model", task=task, weights="random")
    return load(source, place, place, export_of(*axes))


def changes(found: Reference, name: str, *axes: str) -> bool:
    """Whether answers change with other values of an input."""
    import torch

    export = export_of(*axes)
    factory = InputFactory(found.inputs, export.axes, Samples())
    sizes = {axis.name: axis.max for axis in export.axes}
    feeds = {tensor.name: synthetic(tensor, sizes, f"{tensor.name}/one") for tensor in found.inputs}
    tensor = next(tensor for tensor in found.inputs if tensor.name == name)
    other = synthetic(tensor, sizes, f"{name}/other")
    if tensor.fill is not None:
        other[..., other.shape[-1] // 2 :] = 0
    assert factory.inputs == found.inputs

    def answer(arrays: dict[str, Any]) -> list[Any]:
        return list(found.module(*(torch.from_numpy(arrays[tensor.name]) for tensor in found.inputs)))

    return not all(torch.equal(a, b) for a, b in zip(answer(feeds), answer({**feeds, name: other}), strict=True))


pytestmark = pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask:UserWarning")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"model_type": "layoutlm", **TEXT}, BOXED),
        ({"model_type": "lilt", "channel_shrink_ratio": 4, **TEXT, "hidden_size": 48}, BOXED),
        (
            {
                "model_type": "layoutlmv3",
                **TEXT,
                "input_size": 32,
                "patch_size": 16,
                "coordinate_size": 4,
                "shape_size": 8,
            },
            BOXED,
        ),
        ({"model_type": "bros", **TEXT, "hidden_size": 64}, BOXED),
        ({"model_type": "tapas", **TEXT}, {**MASKED, "token_type_ids": (*TOKENS, 7)}),
        (
            {"model_type": "markuplm", "max_depth": 5, "xpath_unit_hidden_size": 8, **TEXT},
            {**TYPED, "xpath_tags_seq": (*TOKENS, 5), "xpath_subs_seq": (*TOKENS, 5)},
        ),
        (
            {"model_type": "xlnet", "vocab_size": 120, "d_model": 32, "n_layer": 1, "n_head": 4, "d_inner": 64}
            | {"initializer_range": 0.3},
            TYPED,
        ),
        (
            {"model_type": "xlm", "vocab_size": 120, "emb_dim": 32, "n_layers": 1, "n_heads": 4, "n_langs": 3},
            {**MASKED, "langs": TOKENS},
        ),
        ({"model_type": "bert", **TEXT}, TYPED),
        ({"model_type": "bert", **TEXT, "type_vocab_size": 1}, MASKED),
        ({"model_type": "roberta", **TEXT, "type_vocab_size": 1, "pad_token_id": 1}, MASKED),
    ],
    ids=lambda value: value.get("model_type") if isinstance(value, dict) and "model_type" in value else "",
)
def test_text(tmp_path: Path, config: Json, expected: dict[str, tuple[str | int, ...]]) -> None:
    found = reference(tmp_path, config, *TOKENS)
    assert {tensor.name: tensor.shape for tensor in found.inputs} == expected
    for tensor in found.inputs:
        assert changes(found, tensor.name, *TOKENS), tensor.name
    assert "inputs_embeds" in found.inputs_left_out
    assert not {*found.inputs_left_out} & {*expected}


@pytest.mark.parametrize(
    ("config", "masked"),
    [
        ({"model_type": "wav2vec2", "feat_extract_norm": "layer", "do_stable_layer_norm": True}, True),
        ({"model_type": "wav2vec2", "feat_extract_norm": "group"}, False),
        ({"model_type": "hubert", "feat_extract_norm": "layer", "do_stable_layer_norm": True}, True),
        ({"model_type": "wavlm", "feat_extract_norm": "layer"}, True),
        ({"model_type": "data2vec-audio"}, True),
    ],
    ids=lambda value: value["model_type"] if isinstance(value, dict) else "",
)
def test_waves(tmp_path: Path, config: Json, masked: bool) -> None:
    axes = ("batch", "samples")
    found = reference(tmp_path, {**config, **SPEECH}, *axes, task="ctc")
    assert [tensor.name for tensor in found.inputs] == ["input_values", *(["attention_mask"] if masked else [])]
    assert ("attention_mask" in found.inputs_left_out) is not masked
    if masked:
        assert changes(found, "attention_mask", *axes)


def test_a_processor_says_whether_sound_is_masked(tmp_path: Path) -> None:
    group = {"model_type": "wav2vec2", "feat_extract_norm": "group", **SPEECH}
    said = {"preprocessor_config": {"return_attention_mask": True}}
    found = reference(tmp_path, group, "batch", "samples", task="ctc", **said)
    assert [tensor.name for tensor in found.inputs] == ["input_values", "attention_mask"]
    layer = {**group, "feat_extract_norm": "layer", "do_stable_layer_norm": True}
    said = {"preprocessor_config": {"return_attention_mask": False}}
    found = reference(tmp_path, layer, "batch", "samples", task="ctc", **said)
    assert [tensor.name for tensor in found.inputs] == ["input_values"]


def test_features_of_frames_are_masked(tmp_path: Path) -> None:
    config = {
        "model_type": "wav2vec2-bert",
        **{key: TEXT[key] for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")},
        "feature_projection_input_dim": 16,
        "vocab_size": 32,
    }
    found = reference(tmp_path, config, "batch", "frames")
    assert {tensor.name: tensor.shape for tensor in found.inputs} == {
        "input_features": ("batch", "frames", 16),
        "attention_mask": ("batch", "frames"),
    }
    assert changes(found, "attention_mask", "batch", "frames")


def test_images_of_several_sizes(tmp_path: Path) -> None:
    config = {"model_type": "detr", "image_size": 64, **DETECTOR}
    found = reference(tmp_path, config, "batch", task="object-detection")
    assert {tensor.name: tensor.shape for tensor in found.inputs} == {
        "pixel_values": ("batch", 3, 64, 64),
        "pixel_mask": ("batch", 64, 64),
    }
    assert changes(found, "pixel_mask", "batch")
    assert "decoder_inputs_embeds" in found.inputs_left_out
    ignored = {"model_type": "yolos", **TEXT, "image_size": [32, 48], "patch_size": 8, "num_detection_tokens": 5}
    found = reference(tmp_path, ignored, "batch", task="object-detection")
    assert [tensor.name for tensor in found.inputs] == ["pixel_values"]


def test_what_a_tokenizer_gives_is_an_input(tmp_path: Path) -> None:
    config = {"model_type": "gpt2", "n_embd": 32, "n_layer": 1, "n_head": 4, "vocab_size": 120, "n_positions": 64}
    assert "token_type_ids" in reference(tmp_path, config, *TOKENS).inputs_left_out
    said = {"tokenizer_config": {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}}
    found = reference(tmp_path, config, *TOKENS, **said)
    assert InputPlan(name="token_type_ids", dtype="int64", shape=TOKENS, range=(0, 1)) in found.inputs
    assert changes(found, "token_type_ids", *TOKENS)


def test_two_modalities(tmp_path: Path) -> None:
    """Found by trial: a text and an image, neither of which stands for the other."""
    sizes = {name: TEXT[name] for name in TEXT if name not in ("vocab_size", "max_position_embeddings")}
    config = {
        "model_type": "clip",
        "projection_dim": 16,
        "text_config": {**TEXT, "eos_token_id": 119, "bos_token_id": 118, "pad_token_id": 1},
        "vision_config": {**sizes, "image_size": 16, "patch_size": 8},
    }
    found = reference(tmp_path, config, *TOKENS)
    shapes = {tensor.name: tensor.shape for tensor in found.inputs}
    assert shapes == {"input_ids": TOKENS, "attention_mask": TOKENS, "pixel_values": ("batch", 3, 16, 16)}
    assert all(changes(found, name, *TOKENS) for name in ("input_ids", "pixel_values"))
