"""Products that read each other: every way to quantize gives a graph that runs and answers as before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
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
