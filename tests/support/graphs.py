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
