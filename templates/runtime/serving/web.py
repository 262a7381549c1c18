"""Inference over HTTP: one ASGI application, models straight, everything else through Starlette's routes."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from serving.access import Access
from serving.answer_bodies import error_body, error_of
from serving.answer_routes import PATHS, AnswerRoutes
from serving.app import Application
from serving.bodies import Body, DisconnectedError, Head, Receive, Scope, Send, read_head
from serving.bounds import json_bytes
from serving.calls import Call
from serving.connection import Connection
from serving.errors import RefusedError, bad
from serving.memory import Hold
from serving.models import Served
from serving.protocol import BINARY_TYPE, HEAD_LENGTH, JSON_TYPE, decode, encode

ASGI = Callable[[Scope, Receive, Send], Awaitable[None]]
INFER = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer")
LARGE_BYTES = 65536  # of JSON, and above 1 MiB of anything: decoded in a thread


@dataclass(frozen=True)
class _Reply:
    """A body; `head_length` are the bytes of its JSON part where binary tensors follow."""

    content: bytes
    head_length: int | None = None


class Web:
    """The ASGI application. `routes` answers all but models; `access` says who may ask."""

    def __init__(self, application: Application, routes: ASGI, access: Access) -> None:
        self._application, self._routes, self._access = application, routes, access
        self._answers = AnswerRoutes(application)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            return
        send = self._access.shared(scope, send)
        if await self._access.preflight(scope, send):
            return
        call = self._call(scope)
        connection: Connection = scope["extensions"]["ortc.connection"][""]
        if call is None:
            await self._application.connections.turns.take(connection)
            try:
                self._access.check_path(scope["path"], scope["headers"])
            except RefusedError as error:
                await self._refuse(scope, send, error)
                return
            await self._routes(scope, receive, send)
            return
        task = asyncio.current_task()
        with self._application.drain.counted(), self._application.memory.hold() as held:
            # What was asked for by a client that left is not to be run, nor kept.
            connection.left = None if task is None else lambda: _cancel(task)
            try:
                await self._answer(call, scope, receive, send, held)
                held.evict = connection.abort
                connection.hold = held
                await connection.sent()
            except (DisconnectedError, asyncio.CancelledError):
                if not connection.transport.is_closing():
                    raise
            finally:
                connection.left = connection.hold = None

    async def _refuse(self, scope: Scope, send: Send, error: RefusedError) -> None:
        """Answer who has no key, and read nothing more."""
        document = {"error": str(error)}
        if scope["path"].startswith("/v1/"):
            document = error_of(error.status, error.kind, str(error))
        content = json.dumps(document).encode()
        headers = [
            (b"content-type", JSON_TYPE),
            (b"content-length", str(len(content)).encode()),
            (b"x-request-id", self._application.ids.of(scope["headers"]).encode()),
            (b"www-authenticate", b"Bearer"),
            (b"connection", b"close"),
        ]
        await send({"type": "http.response.start", "status": error.status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    def _call(self, scope: Scope) -> Call | None:
        """A request to a model; None for all others."""
        if scope["method"] != "POST":
            return None
        path, headers = scope["path"], scope["headers"]
        if path in PATHS:
            return self._application.call("", None, headers, route=PATHS[path])
        found = INFER.fullmatch(path)
        return None if found is None else self._application.call(found[1], found[2], headers)

    async def _answer(self, call: Call, scope: Scope, receive: Receive, send: Send, held: Hold) -> None:
        application = self._application
        body = Body(receive, application.limits.body_bytes, application.memory, held)

        async def work() -> _Reply:
            self._access.check(scope["headers"])
            body.head = head = read_head(scope["headers"])
            application.drain.admit()
            served = await application.lease(call) if call.route == "infer" else None
            if head.length is not None and head.length > application.limits.body_bytes:
                raise body.too_large()
            content = await self._content(call, body, held)
            if served is None:
                reply = _Reply(await self._answers.answer(call, content, head.content_type, held))
            else:
                reply = await self._inferred(served, content, head, held)
            application.memory.give_back(held)
            application.memory.take(held, len(reply.content))
            held.restart()
            return reply

        reply = await application.attempt(call, work)
        try:
            content = _refusal(call) if reply is None else reply.content
            length = None if reply is None else reply.head_length
            headers = _headers(call, len(content), length)
            await body.respond(send, call.status, headers, content, close=application.drain.draining)
        finally:
            application.ended(call)

    async def _content(self, call: Call, body: Body, held: Hold) -> bytes | bytearray:
        call.receiving, held.evict = True, call.give_up
        held.restart()
        content = await body.read()
        call.receiving, held.evict = False, None
        return content

    async def _inferred(self, served: Served, content: bytes | bytearray, head: Head, held: Hold) -> _Reply:
        application = self._application
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
        return _Reply(*encode(served.model, await application.run(served, held, request), request))


def _refusal(call: Call) -> bytes:
    return json.dumps({"error": call.problem}).encode() if call.route == "infer" else error_body(call)


def _headers(call: Call, length: int, head_length: int | None) -> list[tuple[bytes, bytes]]:
    headers = [
        (b"content-type", JSON_TYPE if head_length is None else BINARY_TYPE),
        (b"content-length", str(length).encode()),
        (b"x-request-id", call.id.encode()),
    ]
    if head_length is not None:
        headers.append((HEAD_LENGTH, str(head_length).encode()))
    if call.retry_after is not None:
        headers.append((b"retry-after", str(call.retry_after).encode()))
    if call.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    return headers


def _json_end(content: bytes | bytearray, tensors_at: str | None) -> int:
    """Where the JSON part of a body ends, as far as the header says it."""
    if tensors_at is None or not re.fullmatch("[0-9]{1,18}", tensors_at):
        return len(content)
    return min(int(tensors_at), len(content))


def _cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()
