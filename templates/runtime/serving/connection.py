"""Uvicorn's HTTP connection, with bounds on heads, pipelines and unread answers, and refusals as JSON."""

from __future__ import annotations

import asyncio
import fcntl
import json
import re
import struct
import termios
from collections.abc import Callable
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving import logs
from serving.memory import SLOWEST_SECONDS, STEP_BYTES, Hold
from serving.sockets import Connections

MOST_HEAD_BYTES = 65536
HEAD_SECONDS = 30.0
SLICE_BYTES = 8192  # of a head or a body of known length that are parsed at once
SMALL_SLICE_BYTES = 1024  # of other bodies: nothing says where they end, and so many requests may begin behind them
BLANK = re.compile(rb"\n\r?\n")  # ends a head
READ_BYTES, BODY_READ_BYTES = 16384, 65536  # that one read takes, of heads and of large bodies


class HeadTooLargeError(Exception):
    """Ends the parsing of a head."""


class _Joined:
    """A transport that sends the head of an answer with its body: one system call, and neither without the other."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._head: bytes | None = None
        self.written = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Hold a head back until the body, which uvicorn writes in the same step of the loop, or the next step."""
        self.written += len(data)
        if self._head is not None:
            head, self._head = self._head, None
            self._transport.writelines((head, data))
        elif data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 100"):
            self._head = data
            self._loop.call_soon(self._flush)
        else:
            self._transport.write(data)

    def close(self) -> None:
        """Send what is held back, then close."""
        self._flush()
        self._transport.close()

    def read_at_most(self, size: int) -> None:
        """Take so many bytes in one read."""
        self._transport.max_size = size  # type: ignore[attr-defined]

    def unsent(self) -> int:
        """Bytes that the client did not take yet, in this process and in the kernel."""
        waiting = self._transport.get_write_buffer_size()
        socket = self._transport.get_extra_info("socket")
        if socket is None or socket.fileno() < 0:
            return waiting
        (queued,) = struct.unpack("i", fcntl.ioctl(socket.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))
        return waiting + int(queued)

    def _flush(self) -> None:
        if self._head is not None:
            head, self._head = self._head, None
            self._transport.write(head)


class _Reading:
    """How far a client has read its answers."""

    def __init__(self) -> None:
        self._taken = 0  # bytes that the client took when it last made progress
        self._since = 0.0
        self._unsent = 0

    def goes_on(self, transport: _Joined, now: float) -> bool:
        """Whether the client took more, or something new was written."""
        if not self._unsent and self._taken == transport.written:
            return False
        unsent = transport.unsent()
        taken = transport.written - unsent
        if self._unsent and unsent and taken < self._taken + STEP_BYTES:
            self._unsent = unsent
            return False
        self._taken, self._since, self._unsent = taken, now, unsent
        return True

    def unread(self, now: float) -> int | None:
        """Bytes that the client has left unread for too long; None while it reads."""
        return self._unsent if self._unsent and now - self._since > SLOWEST_SECONDS else None


class Connection(HttpToolsProtocol):
    """One client. Uvicorn waits for its head and its reading for ever, however much that takes; here both are bounded.

    `left` is called when the client is gone, `hold` is what its answer holds until it is read.
    """

    _transport: _Joined
    _timer: asyncio.TimerHandle | None = None
    _in_head = True  # bytes count as those of a head
    _begun = False  # a head has begun, and not ended
    _raw_bytes = _field_bytes = 0  # of the head: what was read, and what its fields hold
    _too_large = False
    _unparsed = _tail = b""  # what waits; what was parsed last, as far as the end of a head may begin there
    _following = False  # the next request is there, and waits for its turn
    _body_left: int | None = None  # bytes of the body that are still to come, where the head says it
    left: Callable[[], None] | None = None
    hold: Hold | None = None

    def __init__(self, registry: Connections[Connection], **options: Any) -> None:
        """One of the connections in `registry`; the options are uvicorn's."""
        super().__init__(**options)
        self._registry = registry
        self._reading = _Reading()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there; it has until the timer to say what it wants."""
        self._transport = _Joined(transport, self.loop)
        super().connection_made(cast(asyncio.Transport, self._transport))
        # With anything left unsent uvicorn waits before it writes more.
        transport.set_write_buffer_limits(high=0)
        self._transport.read_at_most(READ_BYTES)
        if self._registry.admit(self):
            self._wait_for_head()
        else:
            self._refuse("503 Service Unavailable", "too many connections; try again later", "retry-after: 1\r\n")

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._stop_waiting()
        self._unparsed = b""
        self._registry.forget(self)
        super().connection_lost(exc)
        if self.left is not None:
            self.left()

    def abort(self) -> None:
        """Close at once; what was not sent is lost."""
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """More of a head or a body."""
        if not self._unparsed:
            self._registry.turns.asks(self)
        self._unparsed = self._unparsed + data if self._unparsed else data
        self._parse()

    def follow(self) -> None:
        """Begin the next request, which arrived before the last was answered."""
        self._following = False
        if not self.transport.is_closing():
            self.flow.resume_reading()
            self._parse()

    def _parse(self) -> None:
        """Parse what arrived, a slice at a time, until a request waits for the answer to another."""
        while self._unparsed and not self._unanswered() and not self.transport.is_closing():
            size = self._slice()
            piece, self._unparsed = self._unparsed[:size], self._unparsed[size:]
            began_in_head = self._in_head
            self._tail = (self._tail + piece[-3:])[-3:]
            super().data_received(piece)
            if self._in_head and began_in_head:
                self._raw_bytes += len(piece)
                if self._raw_bytes >= MOST_HEAD_BYTES and not self.transport.is_closing():
                    self._refuse_head()
        if self._begun and self._timer is None and not self.transport.is_closing():
            self._wait_for_head()
        if self._unparsed:
            self.flow.pause_reading()

    def _unanswered(self) -> bool:
        """Whether a request is whole and waits for its answer, or the next one waits for its turn."""
        if self._following:
            return True
        return self.cycle is not None and not self.cycle.more_body and not self.cycle.response_complete

    def _slice(self) -> int:
        """How much to parse next: no more than one request, so that many that came at once take their turns."""
        if self._in_head:
            most = min(SLICE_BYTES, MOST_HEAD_BYTES - self._raw_bytes)
            return _end_of_head(self._tail, self._unparsed[:most])
        return SMALL_SLICE_BYTES if self._body_left is None else max(1, min(SLICE_BYTES, self._body_left))

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self._in_head = self._begun = True
        self._raw_bytes = self._field_bytes = 0
        self._body_left = None
        super().on_message_begin()
        self.scope["extensions"] = {"ortc.connection": {"": self}}

    def on_url(self, url: bytes) -> None:
        """A part of the target."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the head."""
        self._count(len(name) + len(value) + 4)
        if name.lower() == b"content-length" and value.strip().isdigit():
            self._body_left = int(value[:18])
        super().on_header(name, value)

    def _count(self, size: int) -> None:
        self._field_bytes += size
        if self._field_bytes > MOST_HEAD_BYTES:
            self._too_large = True
            raise HeadTooLargeError

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._in_head = self._begun = False
        self._stop_waiting()
        self._registry.work(self)
        self._transport.read_at_most(BODY_READ_BYTES)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        if self._body_left is not None:
            self._body_left -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The body is whole."""
        self._tail = b""
        self._in_head, self._raw_bytes = True, 0
        self._registry.received(self)
        self._transport.read_at_most(READ_BYTES)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The answer is written; the next request may be parsed."""
        self._rest()
        super().on_response_complete()
        if self._unparsed:
            self.flow.pause_reading()
            self._following = True
            self._registry.turns.put(self, self.follow, self.loop)

    def resume_writing(self) -> None:
        """The client took what was written."""
        super().resume_writing()
        self._rest()

    def _rest(self) -> None:
        """Nothing is under way, and nothing waits to be read: the connection may make room for another."""
        answered = self.cycle is not None and self.cycle.response_complete
        if answered and not self._unparsed and not self.flow.write_paused:
            self._registry.rest(self)

    def send_400_response(self, msg: str) -> None:
        """What is not HTTP."""
        if self._too_large:
            self._refuse_head()
        else:
            self._refuse("400 Bad Request", "this is not HTTP/1.1 as RFC 9112 has it")

    def _unsupported_upgrade_warning(self) -> None:
        """Ignore the wish for another protocol, and what was sent in it."""
        self._unparsed = b""

    def sweep(self, now: float) -> None:
        """Close the connection if its client does not read."""
        if self._reading.goes_on(self._transport, now) and self.hold is not None:
            self.hold.restart()
        if (unsent := self._reading.unread(now)) is not None:
            logs.write("warning", "unread-answer", unsent_bytes=unsent)
            self.abort()

    async def sent(self) -> None:
        """Wait until nothing of an answer is left in this process, or the client is gone."""
        if self.flow.write_paused:
            await self.flow.drain()

    def _wait_for_head(self) -> None:
        self._timer = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse_head(self) -> None:
        self._refuse("431 Request Header Fields Too Large", f"a head may have {MOST_HEAD_BYTES} bytes at most")

    def _refuse(self, status: str, message: str, more: str = "") -> None:
        self._registry.refused()
        self.transport.write(_refusal(status, message, more))
        self.transport.close()


def _end_of_head(tail: bytes, piece: bytes) -> int:
    """How much of a piece belongs to a head whose parsed part ends in `tail`; all of it where the head goes on."""
    # The end of a line may be parsed already.
    ends = (found.end() - len(tail) for found in BLANK.finditer(tail + piece))
    return next((end for end in ends if end > 0), len(piece))


def _refusal(status: str, message: str, more: str) -> bytes:
    body = json.dumps({"error": message}).encode()
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n{more}"
    return head.encode() + b"connection: close\r\n\r\n" + body
