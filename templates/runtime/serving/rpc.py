"""The Open Inference Protocol over gRPC: the same models, queue, bounds and drain as over HTTP.

Needs the packages of requirements-grpc.txt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from loader import UsageError

from serving.app import Application, Call
from serving.cache import UnknownModelError
from serving.messages import HEALTH, HEALTH_SERVICE, INFERENCE, SERVICE, make
from serving.protocol import RefusedError, bad, metadata
from serving.repository import Repository
from serving.rpc_tensors import decode, describe, encode, fill

STATE = ("name", "version", "state", "reason")
CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
}
MOST_CALLS = 1024  # at once; what is beyond is told RESOURCE_EXHAUSTED
SMALL = 65536  # bytes of any message but an inference request
SERVING, NOT_SERVING, UNKNOWN_SERVICE = 1, 2, 3
Answer = Callable[[Any], Awaitable[Any]]


class RpcServer:
    """The gRPC server of an application; made and used in its event loop."""

    def __init__(self, application: Application, repository: Repository) -> None:
        self._application, self._repository = application, repository
        limits = application.limits
        self._messages = {**make("inference", INFERENCE), **make("grpc.health.v1", HEALTH)}
        self._request, self._response = (self._messages[f"ModelInfer{kind}"] for kind in ("Request", "Response"))
        # A message says how long it is only while it arrives: so many may arrive at once as there is room for the
        # longest of each, and each counts with its own length from then on.
        self._arriving = asyncio.Semaphore(max(1, limits.all_body_bytes // limits.body_bytes))
        self._server = grpc.aio.server(
            options=(
                ("grpc.max_receive_message_length", limits.body_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),
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
        answers: dict[str, Answer] = {
            "ServerLive": self._live,
            "ServerReady": self._ready,
            "ServerMetadata": self._metadata,
            "ModelReady": self._model_ready,
            "ModelMetadata": self._model_metadata,
        }
        if self._repository.changes:
            answers |= {
                "RepositoryIndex": self._index,
                "RepositoryModelLoad": self._load,
                "RepositoryModelUnload": self._unload,
            }
        inference = {name: self._plain(self._messages[f"{name}Request"], answer) for name, answer in answers.items()}
        # To the client it is a call of one request. Taken as a stream, its bytes are read when there is room for them.
        inference["ModelInfer"] = grpc.stream_unary_rpc_method_handler(self._infer)
        health = {"Check": self._plain(self._messages["HealthCheckRequest"], self._check)}
        return (
            grpc.method_handlers_generic_handler(SERVICE, inference),
            grpc.method_handlers_generic_handler(HEALTH_SERVICE, health),
        )

    # --- inference -------------------------------------------------------------------------------------------------

    async def _infer(self, _: Any, context: Any) -> bytes:
        application = self._application
        headers = _headers(context)
        call = application.call("", None, headers, context.time_remaining())

        async def work() -> bytes:
            application.admit()
            async with self._arriving:
                call.receiving = True
                content = await context.read()
                call.receiving = False
            if content is grpc.aio.EOF:
                raise bad("there is no ModelInferRequest")
            with application.reserved(len(content)):
                message = _parsed(self._request, content)
                call.name, call.version = message.model_name, message.model_version or None
                served = await application.lease(call)
                request = decode(message, served.model.inputs)
                answer = await application.run(served, request)
                response: bytes = encode(self._response(), served.model, answer, request).SerializeToString()
                return response

        with application.counted():
            answer = await application.attempt(call, work)
            context.set_trailing_metadata(_trailer(call))
            try:
                if answer is None:
                    timeout = call.kind == "timeout"
                    code = grpc.StatusCode.DEADLINE_EXCEEDED if timeout else CODES[call.status]
                    await context.abort(code, call.problem)
            finally:
                application.ended(call)
        return answer or b""

    # --- everything else -------------------------------------------------------------------------------------------

    def _plain(self, kind: Any, answer: Answer) -> Any:
        """A handler that parses a short request, and says refusals in gRPC's codes."""

        async def handle(content: bytes, context: Any) -> bytes:
            try:
                if len(content) > SMALL:
                    raise RefusedError(413, "too-large", f"this message may have {SMALL} bytes at most")
                response: bytes = (await answer(_parsed(kind, content))).SerializeToString()
                return response
            except RefusedError as error:
                await context.abort(CODES[error.status], str(error))
            except UnknownModelError as error:
                await context.abort(grpc.StatusCode.NOT_FOUND, str(error))
            raise AssertionError("abort() raises")

        return grpc.unary_unary_rpc_method_handler(handle)

    async def _live(self, _: Any) -> Any:
        return self._messages["ServerLiveResponse"](live=True)

    async def _ready(self, _: Any) -> Any:
        return self._messages["ServerReadyResponse"](ready=not self._application.draining)

    async def _metadata(self, _: Any) -> Any:
        return describe(self._messages["ServerMetadataResponse"](), self._repository.metadata())

    async def _model_ready(self, request: Any) -> Any:
        ready = self._repository.is_ready(request.name, request.version or None)
        return self._messages["ModelReadyResponse"](ready=ready)

    async def _model_metadata(self, request: Any) -> Any:
        cache = self._application.cache
        lease = await self._application.leased(request.name, request.version or None)
        try:
            document = metadata(lease.loaded.model, cache.versions(request.name))
        finally:
            cache.release(lease)
        return describe(self._messages["ModelMetadataResponse"](), document)

    async def _index(self, request: Any) -> Any:
        response = self._messages["RepositoryIndexResponse"]()
        states = await self._repository.index(request.ready)
        # What a version takes has no place in the protocol's message.
        fill(response.models, [{key: getattr(state, key) for key in STATE} for state in states])
        return response

    async def _load(self, request: Any) -> Any:
        if request.parameters:
            raise bad("parameters are not supported: a bundle is loaded as it is")
        await self._repository.load(request.model_name)
        return self._messages["RepositoryModelLoadResponse"]()

    async def _unload(self, request: Any) -> Any:
        self._repository.unload(request.model_name)
        return self._messages["RepositoryModelUnloadResponse"]()

    async def _check(self, request: Any) -> Any:
        status = NOT_SERVING if self._application.draining else SERVING
        known = request.service in ("", SERVICE)
        return self._messages["HealthCheckResponse"](status=status if known else UNKNOWN_SERVICE)


def _parsed(kind: Any, content: bytes) -> Any:
    try:
        return kind.FromString(content)
    except DecodeError as error:
        raise bad(f"the message is not a {kind.DESCRIPTOR.name}") from error


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
