"""What is said of a graph without anything to quantize: what it computes with, and what would help."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from tests.support.graphs import model, node

from ortc.passes.quantization.unquantizable import nothing

X = {"x": ["batch", 4]}
IMAGE = {"x": ["batch", 2, 6, 6]}
W = np.ones((4, 4), np.float32)
GRAPHS: dict[str, onnx.ModelProto] = {
    "convolutions": model(
        [node("Conv", "x w", "c"), node("Conv", "c v", "y")],
        IMAGE,
        {"y": ["batch", 2, 4, 4]},
        {name: np.ones((2, 2, 2, 2), np.float32) for name in "wv"},
    ),
    "products": model([node("MatMul", "x w", "y")], X, {"y": ["batch", 4]}, {"w": W}),
    "variable": model([node("Transpose", "x", "t"), node("MatMul", "x t", "y")], X, {"y": [None, None]}),
    "recurrent": model(
        [node("LSTM", "x w r", "y", hidden_size=2)],
        {"x": [3, "batch", 4]},
        {"y": [3, 1, "batch", 2]},
        {"w": np.ones((1, 8, 4), np.float32), "r": np.ones((1, 8, 2), np.float32)},
    ),
    "quantized": model(
        [node("DequantizeLinear", "q s", "w"), node("MatMul", "x w", "y")],
        X,
        {"y": ["batch", 4]},
        {"q": np.ones((4, 4), np.int8), "s": np.array(0.5, np.float32)},
    ),
    "none": model([node("Relu", "x", "y")], X, {"y": ["batch", 4]}),
}


FLOAT = "`precision: fp32` ships the graph as it is"


@pytest.mark.parametrize(
    ("name", "operators", "said"),
    [
        ("convolutions", ("MatMul", "Gemm"), "2 Conv that an `int8-static` variant takes, with `accuracy.samples`"),
        ("products", ("Conv",), "1 MatMul that another variant takes"),
        ("variable", ("MatMul",), f"1 MatMul without a constant float32 weight in the main graph; {FLOAT}"),
        ("recurrent", ("MatMul",), "1 LSTM that another variant takes"),
        ("quantized", ("MatMul",), f"the graph is quantized already (1 DequantizeLinear); {FLOAT}"),
        ("none", ("MatMul",), f"the graph has no product with weights; {FLOAT}"),
    ],
)
def test_what_there_is_instead(name: str, operators: tuple[str, ...], said: str) -> None:
    found = nothing(ir.from_proto(GRAPHS[name]), operators)
    assert found.startswith(f"nothing to quantize: no {' or '.join(operators)} with constant weights; ")
    assert found.endswith(said)
