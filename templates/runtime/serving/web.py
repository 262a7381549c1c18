"""Inference over HTTP: one ASGI application, inference straight, everything else through Starlette's routes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from serving.app import Application
from serving.bounds import json_bytes
from serving.calls import Call
from serving.connection import Connection
from serving.errors import RefusedError, bad
from serving.memory import Hold, Memory
from serving.protocol import BINARY_TYPE, HEAD_LENGTH, JSON_TYPE, decode, encode
from serving.turns import Turns

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGI = Callable[[Scope, Receive, Send], Awaitable[None]]
INFER = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer")
SMALL_BODY = 65536  # is read and thrown away where it is not wanted; a connection with more to come is closed
LARGE_BYTES = 65536  # of JSON, and above 1 MiB of anything: decoded in a thread
LINGER_SECONDS = 2.0
SHORT_LINGER_SECONDS = 0.2  # while the server ends


class DisconnectedError(ConnectionError):
    """The client left before its request was whole."""


@dataclass(slots=True)
class _Head:
    """What the headers of a request say; `length` None where the body is chunked."""

    length: int | None
    tensors_at: str | None
    expects_100: bool


class Web:
    """The ASGI application. `routes` answers all but inference."""

    def __init__(self, application: Application, routes: ASGI) -> None:
        self._application, self._routes, self._turns = application, routes, Turns()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            return
        found = INFER.fullmatch(scope["path"]) if scope["method"] == "POST" else None
        if found is None:
            await self._turns.take()
            await self._routes(scope, receive, send)
            return
        call = self._application.call(found[1], found[2], scope["headers"])
        connection: Connection = scope["extensions"]["ortc.connection"][""]
        task = asyncio.current_task()
        with self._application.drain.counted(), self._application.memory.hold() as held:
            # What was asked for by a client that left is not to be run, nor kept.
            connection.left = None if task is None else lambda: _cancel(task)
            try:
                await self._infer(call, scope["headers"], receive, send, held)
                held.evict = connection.abort
                connection.hold = held
                await connection.sent()
            except (DisconnectedError, asyncio.CancelledError):
                if not connection.transport.is_closing():
                    raise
            finally:
                connection.left = connection.hold = None

    async def _infer(
        self, call: Call, given: list[tuple[bytes, bytes]], receive: Receive, send: Send, held: Hold
    ) -> None:
        application, memory = self._application, self._application.memory
        body = _Body(receive, application.limits.body_bytes, memory, held)

        async def work() -> tuple[bytes, int | None]:
            body.head = head = _head(given)
            application.drain.admit()
            served = await application.lease(call)
            if head.length is not None and head.length > application.limits.body_bytes:
                raise body.too_large()
            call.receiving, held.evict = True, call.give_up
            held.restart()
            content = await body.read()
            call.receiving, held.evict = False, None
            end = _json_end(content, head.tensors_at)
            if problem := served.capacity.refuse_size(end):
                raise bad(problem)
            large = end > LARGE_BYTES or len(content) > 16 * LARGE_BYTES
            request = await application.decoded(
                served,
                held,
                lambda: decode(content, head.tensors_at, served.model.inputs, served.capacity),
                objects=1 + json_bytes(content, end) if large else 0,
            )
            answer, head_length = encode(served.model, await application.run(served, request), request)
            memory.give_back(held)
            memory.take(held, len(answer))
            held.restart()
            return answer, head_length

        answer = await application.attempt(call, work)
        content, head_length = answer or (json.dumps({"error": call.problem}).encode(), None)
        headers = [
            (b"content-type", JSON_TYPE if head_length is None else BINARY_TYPE),
            (b"content-length", str(len(content)).encode()),
            (b"x-request-id", call.id.encode()),
        ]
        if head_length is not None:
            headers.append((HEAD_LENGTH, str(head_length).encode()))
        if call.retry_after is not None:
            headers.append((b"retry-after", str(call.retry_after).encode()))
        try:
            await body.respond(send, call.status, headers, content, close=application.drain.draining)
        finally:
            application.ended(call)


def _json_end(content: bytes | bytearray, tensors_at: str | None) -> int:
    """Where the JSON part of a body ends, as far as the header says it."""
    if tensors_at is None or not re.fullmatch("[0-9]{1,18}", tensors_at):
        return len(content)
    return min(int(tensors_at), len(content))


def _cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()


def _head(headers: list[tuple[bytes, bytes]]) -> _Head:
    length: int | None = None
    chunked = expects = False
    tensors_at: str | None = None
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
    return _Head(None if chunked else length or 0, tensors_at, expects)


class _Body:
    """The body of a request: read whole within bounds, or left where it is."""

    def __init__(self, receive: Receive, most: int, memory: Memory, held: Hold) -> None:
        self._receive, self._most, self._memory, self._held = receive, most, memory, held
        self.head: _Head | None = None
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
