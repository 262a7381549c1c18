"""`python export_encoders.py DIRECTORY NAME ...`: small transformers, exported, with inputs and PyTorch's answers.

A directory each: canonical/model.onnx, inputs.npz and outputs.npz; for one also raw.onnx, as PyTorch's exporter writes
it. The program runs in a process of its own: tests do not load torch for this.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from ortc.common.arrays import write_arrays
from ortc.frontend import export as stage
from ortc.frontend.reference.load import load
from ortc.frontend.samples.inputs import synthetic
from ortc.plan.plan import AxisPlan, ExportPlan
from ortc.spec.model_sources import HuggingFaceSource
from ortc.spec.runtimes import ir_version_for_opset

TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 100,
    "max_position_embeddings": 64,
}
DEEP = TEXT | {"hidden_size": 64, "intermediate_size": 128, "max_position_embeddings": 80}
"""Heads of 16."""
MODELS: dict[str, dict[str, Any]] = {
    # As seeded: all biases are zero, which the exporter writes as one initializer.
    "bert": {"model_type": "bert", "architectures": ["BertModel"], **TEXT},
    "vit": {
        "model_type": "vit",
        "architectures": ["ViTForImageClassification"],
        "image_size": 32,
        "patch_size": 8,
        "num_channels": 3,
        "num_labels": 5,
        **{
            name: DEEP[name]
            for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        },
    },
    # The tanh form of GELU, and x * sigmoid(1.702 x): what ONNX Runtime fuses without help.
    "roberta": {
        "model_type": "roberta",
        "architectures": ["RobertaModel"],
        "hidden_act": "gelu_new",
        "pad_token_id": 1,
        # Positions count from behind that of padding.
        **TEXT | {"max_position_embeddings": 66},
    },
    "clip": {"model_type": "clip_text_model", "architectures": ["CLIPTextModel"], "eos_token_id": 99, **TEXT},
}
"""Exported at opset 17."""
SIZES = {"batch": 2, "sequence": 24}
LAYERED: dict[str, tuple[int, dict[str, Any]]] = {
    "bert-17": (17, MODELS["bert"] | DEEP),
    "bert-20": (20, MODELS["bert"] | DEEP),
    "roberta-18": (18, {**MODELS["roberta"], **DEEP, "hidden_act": "gelu"}),
    "distilbert-20": (
        20,
        {
            "model_type": "distilbert",
            "architectures": ["DistilBertModel"],
            "dim": 64,
            "n_layers": 2,
            "n_heads": 4,
            "hidden_dim": 128,
            "vocab_size": 100,
            "max_position_embeddings": 80,
        },
    ),
    # Normalizations by the root of the mean square: of T5's encoder, and of a decoder with rotated positions.
    "t5-18": (
        18,
        {
            "model_type": "t5",
            "architectures": ["T5EncoderModel"],
            "d_model": 64,
            "d_kv": 16,
            "d_ff": 128,
            "num_layers": 2,
            "num_heads": 4,
            "vocab_size": 100,
            "feed_forward_proj": "gated-gelu",
        },
    ),
    "llama-20": (
        20,
        {"model_type": "llama", "architectures": ["LlamaModel"], **DEEP, "num_key_value_heads": 2, "use_cache": False},
    ),
}
"""Models with heads of 16, and the opset that each is exported at."""
TASKS = {"t5": "text-encoding"}


def main(root: Path, *names: str) -> None:
    """Write the models."""
    for name in names:
        opset, configuration = LAYERED[name] if name in LAYERED else (17, MODELS[name])
        _write(root / name, configuration, opset)


def _write(place: Path, configuration: dict[str, Any], opset: int) -> None:
    (place / "canonical").mkdir(parents=True)
    (place / "config.json").write_text(json.dumps(configuration), "utf-8")
    image = "image_size" in configuration
    axes = [AxisPlan(name="batch", min=1, typical=1, max=16), AxisPlan(name="sequence", min=1, typical=16, max=64)]
    plan = ExportPlan(
        opset=opset,
        ir_version=ir_version_for_opset(opset),
        exporter="auto",
        axes=tuple(axes[: 1 if image else 2]),
        inputs=None,
        outputs=None,
    )
    task = "image-classification" if image else TASKS.get(configuration["model_type"], "feature-extraction")
    source = HuggingFaceSource(source="huggingface", path=str(place), task=task, weights="random")
    reference = load(source, place, place, plan)
    if place.name != "bert":
        # A seeded model normalizes to 1 and 0 and adds nothing; a trained one does not.
        torch.manual_seed(1)
        for parameter in reference.module.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn(parameter.shape))
    if place.name == "bert":
        ir.save(stage._dynamo(reference, plan), place / "raw.onnx")
    stage.export(reference, plan, "dynamo", place / "canonical")
    inputs = {tensor.name: synthetic(tensor, SIZES, f"test/{tensor.name}") for tensor in reference.inputs}
    outputs = reference.module(*(torch.from_numpy(np.asarray(inputs[tensor.name])) for tensor in reference.inputs))
    write_arrays(place / "inputs.npz", inputs)
    answers = {name: value.numpy() for name, value in zip(reference.outputs, outputs, strict=True)}
    write_arrays(place / "outputs.npz", answers)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
