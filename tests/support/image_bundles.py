"""Tiny real bundles that answer images: the mean of each channel, a linear layer, and classes or a vector behind it."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from tests.support import bundles

SIDE, BATCH = 8, 4
LABELS = ("red", "green", "blue")
MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.5)
STEPS: tuple[dict[str, Any], ...] = (
    {"op": "resize", "size": {"shortest_edge": 10}, "filter": "bicubic"},
    {"op": "center_crop", "height": SIDE, "width": SIDE},
    {"op": "rescale", "factor": 1 / 255, "offset": 0.0},
    {"op": "normalize", "mean": MEAN, "std": STD},
)


def model() -> onnx.ModelProto:
    """probabilities = softmax(3 * the mean of each channel), over pixel_values [batch, 3, 8, 8]."""
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["pixel_values"], ["means"], axes=[2, 3], keepdims=0, name="mean"),
            helper.make_node("Mul", ["means", "three"], ["logits"], name="mul"),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=-1, name="softmax"),
        ],
        "colours",
        [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(np.array(3, np.float32), "three")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def encoded(pixels: NDArray[np.uint8], form: str = "PNG", **settings: Any) -> bytes:
    """An array as a file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **settings)
    return buffer.getvalue()


def colour(*value: int, height: int = 12, width: int = 20) -> bytes:
    """An image of one colour."""
    return encoded(np.full((height, width, 3), value, np.uint8))


def noise(seed: int, height: int, width: int) -> bytes:
    """An image of random pixels."""
    return encoded(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def answer_of(pixels: NDArray[Any]) -> list[dict[str, Any]]:
    """The classes of pixels [3, 8, 8]."""
    logits = 3 * pixels.astype(np.float64).mean(axis=(1, 2))
    scores = np.exp(logits) / np.exp(logits).sum()
    found = [{"label": label, "score": float(score)} for label, score in zip(LABELS, scores, strict=True)]
    return sorted(found, key=lambda entry: -entry["score"])


def pixels_of(content: bytes, steps: tuple[dict[str, Any], ...] = STEPS) -> NDArray[Any]:
    """What the steps make of a file, by the modules of the runtime."""
    inputs = {"pixel_values": (("batch", 3, SIDE, SIDE), np.dtype(np.float32))}
    module = bundles.runtime_module("processing.images.inputs")
    made: NDArray[Any] = (
        module.Images({"input": "pixel_values", "steps": steps}, inputs, {"batch": (1, 4, 1)}).row(content).pixels
    )
    return made


def write(root: Path, name: str = "colours") -> Path:
    """The bundle as a directory."""
    made = bundles.text()
    made.model = model()
    made.manifest |= {
        "name": name,
        "inputs": [
            {"name": "pixel_values", "dtype": "float32", "shape": ["batch", 3, SIDE, SIDE], "range": None},
        ],
        "outputs": [{"name": "probabilities", "dtype": "float32", "shape": ["batch", 3]}],
        "axes": [{"name": "batch", "min": 1, "typical": 1, "max": BATCH}],
        "warmup": [{"batch": 1}],
        "processing": {
            "document": "processing/processing.json",
            "takes": "image",
            "tokenizer": None,
            "kind": "labels",
            "golden": {"file": "golden/answers.json", "tolerance": {"cosine": 0.9999, "top1": 1.0, "pixels": 1e-5}},
        },
    }
    for case in made.manifest["golden"]:
        case["mask"] = None
    random = np.random.default_rng(0)
    made.golden = [{"pixel_values": random.standard_normal((2, 3, SIDE, SIDE)).astype(np.float32)}]
    made.write(root)
    (root / "processing").mkdir()
    document = {
        "format_version": 1,
        "task": "image-classification",
        "image": {"input": "pixel_values", "steps": STEPS},
        "answer": {"kind": "labels", "output": "probabilities", "labels": list(LABELS)},
    }
    bundles.write_json(root / "processing/processing.json", document)
    files = {"red.png": colour(200, 30, 20), "noise.png": noise(1, 14, 11)}
    cases = [_case(name, content) for name, content in files.items()]
    (root / "golden/answers.json").write_text(json.dumps({"format_version": 1, "cases": cases}), "utf-8")
    return bundles.seal(root)


def _case(name: str, content: bytes) -> dict[str, Any]:
    pixels = pixels_of(content)
    return {
        "name": name,
        "image": base64.b64encode(content).decode(),
        "pixels": {"shape": list(pixels.shape), "step": 3, "values": pixels.ravel()[::3].tolist()},
        "answer": answer_of(pixels),
    }
