"""What the QDQ emitter writes: who reads rounded values, and how far rounding takes the answers."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import NodeProto, TensorProto, helper
from tests.support.quantized_graphs import (
    OPSETS,
    SIZE,
    cosine,
    fused,
    initializers,
    make,
    node,
    operators,
    quantized,
    ranges,
    readers,
    run,
    weights,
)

from ortc.common.errors import NotApplicable
from ortc.passes.quantization.calibration import Range, Ranges
from ortc.passes.quantization.editor import round_channels
from ortc.passes.quantization.qdq import emit
from ortc.passes.quantization.quantizable import observed
from ortc.spec.quantization import Alpha

RANDOM = np.random.default_rng(0)
# Channels of very different spread, as a trained model has them.
X = (RANDOM.standard_normal((3, 5, SIZE)) * 10 ** RANDOM.uniform(-1, 1, SIZE)).astype(np.float32)


ATTENTION = [
    node("MatMul", "x wq", "q"),
    node("MatMul", "x wk", "k_product"),
    node("Add", "k_product b", "k"),
    node("Add", "q k", "both"),
    node("Add", "both x", "y"),
]


@pytest.mark.parametrize("opset", OPSETS)
def test_only_what_is_quantized_reads_the_rounded_activation(opset: int) -> None:
    model = make(ATTENTION, "y", weights(wq=(SIZE, SIZE), wk=(SIZE, SIZE), b=(SIZE,)), opset=opset)
    result, (actual,), (wanted,) = quantized(model, X, "MatMul", expected=2)
    assert readers(result, "x") == ["QuantizeLinear", "Add"]
    assert readers(result, "x_dequantized") == ["MatMul", "MatMul"]
    assert operators(result).count("QuantizeLinear") == 1
    assert cosine(actual, wanted) > 0.999
    found = initializers(result)
    assert found["x_zero_point"].dtype == np.uint8
    assert found["wq_quantized"].dtype == np.int8
    assert found["wq_scale"].shape == (SIZE,)
    # Biases and everything else stay as they are; the floating-point weights are gone.
    assert found["b"].dtype == np.float32
    assert not {"wq", "wk"} & set(found)


def test_the_rounding_is_no_worse_than_its_scales() -> None:
    """Each product is off by no more than half a step of its activation and of its weight make it."""
    model = make([node("MatMul", "x w", "y")], "y", weights(w=(SIZE, SIZE)))
    result, (actual,), (wanted,) = quantized(model, X, "MatMul", expected=1)
    found = initializers(result)
    weight = initializers(model)["w"]
    limit = found["x_scale"] / 2 * np.abs(weight).sum(axis=0) + np.abs(X).sum(axis=-1)[..., None] * found["w_scale"] / 2
    limit = limit + SIZE * found["x_scale"] * found["w_scale"] / 4
    assert (np.abs(actual - wanted) <= limit * 1.001).all()
    assert np.abs(actual - wanted).max() > 0


def test_zero_is_exact() -> None:
    model = make([node("MatMul", "x w", "y")], "y", weights(w=(SIZE, SIZE)))
    for x in (np.abs(X), -np.abs(X)):
        changed = ir.from_proto(model)
        emit(changed, ranges(model, x + np.sign(x.sum()) * 1, "MatMul"), operators=("MatMul",))
        (actual,) = run(ir.to_proto(changed), np.zeros_like(X))
        assert not actual.any()


def test_an_activation_of_nothing() -> None:
    x = np.zeros_like(X)
    _, (actual,), _ = quantized(
        make([node("MatMul", "x w", "y")], "y", weights(w=(SIZE, SIZE))), x, "MatMul", expected=1
    )
    assert not actual.any()


def test_a_tied_weight_stays_one() -> None:
    nodes = [node("MatMul", "x w", "h"), node("Relu", "h", "r"), node("MatMul", "r w", "y")]
    result, (actual,), (wanted,) = quantized(make(nodes, "y", weights(w=(SIZE, SIZE))), X, "MatMul", expected=2)
    assert [name for name, array in initializers(result).items() if array.dtype == np.uint8 and array.ndim == 2] == [
        "w_quantized"
    ]
    assert cosine(actual, wanted) > 0.999


@pytest.mark.parametrize(("bias", "transposed"), list(itertools.product([True, False], [0, 1])))
def test_gemm(bias: bool, transposed: int) -> None:
    shape = (4, SIZE) if transposed else (SIZE, 4)
    model = make(
        [node("Gemm", "x w b" if bias else "x w", "y", transB=transposed)], "y", weights(w=shape, b=(4,)), x=(15, SIZE)
    )
    result, (actual,), (wanted,) = quantized(model, X.reshape(15, SIZE), "Gemm", expected=1)
    assert initializers(result)["w_quantized"].shape == shape
    assert fused(result) == {"QuantizeLinear": 1, "QGemm": 1}
    assert cosine(actual, wanted) > 0.999


def test_a_product_of_rows_and_its_bias() -> None:
    """ONNX Runtime makes a Gemm of them, which runs on integers only with a bias of integers."""
    nodes = [node("MatMul", "x w", "h"), node("Add", "b h", "y")]
    model = make(nodes, "y", weights(w=(SIZE, 4), b=(4,)), x=(15, SIZE))
    result, (actual,), (wanted,) = quantized(model, X.reshape(15, SIZE), "MatMul", expected=1)
    assert fused(result) == {"QuantizeLinear": 1, "QGemm": 1}
    assert initializers(result)["b_quantized"].dtype == np.int32
    assert cosine(actual, wanted) > 0.999


def test_a_bias_far_larger_than_its_weights() -> None:
    """A bias is a multiple of the steps of activation and weight, in 32 bits: those of a tiny weight grow."""
    tensors = {"w": np.full((SIZE, 2), 1e-12, np.float32), "b": np.array([1e3, -5.0], np.float32)}
    model = make([node("Gemm", "x w b", "y")], "y", tensors, x=(15, SIZE))
    _, (actual,), (wanted,) = quantized(model, X.reshape(15, SIZE), "Gemm", expected=1)
    np.testing.assert_allclose(actual, wanted, rtol=1e-5)


@pytest.mark.parametrize("attributes", [{"alpha": 2.0}, {"beta": 0.5}, {"transA": 1}])
def test_a_gemm_that_is_more_is_left_alone(attributes: dict[str, Any]) -> None:
    x = X.reshape(15, SIZE)
    if "transA" in attributes:
        x = np.ascontiguousarray(x.T)
    model = make([node("Gemm", "x w b", "y", **attributes)], "y", weights(w=(SIZE, 4), b=(4,)), x=x.shape)
    result, _, _ = quantized(model, x, "Gemm", expected=0)
    assert operators(result) == ["Gemm"]


def test_tables() -> None:
    nodes = [
        node("Cast", "x", "rows", to=TensorProto.INT64),
        node("Gather", "table rows", "first"),
        node("Gather", "table rows", "second"),
        node("Add", "first second", "y"),
    ]
    # Columns of different spread.
    table = weights(table=(7, SIZE))["table"] * np.linspace(0.01, 3, SIZE, dtype=np.float32)
    model = make(nodes, "y", {"table": table}, x=(3, 5))
    x = np.random.default_rng(1).integers(0, 7, (3, 5)).astype(np.float32)
    result, (actual,), (wanted,) = quantized(model, x, "Gather", expected=2)
    found = initializers(result)
    assert found["table_quantized"].dtype == np.int8
    assert "table" not in found
    np.testing.assert_array_less(np.abs(actual - wanted), np.broadcast_to(found["table_scale"] * 1.001, wanted.shape))


def test_what_cannot_be_quantized_is_left_alone() -> None:
    nodes = [
        node("MatMul", "x x_t", "scores"),
        node("MatMul", "scores w3", "y"),
        node("MatMul", "w x_t", "z"),
        node("Gather", "w rows", "column", axis=1),
    ]
    nodes.insert(0, node("Transpose", "x", "x_t", perm=[0, 2, 1]))
    tensors = weights(w3=(1, 5, 5), w=(SIZE, SIZE)) | {"rows": np.array([1])}
    result, _, _ = quantized(make(nodes, "y z column", tensors), X, "MatMul", "Gather", expected=0)
    assert operators(result) == ["Transpose", "MatMul", "MatMul", "MatMul", "Gather"]


def test_weights_that_a_caller_may_replace_are_left_alone() -> None:
    model = make([node("MatMul", "x w", "y")], "y", weights(w=(SIZE, SIZE)))
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [SIZE, SIZE]))
    assert emit(ir.from_proto(model), ranges(model, X, "MatMul"), operators=("MatMul",)) == 0


def test_half_precision_is_left_alone() -> None:
    model = make([node("MatMul", "x w", "y")], "y", {"w": np.ones((SIZE, SIZE), np.float16)})
    assert observed(ir.from_proto(model), ("MatMul",)) == ()


def test_excluded_nodes_stay() -> None:
    model = make(ATTENTION, "y", weights(wq=(SIZE, SIZE), wk=(SIZE, SIZE), b=(SIZE,)))
    result, _, _ = quantized(model, X, "MatMul", expected=1, exclude=("MatMul_q",))
    assert readers(result, "wq") == ["MatMul"]
    assert sorted(readers(result, "x")) == ["Add", "MatMul", "QuantizeLinear"]


def test_a_node_without_a_range_stays() -> None:
    nodes = [node("MatMul", "x w", "h"), node("Relu", "h", "r"), node("MatMul", "r v", "y")]
    model = make(nodes, "y", weights(w=(SIZE, SIZE), v=(SIZE, SIZE)))
    found = ranges(model, X, "MatMul")
    part = Ranges({"r": found.tensors["r"]}, "minmax", 1)
    changed = ir.from_proto(model)
    assert emit(changed, part, operators=("MatMul",)) == 1
    assert readers(ir.to_proto(changed), "w") == ["MatMul"]


def test_an_old_opset_has_no_scales_for_channels() -> None:
    model = make([node("MatMul", "x w", "y")], "y", weights(w=(SIZE, SIZE)), opset=12)
    with pytest.raises(NotApplicable, match="opset 13"):
        emit(ir.from_proto(model), ranges(model, X, "MatMul"), operators=("MatMul",))


def test_names_that_are_taken() -> None:
    nodes = [node("Relu", "x", "x_quantized"), node("MatMul", "x w", "y"), node("Relu", "x_quantized", "w_scale")]
    quantized(make(nodes, "y w_scale", weights(w=(SIZE, SIZE))), X, "MatMul", expected=1)


def test_round_channels() -> None:
    weight = np.array([[1.0, 0.0, -254.0], [-0.5, 0.0, 3.0]], np.float32)
    integers, scales = round_channels("w", weight, axis=1)
    np.testing.assert_array_equal(integers, [[127, 0, -127], [-64, 0, 2]])
    np.testing.assert_allclose(scales, [1 / 127, 1, 2])
    integers, scales = round_channels("w", np.stack([weight, weight]), axis=0)
    assert integers.shape == (2, 2, 3)
    np.testing.assert_allclose(scales, [2, 2])


def test_weights_are_dequantized_before_they_are_read() -> None:
    """A tied weight whose first reader stands behind the second reader of another activation."""
    nodes = [
        node("Relu", "x", "r"),
        node("MatMul", "x v", "a"),
        node("MatMul", "r w", "b"),
        node("MatMul", "x w", "c"),
        node("Sum", "a b c", "y"),
    ]
    _, (actual,), (wanted,) = quantized(
        make(nodes, "y", weights(v=(SIZE, SIZE), w=(SIZE, SIZE))), X, "MatMul", expected=3
    )
    assert cosine(actual, wanted) > 0.999


@pytest.mark.parametrize("smooth", [0.25, 0.5, 0.75, "auto"])
def test_smoothing_helps_where_channels_differ(smooth: Alpha) -> None:
    model = make(ATTENTION, "y", weights(wq=(SIZE, SIZE), wk=(SIZE, SIZE), b=(SIZE,)))
    plain = quantized(model, X, "MatMul", expected=2)
    result, (actual,), (wanted,) = quantized(model, X, "MatMul", expected=2, smooth=smooth)
    assert np.abs(actual - wanted).mean() < np.abs(plain[1][0] - wanted).mean()
    # One product by the factors, for both of the weights.
    assert operators(result).count("Mul") == 1
    assert sorted(readers(result, "x")) == ["Add", "Mul"]


def normalized(*more: NodeProto) -> list[NodeProto]:
    norm = node("LayerNormalization", "x gamma beta", "normal")
    return [norm, node("MatMul", "normal wq", "q"), node("MatMul", "normal wk", "k"), *more]


def test_smoothing_is_folded_into_a_normalization() -> None:
    """Where everybody who reads it is smoothed: then it costs nothing."""
    tensors = weights(wq=(SIZE, SIZE), wk=(SIZE, SIZE), beta=(SIZE,))
    tensors["gamma"] = np.abs(X[0, 0]) + 0.01
    model = make(normalized(node("Add", "q k", "y")), "y", tensors)
    _, (plain,), _ = quantized(model, X, "MatMul", expected=2)
    result, (actual,), (wanted,) = quantized(model, X, "MatMul", expected=2, smooth=0.5)
    assert "Mul" not in operators(result)
    assert np.abs(actual - wanted).mean() < np.abs(plain - wanted).mean()
    residual = make(normalized(node("Add", "q k", "h"), node("Add", "h normal", "y")), "y", tensors)
    result, (actual,), (wanted,) = quantized(residual, X, "MatMul", expected=2, smooth=0.5)
    assert operators(result).count("Mul") == 1
    assert cosine(actual, wanted) > 0.999


def test_ranges_are_kept(tmp_path: Path) -> None:
    found = Ranges(
        {
            "/a/b": Range(X.min(axis=(0, 1)), X.max(axis=(0, 1)), np.square(X).mean(axis=(0, 1))),
            "c": Range(np.zeros(2), np.ones(2), np.ones(2)),
        },
        "minmax",
        7,
    )
    found.save(tmp_path / "ranges.npz")
    again = Ranges.load(tmp_path / "ranges.npz")
    assert (list(again.tensors), again.method, again.samples) == (["/a/b", "c"], "minmax", 7)
    for name, entry in found.tensors.items():
        np.testing.assert_array_equal(again.tensors[name].minimum, entry.minimum)
        np.testing.assert_array_equal(again.tensors[name].maximum, entry.maximum)
