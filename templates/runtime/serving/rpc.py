"""The Open Inference Protocol over gRPC: the same models, queue, bounds and drain as over HTTP.

Needs the packages of requirements-grpc.txt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from loading.errors import UsageError

from serving import logs
from serving.access import Access
from serving.app import Application
from serving.arrivals import Arrivals
from serving.bounds import refuse_fields
from serving.calls import Call
from serving.errors import RefusedError, bad
from serving.memory import SLOWEST_SECONDS, Hold
from serving.messages import HEALTH, HEALTH_SERVICE, INFERENCE, SERVICE, make
from serving.repository import Repository
from serving.rpc_queries import Answer, Queries
from serving.rpc_tensors import decode, encode
from serving.versions import UnknownModelError

CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
}
MOST_CALLS = 1024  # at once; what is beyond is told RESOURCE_EXHAUSTED
MOST_STREAMS = 256  # of one connection at once
HANDSHAKE_MS, IDLE_MS = 2000, 60000  # for a connection to begin, and without a call
LARGE_BYTES, OBJECT_FACTOR = 65536, 8  # typed contents above are decoded in a thread; their objects take so much more
OPEN = ("Check", "ServerLive", "ServerReady")  # calls that need no key
SMALL = 65536  # bytes of any message but an inference request


class RpcServer:
    """The gRPC server of an application; made and used in its event loop."""

    def __init__(self, application: Application, repository: Repository, access: Access) -> None:
        self._application, self._repository, self._access = application, repository, access
        limits = application.limits
        self._messages = {**make("inference", INFERENCE), **make("grpc.health.v1", HEALTH)}
        self._request, self._response = (self._messages[f"ModelInfer{kind}"] for kind in ("Request", "Response"))
        self._queries = Queries(application, repository, self._messages)
        self._arrivals = Arrivals(application.memory, limits.body_bytes)
        self._server = grpc.aio.server(
            options=(
                ("grpc.max_receive_message_length", limits.body_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),
                ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
                ("grpc.max_connection_idle_ms", IDLE_MS),
                ("grpc.max_concurrent_streams", MOST_STREAMS),
                ("grpc.max_allowed_incoming_connections", application.connections.limit),
                ("grpc.max_metadata_size", 16384),
                # Identity alone: 16 kB unfold into 16 MB, which cost a client nothing and the others their turn.
                ("grpc.compression_enabled_algorithms_bitset", 1),
            ),
            maximum_concurrent_rpcs=MOST_CALLS,
        )
        self._server.add_generic_rpc_handlers(self._handlers())

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port.

        Raises:
            UsageError: The port is not to be had.
        """
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            found = self._server.add_insecure_port(place)
        except RuntimeError as error:
            raise UsageError(f"cannot listen on {place} for gRPC") from error
        await self._server.start()
        return int(found)

    async def stop(self, seconds: float) -> None:
        """Take no more; what has not ended after `seconds` is cut off."""
        await self._server.stop(seconds)

    def _handlers(self) -> tuple[Any, ...]:
        inference = {
            name: self._plain(self._messages[f"{name}Request"], answer, name)
            for name, answer in self._queries.answers().items()
        }
        # To the client it is a call of one request and one answer. Taken as streams, its bytes are read and written
        # under the eyes of the server.
        inference["ModelInfer"] = grpc.stream_stream_rpc_method_handler(self._infer)
        health = {"Check": self._plain(self._messages["HealthCheckRequest"], self._queries.check, "Check")}
        return (
            grpc.method_handlers_generic_handler(SERVICE, inference),
            grpc.method_handlers_generic_handler(HEALTH_SERVICE, health),
        )

    # --- inference -------------------------------------------------------------------------------------------------

    async def _infer(self, _: Any, context: Any) -> None:
        application = self._application
        call = application.call("", None, _headers(context), context.time_remaining())
        with application.drain.counted(), application.memory.hold() as held:
            try:
                answer = await application.attempt(call, lambda: self._answer(call, context, held))
                if answer is not None:
                    await self._send(context, held, answer)
                    context.set_trailing_metadata(_trailer(call))
                    return
                context.set_trailing_metadata(_trailer(call))
                timeout = call.kind == "timeout"
                code = grpc.StatusCode.DEADLINE_EXCEEDED if timeout else CODES[call.status]
                await context.abort(code, call.problem)
            finally:
                application.ended(call)

    async def _answer(self, call: Call, context: Any, held: Hold) -> bytes:
        application = self._application
        self._access.check(_headers(context))
        application.drain.admit()
        content = await self._read(call, context, self._request)
        # Values that came in five bytes or less are objects for as long as they become an array.
        application.memory.take(held, len(content))
        if problem := refuse_fields(content):
            raise bad(problem)
        message = _parsed(self._request, content)
        call.name, call.version = message.model_name, message.model_version or None
        served = await application.lease(call)
        typed = len(content) if len(content) > LARGE_BYTES and not message.raw_input_contents else 0
        request = await application.decoded(
            served, held, lambda: decode(message, served.model.inputs, served.capacity), objects=OBJECT_FACTOR * typed
        )
        answer = await application.run(served, held, request)
        response: bytes = encode(self._response(), served.model, answer, request).SerializeToString()
        application.memory.give_back(held)
        application.memory.take(held, len(response))
        return response

    async def _read(self, call: Call, context: Any, kind: Any) -> bytes:
        """The message of a call, which takes its place among those that have not arrived yet."""
        call.receiving = True
        with self._arrivals.waiting(call):
            content = await context.read()
        call.receiving = False
        if content is grpc.aio.EOF:
            raise bad(f"there is no {kind.DESCRIPTOR.name}")
        return bytes(content)

    async def _send(self, context: Any, held: Hold, answer: bytes) -> None:
        """Send an answer; a client that does not read it loses it."""
        held.restart()
        try:
            async with asyncio.timeout(SLOWEST_SECONDS) as deadline:
                held.evict = lambda: None if deadline.expired() else deadline.reschedule(0)
                await context.write(answer)
        except TimeoutError:
            logs.write("warning", "unread-answer", unsent_bytes=len(answer))
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the answer was not read in time")
        finally:
            held.evict = None

    # --- everything else -------------------------------------------------------------------------------------------

    def _plain(self, kind: Any, answer: Answer, name: str) -> Any:
        """A handler that parses a short request, and says refusals in gRPC's codes."""
        guarded = name.startswith("Repository")

        async def handle(_: Any, context: Any) -> None:
            call = self._application.call("", None, ())
            try:
                if not guarded and name not in OPEN:
                    self._access.check(_headers(context))
                content = await self._application.attempt_plain(call, lambda: self._read(call, context, kind))
                if len(content) > SMALL:
                    raise RefusedError(413, "too-large", f"this message may have {SMALL} bytes at most")
                if guarded:
                    self._repository.guard.check(_peer(context), _metadata_of(context))
                response = (await answer(_parsed(kind, content))).SerializeToString()
            except RefusedError as error:
                await context.abort(CODES[error.status], str(error))
            except UnknownModelError as error:
                await context.abort(grpc.StatusCode.NOT_FOUND, str(error))
            async with asyncio.timeout(SLOWEST_SECONDS):
                await context.write(response)

        return grpc.stream_stream_rpc_method_handler(handle)


def _parsed(kind: Any, content: bytes) -> Any:
    try:
        return kind.FromString(content)
    except DecodeError as error:
        raise bad(f"the message is not a {kind.DESCRIPTOR.name}") from error


def _peer(context: Any) -> str:
    """The address of a client, of `ipv4:ADDRESS:PORT` or `ipv6:[ADDRESS]:PORT`; empty where it has none."""
    kind, _, place = unquote(context.peer()).partition(":")
    return place.rpartition(":")[0].strip("[]") if kind in ("ipv4", "ipv6") else ""


def _metadata_of(context: Any) -> dict[str, str]:
    """The metadata of a call; a page in a browser cannot make one, so that it stands for its own host."""
    found = {"host": "localhost"}
    for name, value in _headers(context):
        key, text = name.decode("latin-1"), value.decode("latin-1")
        found[key] = f"{found[key]}, {text}" if key in found and key != "host" else text
    return found


def _headers(context: Any) -> Sequence[tuple[bytes, bytes]]:
    """The metadata of a call, as HTTP has headers."""
    return [
        (name.encode(), value.encode() if isinstance(value, str) else value)
        for name, value in context.invocation_metadata() or ()
    ]


def _trailer(call: Call) -> list[tuple[str, str]]:
    """What follows an answer; the pause is in the form that gRPC's own retries look at."""
    trailer = [("x-request-id", call.id)]
    if call.retry_after is not None:
        trailer.append(("grpc-retry-pushback-ms", str(call.retry_after * 1000)))
    return trailer
