"""Products that read each other: every way to quantize gives a graph that runs and answers as before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from tests.support.quantized_graphs import make, node, ranges, run, weights

from ortc.passes.quantization import dynamic, qdq, weight_only

X = np.random.default_rng(5).standard_normal((3, 64)).astype(np.float32)
GRAPHS = {
    "two products": ([node("MatMul", "x a", "m"), node("MatMul", "m b", "y")], "y"),
    "products with a bias": (
        [node("MatMul", "x a", "m"), node("Add", "m bias", "n"), node("Gemm", "n b short", "y")],
        "y",
    ),
    "three, each an output": (
        [node("Gemm", "x a bias", "m"), node("MatMul", "m b", "n"), node("MatMul", "n c", "y")],
        "m n y",
    ),
    "a low-rank addition": (
        [node("MatMul", "x w", "p"), node("MatMul", "x b", "m"), node("MatMul", "m c", "n"), node("Add", "p n", "y")],
        "y",
    ),
    "one weight of two": ([node("MatMul", "x a", "m"), node("MatMul", "m a", "y")], "y"),
    "one weight of two, with different biases": (
        [node("Gemm", "x a bias", "m"), node("Gemm", "m a short", "n"), node("MatMul", "n b", "y")],
        "y",
    ),
    "two readers": ([node("MatMul", "x a", "m"), node("MatMul", "m b", "y"), node("MatMul", "m b", "z")], "y z"),
}


def in_blocks(model: ir.Model, _: Any) -> int:
    return weight_only.emit(model, {node.name: 8 for node in model.graph if node.name is not None})


WAYS: dict[str, Callable[[ir.Model, Any], int]] = {
    "dynamic": lambda model, _: dynamic.emit(model, ("MatMul", "Gemm")),
    "static": lambda model, found: qdq.emit(model, found, operators=("MatMul", "Gemm")),
    "smoothed": lambda model, found: qdq.emit(model, found, operators=("MatMul", "Gemm"), smooth="auto"),
    "weights": in_blocks,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("graph", GRAPHS)
def test_products_that_read_each_other(graph: str, way: str) -> None:
    nodes, outputs = GRAPHS[graph]
    tensors = weights(a=(64, 64), b=(64, 64), c=(64, 64), w=(64, 64), bias=(64,), short=(64,))
    read = {name for entry in nodes for name in entry.input}
    model = make(nodes, outputs, {name: array for name, array in tensors.items() if name in read}, x=("n", 64))
    quantized = ir.from_proto(model)
    assert WAYS[way](quantized, ranges(model, X, "MatMul", "Gemm")) > 0
    changed = ir.to_proto(quantized)
    onnx.checker.check_model(changed, full_check=way != "weights")
    for found, wanted in zip(run(changed, X), run(model, X), strict=True):
        assert np.linalg.norm(found - wanted) < 0.2 * np.linalg.norm(wanted)
    opens_without_vnni(changed)


@pytest.mark.parametrize("form", [(1, 4, 9), (1, 4, 9, 9)])
def test_convolutions_with_one_filter(form: tuple[int, ...]) -> None:
    """Heads of detectors share filters between levels."""
    image = np.random.default_rng(7).standard_normal((1, 4, *form[2:])).astype(np.float32)
    pads = {"pads": [1] * (2 * len(form[2:]))}
    model = make(
        [node("Conv", "x w", "m", **pads), node("Conv", "m w", "y", **pads)],
        "y",
        weights(w=(4, 4, *[3] * len(form[2:]))),
        x=image.shape,
    )
    quantized = ir.from_proto(model)
    assert qdq.emit(quantized, ranges(model, image, "Conv"), operators=("Conv",)) == 2
    changed = ir.to_proto(quantized)
    (found,), (wanted,) = run(changed, image), run(model, image)
    assert np.linalg.norm(found - wanted) < 0.05 * np.linalg.norm(wanted)
    opens_without_vnni(changed)


def opens_without_vnni(model: onnx.ModelProto) -> None:
    """Open a session with the setting that the loader makes where a processor lacks VNNI."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
