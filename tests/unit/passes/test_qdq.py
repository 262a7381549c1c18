"""What the QDQ emitter writes: who reads rounded values, and how far rounding takes the answers."""

from __future__ import annotations

import itertools
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from ortc.common.errors import NotApplicable
from ortc.passes.quantization.calibration import Range, Ranges
from ortc.passes.quantization.editor import round_channels
from ortc.passes.quantization.qdq import emit
from ortc.passes.quantization.quantizable import observed
from ortc.spec.profile import Smoothing

SIZE = 16
Array = NDArray[Any]
RANDOM = np.random.default_rng(0)
# Channels of very different spread, as a trained model has them.
X = (RANDOM.standard_normal((3, 5, SIZE)) * 10 ** RANDOM.uniform(-1, 1, SIZE)).astype(np.float32)
OPSETS = [13, 17, 20, 23]


def node(operator: str, inputs: str, outputs: str, **attributes: Any) -> NodeProto:
    return helper.make_node(operator, inputs.split(), outputs.split(), name=f"{operator}_{outputs}", **attributes)


def weights(**shapes: tuple[int, ...]) -> dict[str, Array]:
    random = np.random.default_rng(3)
    return {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def make(
    nodes: list[NodeProto],
    outputs: str,
    tensors: dict[str, Array],
    *,
    x: tuple[Any, ...] = (3, 5, SIZE),
    opset: int = 17,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs.split()],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model)


def run(model: onnx.ModelProto, x: Array, *names: str) -> list[Array]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(list(names) or None, {"x": x}))


def ranges(model: onnx.ModelProto, x: Array, *operators: str) -> Ranges:
    """The ranges of what is to be quantized, from one run."""
    tensors = observed(ir.from_proto(model), operators)
    seen = onnx.ModelProto()
    seen.CopyFrom(model)
    names = [tensor.name for tensor in tensors if tensor.name != "x"]
    seen.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    values = dict(zip(names, run(seen, x, *names) if names else [], strict=True)) | {"x": x}
    found = {}
    for tensor in tensors:
        flat = np.moveaxis(values[tensor.name], tensor.axis, -1).reshape(-1, tensor.channels)
        found[tensor.name] = Range(flat.min(axis=0), flat.max(axis=0), np.square(flat).mean(axis=0))
    return Ranges(found, "minmax", 1)


def quantized(
    model: onnx.ModelProto, x: Array, *operators: str, expected: int, **options: Any
) -> tuple[onnx.ModelProto, list[Array], list[Array]]:
    """The quantized model, its answers and those of the original; interfaces are the same and ONNX accepts it."""
    changed = ir.from_proto(model)
    assert emit(changed, ranges(model, x, *operators), operators=operators, **options) == expected
    result = ir.to_proto(changed)
    onnx.checker.check_model(result, full_check=True)
    for part in ("input", "output"):
        names = [value.name for value in getattr(model.graph, part)]
        assert [value.name for value in getattr(result.graph, part)] == names
    return result, run(result, x), run(model, x)


def readers(model: onnx.ModelProto, name: str) -> list[str]:
    return [entry.op_type for entry in model.graph.node if name in entry.input]


def operators(model: onnx.ModelProto) -> list[str]:
    return [entry.op_type for entry in model.graph.node]


def fused(model: onnx.ModelProto) -> dict[str, int]:
    """Operators that ONNX Runtime runs."""
    with tempfile.TemporaryDirectory() as scratch:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = f"{scratch}/optimized.onnx"
        ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return dict(Counter(operators(onnx.load(f"{scratch}/optimized.onnx"))))


def cosine(a: Array, b: Array) -> float:
    return float((a.ravel() @ b.ravel()) / np.linalg.norm(a) / np.linalg.norm(b))


def initializers(model: onnx.ModelProto) -> dict[str, Array]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


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
    assert [name for name, array in initializers(result).items() if array.dtype == np.int8 and array.ndim == 2] == [
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
    integers, scales = round_channels(weight, axis=1)
    np.testing.assert_array_equal(integers, [[127, 0, -127], [-64, 0, 2]])
    np.testing.assert_allclose(scales, [1 / 127, 1, 2])
    integers, scales = round_channels(np.stack([weight, weight]), axis=0)
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
def test_smoothing_helps_where_channels_differ(smooth: Smoothing) -> None:
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
