"""What is said of a graph without anything to quantize: what it computes with, and what would help."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from tests.support import plans
from tests.support.graphs import model, node

from ortc.common.errors import NotApplicable
from ortc.passes.canonical import count_operators
from ortc.passes.make_variant import Reference
from ortc.passes.quantization.calibration import Ranges
from ortc.passes.quantization.data_free import quantize
from ortc.passes.quantization.static import quantize_static
from ortc.passes.quantization.unquantizable import nothing
from ortc.passes.quantized_operators import quantized_already
from ortc.spec.quantization import DynamicQuantization, WeightQuantization

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
        ("none", ("MatMul",), f"the graph has no product with weights; {FLOAT}"),
    ],
)
def test_what_there_is_instead(name: str, operators: tuple[str, ...], said: str) -> None:
    found = nothing(ir.from_proto(GRAPHS[name]), operators)
    assert found.startswith(f"nothing to quantize: no {' or '.join(operators)} with constant weights; ")
    assert found.endswith(said)


HOWS = [
    DynamicQuantization(kind="dynamic", operators=("MatMul", "Gemm", "Gather")),
    DynamicQuantization(kind="dynamic", operators=("MatMul",), smoothing="layer-norm"),
    WeightQuantization(kind="weight-only", bits=8, operators=("MatMul",)),
]


@pytest.mark.parametrize("how", HOWS)
def test_a_graph_that_is_quantized_already_is_not_quantized_again(
    how: DynamicQuantization | WeightQuantization,
) -> None:
    """The weight of its second product is in floating point still."""
    graph = model(
        [node("DequantizeLinear", "q s", "w"), node("MatMul", "x w", "h"), node("MatMul", "h v", "y")],
        X,
        {"y": ["batch", 4]},
        {"q": np.ones((4, 4), np.int8), "s": np.array(0.5, np.float32), "v": W},
    )
    changed = ir.from_proto(graph)
    quantize(changed, plans.variant("int8", "int8", quantization=how))
    assert count_operators(changed) == {"DequantizeLinear": 1, "MatMul": 2}
    assert ir.to_proto(changed).graph == ir.to_proto(ir.from_proto(graph)).graph


def test_calibration_leaves_a_quantized_graph_to_variants_without_it() -> None:
    with pytest.raises(NotApplicable, match=r"quantized already \(1 DequantizeLinear\); a variant without calibration"):
        quantize_static(ir.from_proto(GRAPHS["quantized"]), Ranges({}, "minmax", 1), operators=("MatMul",))


def test_operators_of_other_domains_count() -> None:
    assert quantized_already({"Add": 3, "com.microsoft::QGemm": 2}) == "the graph is quantized already (2 QGemm)"
    assert quantized_already({"Add": 3, "MatMul": 2}) is None


def test_graphs_that_came_quantized_have_no_exact_weights_to_stay_below() -> None:
    integers = {"q": np.ones((4, 4), np.int8), "s": np.array(0.1, np.float32)}
    stored = model(
        [node("DequantizeLinear", "q s", "w"), node("MatMul", "x w", "y")], X, {"y": ["batch", 4]}, integers, opset=17
    )
    assert Reference.of(ir.from_proto(stored)).weights is None
    exact = model([node("MatMul", "x w", "y")], X, {"y": ["batch", 4]}, {"w": W})
    assert Reference.of(ir.from_proto(exact)).weights == W.nbytes
