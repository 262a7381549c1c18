"""Hostile clients of the server: each attack goes to 127.0.0.1, is bounded in number and time, and ends by itself."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

SECONDS = 120


def head(path: str, length: int, *more: str) -> bytes:
    """The head of a POST that announces so many bytes."""
    lines = (f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {length}", *more)
    return "\r\n".join((*lines, "", "")).encode()


@contextmanager
def connections(
    port: int, count: int, first: bytes = b"", *, window: int | None = None
) -> Iterator[list[socket.socket]]:
    """Open connections that send something and then wait; `window` is the most that they take unread."""
    with ExitStack() as stack:
        opened = []
        for _ in range(count):
            made = stack.enter_context(contextlib.closing(socket.socket()))
            made.settimeout(SECONDS)
            if window is not None:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
            with contextlib.suppress(OSError):  # refused or closed: that is the server's right
                made.connect(("127.0.0.1", port))
                made.settimeout(1)
                made.sendall(first)
            opened.append(made)
        yield opened


def strings(name: str, datatype: str, count: int, longest: int) -> bytes:
    """One long string among many short ones: an array of them is as wide as the longest."""
    data = ["x" * longest] + [""] * (count - 1)
    entry = {"name": name, "shape": [count], "datatype": datatype, "data": data}
    return json.dumps({"inputs": [entry]}, separators=(",", ":")).encode()


def nested(name: str, datatype: str, size: int) -> bytes:
    """A body of so many bytes of empty lists, each of which becomes an object."""
    data = b"[" + b"[]," * ((size - 200) // 3) + b"[]]"
    start = json.dumps({"name": name, "shape": [1], "datatype": datatype})[:-1].encode()
    return b'{"inputs":[' + start + b',"data":' + data + b"}]}"


# --- HTTP/2, by hand: no library sends half a message ---------------------------------------------------------------


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame of HTTP/2."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _field(name: str, value: str) -> bytes:
    """A header field, literally and without an index."""
    return b"\0" + bytes((len(name),)) + name.encode() + bytes((len(value),)) + value.encode()


def unfinished(path: str, count: int, announced: int, sent: int) -> bytes:
    """A connection of HTTP/2 with so many gRPC calls, each of which sends a part of its message."""
    fields = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "localhost", "te": "trailers"}
    fields["content-type"] = "application/grpc"
    block = b"".join(_field(name, value) for name, value in fields.items())
    part = struct.pack(">BI", 0, announced) + bytes(sent)
    frames = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", frame(4, 0, 0)]
    for number in range(count):
        stream = 2 * number + 1
        frames.append(frame(1, 4, stream, block))
        frames += [frame(0, 0, stream, part[at : at + 16384]) for at in range(0, len(part), 16384)]
    return b"".join(frames)
