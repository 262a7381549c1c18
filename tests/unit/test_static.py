"""What the QDQ emitter writes: who reads rounded values, and how far rounding takes the answers."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from ortc.stages.calibrate import Range, Ranges
from ortc.stages.quantize import NotApplicable
from ortc.stages.sites import observed
from ortc.stages.static import emit, round_channels

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
        found[tensor.name] = Range(flat.min(axis=0), flat.max(axis=0))
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
    assert "Gemm" not in operators(result)
    assert initializers(result)["w_quantized"].shape == (SIZE, 4)
    assert cosine(actual, wanted) > 0.999


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


@pytest.mark.parametrize("smooth", [0.25, 0.5, 0.75])
def test_smoothing_helps_where_channels_differ(smooth: float) -> None:
    model = make(ATTENTION, "y", weights(wq=(SIZE, SIZE), wk=(SIZE, SIZE), b=(SIZE,)))
    plain = quantized(model, X, "MatMul", expected=2)
    result, (actual,), (wanted,) = quantized(model, X, "MatMul", expected=2, smooth=smooth)
    assert np.abs(actual - wanted).mean() < np.abs(plain[1][0] - wanted).mean()
    # One product by the factors, for both of the weights.
    assert operators(result).count("Mul") == 1
    assert readers(result, "x") == ["Mul", "Add"]


def test_ranges_are_kept(tmp_path: Path) -> None:
    found = Ranges(
        {"/a/b": Range(X.min(axis=(0, 1)), X.max(axis=(0, 1))), "c": Range(np.zeros(2), np.ones(2))}, "minmax", 7
    )
    found.save(tmp_path / "ranges.npz")
    again = Ranges.load(tmp_path / "ranges.npz")
    assert (list(again.tensors), again.method, again.samples) == (["/a/b", "c"], "minmax", 7)
    for name, entry in found.tensors.items():
        np.testing.assert_array_equal(again.tensors[name].minimum, entry.minimum)
        np.testing.assert_array_equal(again.tensors[name].maximum, entry.maximum)
