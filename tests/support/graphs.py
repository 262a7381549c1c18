"""Small ONNX graphs, of any opset, IR version and interface."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT
Shape = Sequence[int | str | None]


def node(operator: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    """A node; names are separated by spaces."""
    return helper.make_node(operator, inputs.split(), outputs.split(), **attributes)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Shape],
    outputs: Mapping[str, Shape],
    constants: Mapping[str, NDArray[Any]] | None = None,
    *,
    opset: int = 17,
    ir_version: int = 8,
    dtypes: Mapping[str, int] | None = None,
    defaults: Sequence[str] = (),
) -> onnx.ModelProto:
    """A model over float32 unless `dtypes` says otherwise; `defaults` are constants that are inputs as well."""
    kinds = dtypes or {}
    stored = [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()]
    listed = [tensor for tensor in stored if ir_version < 4 or tensor.name in defaults]
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [
            *(helper.make_tensor_value_info(name, kinds.get(name, FLOAT), shape) for name, shape in inputs.items()),
            *(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims) for tensor in listed),
        ],
        [helper.make_tensor_value_info(name, kinds.get(name, FLOAT), shape) for name, shape in outputs.items()],
        stored,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def floats(*values: float) -> NDArray[np.float32]:
    """A vector of float32."""
    return np.array(values, np.float32)


def linear(*before: onnx.NodeProto) -> onnx.ModelProto:
    """Rows of four numbers times a weight of ones, after other nodes."""
    weights = {"w": np.ones((4, 3), np.float32)}
    return model([*before, node("MatMul", "x w", "y")], {"x": ["batch", 4]}, {"y": ["batch", 3]}, weights)


def linear_with_external_weight(dims: Sequence[int] = (4, 3), **entries: object) -> onnx.ModelProto:
    """The same with its weight in the file w.bin, at the place that the entries name."""
    made = linear()
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    del tensor.dims[:]
    tensor.dims.extend(dims)
    tensor.data_location = tensor.EXTERNAL
    for key, value in {"location": "w.bin", **entries}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, str(value)
    return made


def with_functions(made: onnx.ModelProto, *bodies: Sequence[onnx.NodeProto]) -> onnx.ModelProto:
    """Add functions F0, F1 and so on of the domain `d`, from `a` to `b`."""
    local = helper.make_opsetid("d", 1)
    opsets = [helper.make_opsetid("", 17), local]
    made.opset_import.append(local)
    made.functions.extend(
        helper.make_function("d", f"F{number}", ["a"], ["b"], list(body), opsets) for number, body in enumerate(bodies)
    )
    return made
