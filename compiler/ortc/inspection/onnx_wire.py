"""The interface of an ONNX file that is not parsed: the fields that say it are found, and weights are passed over."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from ortc.common.plain_files import open_plain
from ortc.common.protobuf import Data, fields, varint
from ortc.inspection.onnx_interface import CLASS_OPERATORS, ELEMENTS, Interface, Step, Value, classes_as_numbers

# Numbers of fields, from onnx.proto.
_IR_VERSION, _GRAPH = 1, 7
_NODE, _INITIALIZER, _INPUT, _OUTPUT = 1, 5, 11, 12
_NODE_INPUT, _NODE_OUTPUT, _NODE_OPERATOR = 1, 2, 4
_TENSOR_NAME = 8
_VALUE_NAME, _VALUE_TYPE = 1, 2
_KINDS = {
    1: "tensor_type",
    4: "sequence_type",
    5: "map_type",
    7: "opaque_type",
    8: "sparse_tensor_type",
    9: "optional_type",
}
_ELEMENT = 1
_MAP = 5
_MOST_FIELDS = 1_000_000
"""Most fields of a graph; nodes, weights and values of the largest models are some ten thousand."""


def read_interface(path: Path) -> Interface:
    """Read what the graph of an ONNX file takes and gives, however large the file is.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is not well-formed, or holds no graph.
    """
    ir_version, has_graph = 0, False
    inputs: list[Value] = []
    outputs: list[Value] = []
    stored: set[str] = set()
    steps: list[Step] = []
    count = 0
    with open_plain(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for number, content, end in _of(data, 0, len(data), (_IR_VERSION, _GRAPH)):
            if number == _IR_VERSION:
                ir_version, _ = varint(data, content, end)
                continue
            has_graph = True
            for kind, _, start, stop in fields(data, content, end):
                count += 1
                if count > _MOST_FIELDS:
                    raise ValueError(f"a graph of more than {_MOST_FIELDS} nodes, weights and values")
                if kind == _INITIALIZER:
                    stored.add(_text(data, start, stop, _TENSOR_NAME))
                elif kind == _INPUT:
                    inputs.append(_value(data[start:stop]))
                elif kind == _OUTPUT:
                    outputs.append(_value(data[start:stop]))
                elif kind == _NODE and (operator := _text(data, start, stop, _NODE_OPERATOR)) in CLASS_OPERATORS:
                    reads, gives = (_texts(data, start, stop, side) for side in (_NODE_INPUT, _NODE_OUTPUT))
                    if reads and gives:
                        steps.append(Step(operator, reads[0], gives[0]))
    if not has_graph:
        raise ValueError("it holds no graph")
    return Interface(ir_version, tuple(inputs), classes_as_numbers(outputs, steps), frozenset(stored))


def _of(data: Data, begin: int, end: int, wanted: tuple[int, ...]) -> Iterator[tuple[int, int, int]]:
    for number, _, content, stop in fields(data, begin, end):
        if number in wanted:
            yield number, content, stop


def _texts(data: Data, begin: int, end: int, wanted: int) -> list[str]:
    return [data[start:stop].decode("utf-8", "surrogateescape") for _, start, stop in _of(data, begin, end, (wanted,))]


def _text(data: Data, begin: int, end: int, wanted: int) -> str:
    found = _texts(data, begin, end, wanted)
    return found[-1] if found else ""


def _value(message: bytes) -> Value:
    """A ValueInfoProto."""
    kind: str | None = None
    element = 0
    for _, begin, end in _of(message, 0, len(message), (_VALUE_TYPE,)):
        for number, start, stop in _of(message, begin, end, tuple(_KINDS)):
            kind = _KINDS[number]
            if kind == "tensor_type":
                for _, at, last in _of(message, start, stop, (_ELEMENT,)):
                    element, _ = varint(message, at, last)
            elif kind == "sequence_type" and any(
                True for _, at, last in _of(message, start, stop, (_ELEMENT,)) for _ in _of(message, at, last, (_MAP,))
            ):
                kind = "sequence_of_maps"
    name = _text(message, 0, len(message), _VALUE_NAME)
    return Value(name, kind, ELEMENTS[element] if kind == "tensor_type" and 0 < element < len(ELEMENTS) else "")
