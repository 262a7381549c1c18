"""The head of an ONNX file: its IR version and opset, read without parsing the graph."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path

from ortc.common.plain_files import open_plain
from ortc.common.protobuf import fields, varint

# Numbers of fields, from onnx.proto: of ModelProto and OperatorSetIdProto.
_IR_VERSION, _OPSET_IMPORT = 1, 8
_DOMAIN, _VERSION = 1, 2
_ONNX = (b"", b"ai.onnx")

DEFAULTS_IR = 4
"""IR version from which an initializer that is listed as an input is a default value of that input."""


@dataclass(frozen=True)
class Header:
    """`opset` of the default domain; 0 where the file imports none."""

    ir_version: int
    opset: int


MOST_FIELDS = 100_000
"""Of a model: its graph, and an entry for each function, operator set and property."""


def read_header(path: Path) -> Header:
    """The IR version and the opset of an ONNX file, however large it is.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is not well-formed, or has more than `MOST_FIELDS` parts.
    """
    ir_version, opset = 0, 0
    with open_plain(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for count, (number, _, content, end) in enumerate(fields(data, 0, len(data))):
            if count >= MOST_FIELDS:
                raise ValueError(f"it has more than {MOST_FIELDS:,} parts beside its graph")
            if number == _IR_VERSION:
                ir_version, _ = varint(data, content, end)
            elif number == _OPSET_IMPORT:
                opset = max(opset, _default_opset(data[content:end]))
    return Header(ir_version, opset)


def _default_opset(message: bytes) -> int:
    """The version of one OperatorSetIdProto; 0 when it is of another domain."""
    domain, version = b"", 0
    for number, _, content, end in fields(message, 0, len(message)):
        if number == _DOMAIN:
            domain = message[content:end]
        elif number == _VERSION:
            version, _ = varint(message, content, end)
    return version if domain in _ONNX else 0
