"""What the QDQ emitter writes for convolutions."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.support.quantized_graphs import (
    OPSETS,
    cosine,
    fused,
    initializers,
    make,
    node,
    operators,
    quantized,
    ranges,
    readers,
    weights,
)

from ortc.passes.quantization.calibration import Ranges
from ortc.passes.quantization.qdq import emit

IMAGE = np.random.default_rng(2).standard_normal((2, 3, 8, 8)).astype(np.float32)
FILTERS = weights(w1=(4, 3, 3, 3), b1=(4,), w2=(4, 4, 3, 3), b2=(4,), w3=(4, 4, 1, 1), w4=(4, 5), b4=(5,))
PADDED = {"pads": [1, 1, 1, 1]}
RESIDUAL = [
    node("Conv", "x w1 b1", "c1", **PADDED),
    node("Relu", "c1", "r1"),
    node("MaxPool", "r1", "p1", kernel_shape=[2, 2], strides=[2, 2]),
    node("Conv", "p1 w2 b2", "c2", **PADDED),
    node("Add", "c2 p1", "s2"),
    node("Relu", "s2", "r2"),
    node("Conv", "r2 w3", "c3"),
    node("Clip", "c3 zero six", "h3"),
    node("GlobalAveragePool", "h3", "g"),
    node("Flatten", "g", "f"),
    node("Gemm", "f w4 b4", "y"),
]
CLIP = {"zero": np.array(0, np.float32), "six": np.array(6, np.float32)}


@pytest.mark.parametrize("opset", OPSETS)
def test_a_convolutional_network(opset: int) -> None:
    """Between the image and the logits everything is integers."""
    model = make(RESIDUAL, "y", FILTERS | CLIP, x=IMAGE.shape, opset=opset)
    result, (actual,), (wanted,) = quantized(model, IMAGE, "Conv", "Gemm", expected=4)
    assert cosine(actual, wanted) > 0.998
    assert fused(result) == {
        "QuantizeLinear": 1,
        "QLinearConv": 3,
        "MaxPool": 1,
        "QLinearAdd": 1,
        "QLinearGlobalAveragePool": 1,
        "Flatten": 1,
        "QGemm": 1,
    }
    found = initializers(result)
    assert {found[f"{name}_quantized"].dtype.name for name in ("w1", "w2", "w3", "w4")} == {"int8"}
    assert (found["b1_quantized"].dtype, found["w1_scale"].shape) == (np.int32, (4,))


def test_what_has_no_integers_reads_rounded_values() -> None:
    nodes = [
        *RESIDUAL[:2],
        node("Sigmoid", "r1", "g"),
        node("Mul", "r1 g", "m"),
        node("Conv", "m w2 b2", "y", **PADDED),
    ]
    model = make(nodes, "y", FILTERS, x=IMAGE.shape)
    result, (actual,), (wanted,) = quantized(model, IMAGE, "Conv", expected=2)
    assert sorted(readers(result, "r1_dequantized")) == ["Mul", "Sigmoid"]
    assert fused(result)["QLinearConv"] == 2
    assert cosine(actual, wanted) > 0.999


def test_a_convolution_whose_output_has_no_range_stays() -> None:
    model = make(RESIDUAL[:2], "r1", FILTERS, x=IMAGE.shape)
    found = Ranges({"x": ranges(model, IMAGE, "Conv").tensors["x"]}, "minmax", 1)
    assert emit(ir.from_proto(model), found, operators=("Conv",)) == 0


def test_without_convolutions_nothing_gives_integers() -> None:
    """The residual connection of a transformer is no reason to round."""
    model = make(RESIDUAL, "y", FILTERS | CLIP, x=IMAGE.shape)
    result, _, _ = quantized(model, IMAGE, "Gemm", expected=1)
    assert operators(result).count("QuantizeLinear") == 1


def test_groups_and_outputs_between() -> None:
    nodes = [node("Conv", "x w", "h", group=3), node("Conv", "h v", "y")]
    model = make(nodes, "h y", weights(w=(6, 1, 3, 3), v=(2, 6, 1, 1)), x=IMAGE.shape)
    result, actual, wanted = quantized(model, IMAGE, "Conv", expected=2)
    assert fused(result)["QLinearConv"] == 2
    assert min(map(cosine, actual, wanted)) > 0.999


def test_symmetric_activations_are_signed_around_zero() -> None:
    """S8S8: the same answers within rounding."""
    tensors = weights(w=(64, 32), v=(32, 8))
    entries = [node("MatMul", "x w", "h"), node("Relu", "h", "r"), node("MatMul", "r v", "y")]
    graph = helper.make_graph(
        entries,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "m", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "m", 8])],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    x = np.random.default_rng(2).standard_normal((4, 16, 64)).astype(np.float32)
    result, (actual,), (wanted,) = quantized(model, x, "MatMul", expected=2, symmetric=True)
    points = {name: array for name, array in initializers(result).items() if name.endswith("_zero_point")}
    activations = [array for array in points.values() if array.ndim == 0]
    assert len(activations) == 2
    assert {(str(array.dtype), int(array)) for array in activations} == {("int8", 0)}
    assert cosine(actual, wanted) > 0.999
