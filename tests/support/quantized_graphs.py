"""Small graphs, quantized by the QDQ emitter and run."""

from __future__ import annotations

import tempfile
from collections import Counter
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from ortc.passes.quantization.calibration import Range, Ranges
from ortc.passes.quantization.qdq import emit
from ortc.passes.quantization.quantizable import observed

SIZE = 16
Array = NDArray[Any]
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
