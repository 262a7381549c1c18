"""What every request goes through, over HTTP and gRPC alike: bounds, deadlines, the model, accounts, the drain."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from loader import Arrays, BundleError, InputError, NumericsError

from serving import logs
from serving.cache import BudgetError, Lease, ModelCache, UnknownModelError
from serving.metrics import Metrics
from serving.models import Served
from serving.protocol import RefusedError, Request
from serving.tracing import Span, Tracing

REQUEST_ID = re.compile(rb"[!-~]{1,128}")
CLIENT_LEFT = 499  # no status of HTTP's: nobody is there to see it but the metrics
T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """What a request may cost: bytes of its body, of all bodies at once, and seconds until its answer."""

    body_bytes: int = 16 * 2**20
    all_body_bytes: int = 256 * 2**20
    seconds: float = 30.0


@dataclass(eq=False, slots=True)
class Call:
    """One inference request from its head on, and how it ended: `status` is HTTP's, `problem` is for the client."""

    name: str
    version: str | None
    id: str
    began: float
    seconds: float  # that it may take
    span: Span | None = None
    lease: Lease[Served] | None = None
    receiving: bool = False  # it is the client that is waited for
    status: int = 200
    kind: str = ""
    problem: str = ""
    retry_after: int | None = None

    def refuse(self, status: int, kind: str, problem: str, retry_after: int | None = None) -> None:
        """It is answered with an error."""
        self.status, self.kind, self.problem, self.retry_after = status, kind, problem, retry_after


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
        self.cache, self.metrics, self.limits = cache, metrics, limits
        self.draining = False
        self.in_flight = 0
        self._refusing = False
        self._aborting = False
        self._drained = asyncio.Event()
        self._log_requests = log_requests
        self._tracing = tracing
        self._body_bytes = 0
        self._deadlines: set[asyncio.Timeout] = set()
        self._prefix, self._count = os.urandom(6).hex(), 0

    def call(
        self, name: str, version: str | None, headers: Sequence[tuple[bytes, bytes]], seconds: float | None = None
    ) -> Call:
        """A request that begins; `seconds` is what its client gives it, if less than it may take anyway."""
        most = self.limits.seconds
        return Call(
            name,
            version,
            self.request_id(headers),
            time.perf_counter(),
            most if seconds is None else min(seconds, most),
            self._tracing.start(headers) if self._tracing is not None else None,
        )

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """A request is under way: a drain waits for it."""
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1
            if self.draining and not self.in_flight:
                self._drained.set()

    def admit(self) -> None:
        """Raise RefusedError once no more work is taken."""
        if self._refusing:
            raise RefusedError(503, "draining", "the server is shutting down", 1)

    async def drain(self, delay: float, seconds: float) -> None:
        """Be not ready for `delay` seconds, then take no more work, and wait up to `seconds` for what runs."""
        self.draining = True
        await asyncio.sleep(delay)
        self._refusing = True
        if self.in_flight:
            self._drained.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._drained.wait(), seconds)
        self._aborting = True
        for deadline in self._deadlines:
            deadline.reschedule(0)

    def request_id(self, headers: Sequence[tuple[bytes, bytes]]) -> str:
        """The client's X-Request-Id, or a new one."""
        for name, value in headers:
            if name == b"x-request-id" and REQUEST_ID.fullmatch(value):
                return value.decode("ascii")
        self._count += 1
        return f"{self._prefix}-{self._count}"

    async def attempt(self, call: Call, work: Callable[[], Awaitable[T]]) -> T | None:
        """What `work` gives within the time of the call; None where it is refused, and the call says why.

        Raises whatever says that the client left.
        """
        left = False
        try:
            async with asyncio.timeout(call.seconds) as deadline:
                with self._bounded(deadline):
                    return await work()
        except RefusedError as error:
            call.refuse(error.status, error.kind, str(error), error.retry_after)
        except UnknownModelError as error:
            call.refuse(404, "unknown-model", str(error))
        except TimeoutError:
            limit = f"{call.seconds:g} seconds"
            if self._aborting:
                call.refuse(503, "draining", "the server is shutting down", 1)
            elif call.receiving:
                call.refuse(408, "slow-body", f"the body did not arrive within {limit}")
            else:
                call.refuse(503, "timeout", f"the request took longer than {limit}", 1)
        except (asyncio.CancelledError, ConnectionError):
            left = True
            call.refuse(CLIENT_LEFT, "disconnected", "the client left")
            raise
        except Exception as error:  # noqa: BLE001 - the boundary: the log has all of it, the client nothing
            logs.failed("request-failed", error, request_id=call.id, model=call.name)
            call.refuse(500, "internal", "internal error")
        finally:
            # Before the client can know the answer, and ask for the metrics.
            self._count_in(call)
            if left:
                self.ended(call)
        return None

    def ended(self, call: Call) -> None:
        """The answer was sent."""
        seconds = time.perf_counter() - call.began
        if call.lease is not None:
            call.lease.loaded.metrics.total.observe(seconds)
        if call.span is not None:
            call.span.end(call.name, call.status)
        if call.status != 200 or self._log_requests:
            level = "info" if call.status == 200 else "error" if call.status == 500 else "warning"
            more = {"kind": call.kind, "error": call.problem} if call.problem else {}
            fields = {"model": call.name, "status": call.status, "seconds": round(seconds, 6)}
            logs.write(level, "request", request_id=call.id, **fields, **more)

    def _count_in(self, call: Call) -> None:
        if call.lease is None:
            if call.status != 200:
                self.metrics.errors.labels("", "", call.kind).inc()
            return
        metrics = call.lease.loaded.metrics
        metrics.requests.inc()
        if call.status != 200:
            metrics.error(call.kind)
        self.cache.release(call.lease)

    async def lease(self, call: Call) -> Served:
        """The model of a call, until the attempt ends; loaded first, by a thread, where it is not in memory."""
        call.lease = await self.leased(call.name, call.version)
        return call.lease.loaded

    async def leased(self, name: str, version: str | None) -> Lease[Served]:
        """A model, to be given back to the cache.

        Raises:
            UnknownModelError: There is none of this name and version.
            RefusedError: 503, it cannot be loaded.
        """
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
    def reserved(self, size: int) -> Iterator[None]:
        """Count the bytes of a body until its answer is made.

        Raises:
            RefusedError: 413, it is too large; 503, all bodies together are.
        """
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

    async def run(self, served: Served, request: Request) -> Arrays:
        """The answer; cancelled, its run is ended too.

        Raises:
            RefusedError: The request does not fit the model, or the queue is full.
        """
        try:
            served.model.check(request.inputs)
            names = served.model.output_names(request.outputs)
        except InputError as error:
            raise RefusedError(400, "input", str(error)) from error
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
