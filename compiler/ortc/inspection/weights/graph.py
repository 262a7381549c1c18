"""Weights of an ONNX file: its graph is read without them, however large they are and wherever they lie."""

from __future__ import annotations

import math
import mmap
from pathlib import Path
from typing import TYPE_CHECKING

from ortc.common.plain_files import open_plain
from ortc.common.protobuf import field, fields
from ortc.inspection.weights.model import Operation, Reader, Tensor, Weights, shipped

if TYPE_CHECKING:
    import onnx

MAX_GRAPH = 32 * 2**20
"""Most bytes of a graph without its weights; reading more takes seconds."""

# Numbers of fields, from onnx.proto: of ModelProto, GraphProto and TensorProto.
_GRAPH = 7
_NODES, _INITIALIZERS, _INPUTS, _OUTPUTS = 1, 5, 11, 12
_DIMENSIONS, _TYPE, _NAME, _EXTERNAL, _LOCATION = 1, 2, 8, 13, 14
_ITEMSIZE = {
    **dict.fromkeys(("DOUBLE", "INT64", "UINT64"), 8),
    **dict.fromkeys(("FLOAT", "INT32", "UINT32"), 4),
    **dict.fromkeys(("FLOAT16", "BFLOAT16", "INT16", "UINT16"), 2),
    **dict.fromkeys(("INT8", "UINT8", "BOOL"), 1),
}
_WEIGHTS = {
    "MatMul": (0, 1),
    "Gemm": (0, 1),
    "Conv": (1,),
    "ConvTranspose": (1,),
    "Gather": (0,),
    "LSTM": (1, 2),
    "GRU": (1, 2),
    "RNN": (1, 2),
    "MatMulInteger": (0, 1),
    "ConvInteger": (1,),
    "QLinearMatMul": (0, 3),
    "QLinearConv": (3,),
}
"""Which inputs of an operator are weights that no optimizer folds away."""
_FUSED = {"FusedConv": "Conv", "FusedMatMul": "MatMul", "FusedGemm": "Gemm"}
"""Operators of com.microsoft that are one of ONNX's with something after it, and take weights where that does."""
_BY_SHAPE = {"Shape", "Size"}
_SAME_ELEMENTS = {"Identity", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "DequantizeLinear"}


def graph_weights(path: Path, outputs: tuple[str, ...] | None) -> tuple[Weights, ...] | None:
    """The weights that ship of an ONNX file; None when it cannot be told.

    Args:
        path: The file; files of external data are not opened.
        outputs: The outputs that are kept; all when None.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.ModelProto.FromString(without_weights(path))
    except (OSError, ValueError, DecodeError):
        return None
    graph = model.graph
    kinds = onnx.TensorProto.DataType
    tensors = {}
    for tensor in graph.initializer:
        kind = kinds.Name(tensor.data_type) if tensor.data_type in kinds.values() else ""
        if kind in _ITEMSIZE and all(size >= 0 for size in tensor.dims):
            tensors[tensor.name] = Tensor(_storage(tensor), math.prod(tensor.dims), _ITEMSIZE[kind])
    fed = {value.name for value in graph.input} - {tensor.name for tensor in graph.initializer}
    kept = outputs or tuple(value.name for value in graph.output)
    return shipped(tensors, (_operation(node) for node in graph.node), fed, kept)


def _storage(tensor: onnx.TensorProto) -> object:
    """What tells where a tensor's bytes lie: two of one place may come to ship once."""
    place = tuple(sorted((entry.key, entry.value) for entry in tensor.external_data if entry.key != "checksum"))
    return place or tensor.name


def _operation(node: onnx.NodeProto) -> Operation:
    plain = node.domain in ("", "ai.onnx")
    kind = node.op_type if plain else _FUSED.get(node.op_type, "") if node.domain == "com.microsoft" else ""
    reader: Reader = frozenset({kind, node.op_type})
    return Operation(
        inputs=tuple(name for name in node.input if name),
        outputs=tuple(name for name in node.output if name),
        weights={node.input[index]: reader for index in _WEIGHTS.get(kind, ()) if index < len(node.input)},
        by_shape=plain and node.op_type in _BY_SHAPE,
        same_elements=plain and node.op_type in _SAME_ELEMENTS,
    )


def without_weights(path: Path) -> bytes:
    """The bytes of an ONNX file with its nodes, inputs, outputs and the shapes of its weights, and nothing else.

    The file is mapped into memory, and what is left out is not read from the disk.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not well-formed, or what is left is too large.
    """
    with open_plain(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        graphs = [(begin, end) for number, _, begin, end in fields(data, 0, len(data)) if number == _GRAPH]
        if len(graphs) != 1:
            raise ValueError("no graph, or several")
        return field(_GRAPH, _graph(data, *graphs[0]))


def _graph(data: mmap.mmap, begin: int, end: int) -> bytes:
    kept: list[bytes] = []
    size = 0
    for number, start, inner, stop in fields(data, begin, end):
        if number in (_NODES, _INPUTS, _OUTPUTS):
            kept.append(_copy(data, start, stop, MAX_GRAPH - size))
        elif number == _INITIALIZERS:
            described = (
                _copy(data, first, last, MAX_GRAPH - size)
                for part, first, _, last in fields(data, inner, stop)
                if part in (_DIMENSIONS, _TYPE, _NAME, _EXTERNAL, _LOCATION)
            )
            kept.append(field(_INITIALIZERS, b"".join(described)))
        else:
            continue
        size += len(kept[-1])
    return b"".join(kept)


def _copy(data: mmap.mmap, start: int, end: int, room: int) -> bytes:
    if end - start > room:
        raise ValueError(f"more than {MAX_GRAPH} bytes without weights")
    return data[start:end]
