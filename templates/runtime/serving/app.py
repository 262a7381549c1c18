"""The HTTP interface: one ASGI application, inference straight, everything else through Starlette's routes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any

from loader import Arrays, BundleError, InputError, NumericsError

from serving import logs
from serving.cache import BudgetError, Lease, ModelCache, UnknownModelError
from serving.metrics import Metrics
from serving.models import Served
from serving.protocol import BINARY_TYPE, HEAD_LENGTH, JSON_TYPE, RefusedError, Request, bad, decode, encode
from serving.tracing import Tracing

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGI = Callable[[Scope, Receive, Send], Awaitable[None]]
INFER = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer")
REQUEST_ID = re.compile(rb"[!-~]{1,128}")
SMALL_BODY = 65536  # is read and thrown away where it is not wanted; a connection with more to come is closed
LINGER_SECONDS = 2.0
SHORT_LINGER_SECONDS = 0.2  # while the server ends


@dataclass(frozen=True)
class Limits:
    """What a request may cost: bytes of its body, of all bodies at once, and seconds until its answer."""

    body_bytes: int = 16 * 2**20
    all_body_bytes: int = 256 * 2**20
    seconds: float = 30.0


class DisconnectedError(Exception):
    """The client left before its request was whole."""


@dataclass(slots=True)
class _Head:
    """What the headers of a request say; `length` None where the body is chunked."""

    length: int | None
    tensors_at: str | None
    expects_100: bool


class Application:
    """Everything that is served. Belongs to one event loop; `draining` may be set once, and never comes back."""

    def __init__(
        self,
        cache: ModelCache[Served],
        metrics: Metrics,
        limits: Limits,
        *,
        log_requests: bool = False,
        tracing: Tracing | None = None,
    ) -> None:
        """`routes`, which answers all but inference, is set by whoever makes the application."""
        self.cache, self.metrics, self.limits = cache, metrics, limits
        self.routes: ASGI
        self.draining = False
        self.refusing = False
        self.aborting = False
        self.in_flight = 0
        self._drained = asyncio.Event()
        self._log_requests = log_requests
        self._tracing = tracing
        self._body_bytes = 0
        self._deadlines: set[asyncio.Timeout] = set()
        self._prefix, self._count = os.urandom(6).hex(), 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            return
        found = INFER.fullmatch(scope["path"]) if scope["method"] == "POST" else None
        if found is None:
            await self.routes(scope, receive, send)
            return
        self.in_flight += 1
        try:
            await self._infer(found[1], found[2], scope, receive, send)
        except DisconnectedError:
            self.metrics.errors.labels("", "", "disconnected").inc()
        finally:
            self.in_flight -= 1
            if self.draining and not self.in_flight:
                self._drained.set()

    async def drain(self, delay: float, seconds: float) -> None:
        """Be not ready for `delay` seconds, then take no more work, and wait up to `seconds` for what runs."""
        self.draining = True
        await asyncio.sleep(delay)
        self.refusing = True
        if self.in_flight:
            self._drained.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._drained.wait(), seconds)
        self.aborting = True
        for deadline in self._deadlines:
            deadline.reschedule(0)

    def request_id(self, headers: list[tuple[bytes, bytes]]) -> str:
        """The client's X-Request-Id, or a new one."""
        for name, value in headers:
            if name == b"x-request-id" and REQUEST_ID.fullmatch(value):
                return value.decode("ascii")
        self._count += 1
        return f"{self._prefix}-{self._count}"

    async def _infer(self, name: str, version: str | None, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        identifier = self.request_id(scope["headers"])
        lease: Lease[Served] | None = None
        body = _Body(receive, self.limits.body_bytes)
        status, kind, problem, retry_after, head_length = 200, "", "", None, None
        span = self._tracing.start(name, scope["headers"]) if self._tracing is not None else None
        try:
            body.head = _head(scope["headers"])
            if self.refusing:
                raise RefusedError(503, "draining", "the server is shutting down", 1)
            lease = await self._lease(name, version)
            async with asyncio.timeout(self.limits.seconds - (time.perf_counter() - began)) as deadline:
                with self._reserved(body), self._bounded(deadline):
                    content, head_length = await self._answer(lease.loaded, await body.read(), body.head)
        except RefusedError as error:
            status, kind, problem, retry_after = error.status, error.kind, str(error), error.retry_after
        except UnknownModelError as error:
            status, kind, problem = 404, "unknown-model", str(error)
        except TimeoutError:
            limit = f"{self.limits.seconds:g} seconds"
            if self.aborting:
                status, kind, problem, retry_after = 503, "draining", "the server is shutting down", 1
            elif body.complete:
                status, kind, problem, retry_after = 503, "timeout", f"the request took longer than {limit}", 1
            else:
                status, kind, problem = 408, "slow-body", f"the body did not arrive within {limit}"
        except DisconnectedError:
            raise
        except Exception as error:  # noqa: BLE001 - the boundary: the log has all of it, the client nothing
            logs.failed("request-failed", error, request_id=identifier, model=name)
            status, kind, problem = 500, "internal", "internal error"
        finally:
            if lease is not None:
                if status == 200:
                    lease.loaded.metrics.requests.inc()
                self.cache.release(lease)
        if status != 200:
            content, head_length = json.dumps({"error": problem}).encode(), None
        headers = [
            (b"content-type", JSON_TYPE if head_length is None else BINARY_TYPE),
            (b"content-length", str(len(content)).encode()),
            (b"x-request-id", identifier.encode()),
        ]
        if head_length is not None:
            headers.append((HEAD_LENGTH, str(head_length).encode()))
        if retry_after is not None:
            headers.append((b"retry-after", str(retry_after).encode()))
        await body.respond(send, status, headers, content, close=self.draining)
        seconds = time.perf_counter() - began
        self._account(lease, status, kind, seconds)
        if span is not None:
            span.end(status)
        if status != 200 or self._log_requests:
            level = "info" if status == 200 else "error" if status == 500 else "warning"
            more = {"kind": kind, "error": problem} if problem else {}
            logs.write(
                level, "request", request_id=identifier, model=name, status=status, seconds=round(seconds, 6), **more
            )

    def _account(self, lease: Lease[Served] | None, status: int, kind: str, seconds: float) -> None:
        if lease is None:
            self.metrics.errors.labels("", "", kind).inc()
            return
        metrics = lease.loaded.metrics
        metrics.total.observe(seconds)
        if status != 200:
            metrics.requests.inc()
            metrics.error(kind)

    async def _lease(self, name: str, version: str | None) -> Lease[Served]:
        """The model; loaded first, by a thread, where it is not in memory."""
        while True:
            lease = self.cache.lease(name, version)
            if lease is not None:
                return lease
            try:
                await in_thread(lambda: self.cache.load(name, version))
            except BudgetError as error:
                raise RefusedError(
                    503, "memory-budget", "the model does not fit into the memory of the server"
                ) from error
            except BundleError as error:
                if isinstance(error, UnknownModelError):
                    raise
                logs.write("error", "load-failed", model=name, code=error.code, error=str(error))
                raise RefusedError(503, "load-failed", "the model could not be loaded", 30) from error

    @contextlib.contextmanager
    def _reserved(self, body: _Body) -> Iterator[None]:
        """Count the bytes of a body, before it is read, until its answer is made."""
        assert body.head is not None  # noqa: S101 - for mypy; read before this
        size = self.limits.body_bytes if body.head.length is None else body.head.length
        if size > self.limits.body_bytes:
            raise RefusedError(413, "too-large", f"the body may have {self.limits.body_bytes} bytes at most")
        if self._body_bytes + size > self.limits.all_body_bytes:
            raise RefusedError(503, "busy", "too many large requests are under way; try again later", 1)
        self._body_bytes += size
        try:
            yield
        finally:
            self._body_bytes -= size

    @contextlib.contextmanager
    def _bounded(self, deadline: asyncio.Timeout) -> Iterator[None]:
        """Keep the deadline where the end of the server can bring it forward."""
        self._deadlines.add(deadline)
        try:
            yield
        finally:
            self._deadlines.discard(deadline)

    async def _answer(self, served: Served, content: bytes, head: _Head) -> tuple[bytes, int | None]:
        model = served.model
        request = decode(content, head.tensors_at, model.inputs)
        try:
            model.check(request.inputs)
            names = model.output_names(request.outputs)
        except InputError as error:
            raise RefusedError(400, "input", str(error)) from error
        return encode(model, await run(served, request, names), request)


async def run(served: Served, request: Request, names: list[str]) -> Arrays:
    """The answer to a request that is known to fit; cancelled, its run is ended too.

    Raises:
        RefusedError: The queue is full, or the model cannot take the values of the inputs.
    """
    job = served.scheduler.submit(request.inputs, names)
    try:
        return await job.answer
    except InputError as error:
        # ONNX Runtime's words name nodes of the graph: they are for the log.
        logs.write("warning", "values-refused", model=served.model.name, error=str(error))
        raise RefusedError(
            400, "input", "the model cannot take these values: one is an index or a size outside of its range"
        ) from error
    except NumericsError as error:
        raise RefusedError(422, "numerics", str(error)) from error
    finally:
        if not job.answer.done() or job.answer.cancelled():
            served.scheduler.abandon(job)


async def in_thread(work: Callable[[], None]) -> None:
    """Await work that blocks, in a thread that does not keep the process from ending."""
    import threading

    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def settle(error: BaseException | None) -> None:
        if not done.done():
            done.set_result(None) if error is None else done.set_exception(error)

    def body() -> None:
        problem: BaseException | None = None
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is awaited
            problem = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
            loop.call_soon_threadsafe(settle, problem)

    threading.Thread(target=body, daemon=True).start()
    await done


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

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive, self._most = receive, most
        self.head: _Head | None = None
        self.complete = False

    async def _part(self) -> bytes:
        message = await self._receive()
        if message["type"] != "http.request":
            raise DisconnectedError
        self.complete = not message.get("more_body", False)
        part: bytes = message.get("body", b"")
        return part

    async def read(self) -> bytes:
        """All of it.

        Raises:
            RefusedError: 413, a chunked body is longer than allowed.
            DisconnectedError: The client left.
        """
        first = await self._part()
        if self.complete and len(first) <= self._most:
            return first
        whole = bytearray(first)
        while len(whole) <= self._most:
            if self.complete:
                return bytes(whole)
            whole += await self._part()
        raise RefusedError(413, "too-large", f"the body may have {self._most} bytes at most")

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
