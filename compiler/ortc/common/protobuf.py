"""Protobuf's wire format: the fields of a message, found without parsing what they hold.

Source: protobuf.dev, "Encoding".
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

Data = mmap.mmap | bytes


def field(number: int, content: bytes) -> bytes:
    """A field of bytes with its tag and length."""
    return _varint_bytes(number << 3 | BYTES) + _varint_bytes(len(content)) + content


def _varint_bytes(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


def fields(data: Data, begin: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Number, start, start of the content and end of each field of a message.

    Raises:
        ValueError: the bytes are not well-formed.
    """
    offset = begin
    while offset < end:
        start = offset
        tag, offset = varint(data, offset, end)
        content = offset
        kind = tag & 7
        if kind == VARINT:
            _, offset = varint(data, offset, end)
        elif kind == BYTES:
            length, content = varint(data, offset, end)
            offset = content + length
        elif kind in (FIXED32, FIXED64):
            offset += 4 if kind == FIXED32 else 8
        else:
            raise ValueError(f"no protobuf: wire type {kind} at byte {start}")
        if offset > end:
            raise ValueError(f"a field at byte {start} goes beyond its message")
        yield tag >> 3, start, content, offset


def varint(data: Data, offset: int, end: int) -> tuple[int, int]:
    """An unsigned integer, and the offset behind it.

    Raises:
        ValueError: the integer does not end.
    """
    value, shift = 0, 0
    while offset < end and shift < 64:
        byte = data[offset]
        offset += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, offset
        shift += 7
    raise ValueError(f"an unfinished number at byte {offset}")
