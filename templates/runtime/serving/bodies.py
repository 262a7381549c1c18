"""The head and the body of a request to a model, read within bounds or left where it is."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from serving.errors import RefusedError, bad
from serving.memory import Hold, Memory
from serving.protocol import HEAD_LENGTH

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
SMALL_BODY = 65536  # is read and thrown away where it is not wanted; a connection with more to come is closed
LINGER_SECONDS = 2.0
SHORT_LINGER_SECONDS = 0.2  # while the server ends


class DisconnectedError(ConnectionError):
    """The client left before its request was whole."""


@dataclass(slots=True)
class Head:
    """What the headers of a request say; `length` None where the body is chunked."""

    length: int | None
    tensors_at: str | None
    expects_100: bool
    content_type: str = ""


def read_head(headers: list[tuple[bytes, bytes]]) -> Head:
    """What the headers say; RefusedError where they say what this server does not do."""
    length: int | None = None
    chunked = expects = False
    tensors_at: str | None = None
    content_type = ""
    for name, value in headers:
        if name == b"content-length":
            if length is not None or not re.fullmatch(rb"[0-9]{1,18}", value):
                raise bad("Content-Length is not one number")
            length = int(value)
        elif name == b"transfer-encoding":
            chunked = True
        elif name == HEAD_LENGTH:
            tensors_at = value.decode("latin-1")
        elif name == b"content-encoding" and value.lower() != b"identity":
            raise RefusedError(415, "request", "Content-Encoding is not supported; send the body as it is")
        elif name == b"expect":
            expects = True
        elif name == b"content-type":
            content_type = value.decode("latin-1")
    return Head(None if chunked else length or 0, tensors_at, expects, content_type)


class Body:
    """The body of a request: read whole within bounds, or left where it is."""

    def __init__(self, receive: Receive, most: int, memory: Memory, held: Hold) -> None:
        self._receive, self._most, self._memory, self._held = receive, most, memory, held
        self.head: Head | None = None
        self.complete = False

    async def _part(self) -> bytes:
        message = await self._receive()
        if message["type"] != "http.request":
            raise DisconnectedError
        self.complete = not message.get("more_body", False)
        part: bytes = message.get("body", b"")
        return part

    async def read(self) -> bytes | bytearray:
        """All of it; only bytes that arrived count.

        Raises:
            RefusedError: 413, a chunked body is longer than allowed; 503, all requests together hold too much.
            DisconnectedError: The client left.
        """
        first = await self._counted_part()
        if self.complete and len(first) <= self._most:
            return first
        whole = bytearray(first)
        while len(whole) <= self._most:
            if self.complete:
                return whole
            whole += await self._counted_part()
        raise self.too_large()

    def too_large(self) -> RefusedError:
        """The refusal of a body above the limit."""
        return RefusedError(413, "too-large", f"the body may have {self._most} bytes at most")

    async def _counted_part(self) -> bytes:
        part = await self._part()
        self._memory.take(self._held, len(part))
        self._held.progress(len(part))
        return part

    async def respond(
        self, send: Send, status: int, headers: list[tuple[bytes, bytes]], content: bytes, *, close: bool
    ) -> None:
        """Send an answer. A body that was not read is thrown away if it is short, else the connection closes after."""
        head = self.head
        short = head is not None and head.length is not None and head.length <= SMALL_BODY and not head.expects_100
        if not self.complete and short and status != 408 and not close:
            await self._linger(LINGER_SECONDS)
        if close or not self.complete:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        if not self.complete:
            # The client has its answer, but closing now would reset the connection under it while it still sends.
            await send({"type": "http.response.body", "body": content, "more_body": True})
            if head is None or not head.expects_100:
                await self._linger(SHORT_LINGER_SECONDS if close else LINGER_SECONDS)
            content = b""
        await send({"type": "http.response.body", "body": content})

    async def _linger(self, seconds: float) -> None:
        """Throw away what comes, for a while."""
        with contextlib.suppress(TimeoutError, DisconnectedError):
            async with asyncio.timeout(seconds):
                while not self.complete:
                    await self._part()
