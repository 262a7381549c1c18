"""Small graphs, converted to half precision and run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from ortc.passes.canonical import write
from ortc.passes.upcast import upcast

SIZE = 16
RANDOM = np.random.default_rng(3)
X = RANDOM.standard_normal((3, SIZE)).astype(np.float32)
W = RANDOM.standard_normal((SIZE, SIZE)).astype(np.float32)
LOWEST = np.float32(np.finfo(np.float32).min)


def node(operator: str, inputs: str, outputs: str, **attributes: Any) -> NodeProto:
    return helper.make_node(operator, inputs.split(), outputs.split(), name=f"{operator}_{outputs}", **attributes)


def make(
    nodes: list[NodeProto], tensors: dict[str, NDArray[Any]], *outputs: str, kind: int = TensorProto.FLOAT
) -> ir.Model:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", SIZE])],
        [helper.make_tensor_value_info(name, kind, None) for name in outputs or ("y",)],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return ir.from_proto(onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True))


def run(directory: Path, x: NDArray[Any] = X) -> list[Any]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    path = directory / "model.onnx"
    return list(ort.InferenceSession(path, options, providers=["CPUExecutionProvider"]).run(None, {"x": x}))


def answers(model: ir.Model, place: Path, x: NDArray[Any] = X) -> list[Any]:
    """What a graph in half precision gives where every result is rounded."""
    for name in ("float16", "float32"):
        (place / name).mkdir()
    write(model, place / "float16")
    onnx.checker.check_model(str(place / "float16" / "model.onnx"), full_check=True)
    upcast(place / "float16", place / "float32")
    onnx.checker.check_model(str(place / "float32" / "model.onnx"), full_check=True)
    return run(place / "float32", x)
