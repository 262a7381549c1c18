"""What every request goes through, over HTTP and gRPC alike: bounds, deadlines, the model, accounts, the drain."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TypeVar

from loading.arrays import Arrays
from loading.errors import BundleError, InputError, NumericsError

from serving import logs
from serving.backoff import FailedBeforeError
from serving.bounds import SHOWN, quoted
from serving.cache import ModelCache
from serving.calls import Call, Limits, RequestIds
from serving.connection import Connection
from serving.drain import Drain
from serving.errors import RefusedError
from serving.memory import Hold, Memory
from serving.metrics import Metrics
from serving.models import Served
from serving.protocol import Request
from serving.residents import BudgetError, Lease
from serving.sockets import Connections
from serving.text_tensors import names_of, needed, size_of, stacked
from serving.texts import Answered, Asked, answer
from serving.threads import in_thread
from serving.tracing import Tracing
from serving.versions import UnknownModelError

CLIENT_LEFT = 499  # no status of HTTP's: nobody is there to see it but the metrics
T = TypeVar("T")


class Application:
    """Everything that is served. Belongs to one event loop."""

    def __init__(
        self,
        cache: ModelCache[Served],
        metrics: Metrics,
        limits: Limits,
        connections: Connections[Connection],
        *,
        log_requests: bool = False,
        tracing: Tracing | None = None,
    ) -> None:
        self.cache, self.metrics, self.limits, self.connections = cache, metrics, limits, connections
        self.memory = Memory(limits.all_body_bytes)
        self.default = ""  # the model of requests that name none
        self.drain = Drain()
        self._log_requests = log_requests
        self._tracing = tracing
        self.ids = RequestIds()

    def call(
        self,
        name: str,
        version: str | None,
        headers: Sequence[tuple[bytes, bytes]],
        seconds: float | None = None,
        *,
        route: str = "infer",
    ) -> Call:
        """A request that begins; `seconds` is what its client gives it, if less than it may take anyway."""
        most = self.limits.seconds
        return Call(
            name,
            version,
            self.ids.of(headers),
            time.perf_counter(),
            most if seconds is None else min(seconds, most),
            route,
            self._tracing.start(headers, route) if self._tracing is not None else None,
        )

    async def attempt(self, call: Call, work: Callable[[], Awaitable[T]]) -> T | None:
        """What `work` gives within the time of the call; None where it is refused, and the call says why.

        Raises whatever says that the client left.
        """
        left = False
        try:
            async with asyncio.timeout(call.seconds) as deadline:
                call.deadline = deadline
                with self.drain.bounded(deadline):
                    return await work()
        except RefusedError as error:
            call.refuse(error.status, error.kind, str(error), error.retry_after, error.parameter)
        except UnknownModelError as error:
            call.refuse(404, "unknown-model", str(error))
        except TimeoutError:
            limit = f"{call.seconds:g} seconds"
            if self.drain.aborting:
                call.refuse(503, "draining", "the server is shutting down", 1)
            elif call.too_slow:
                call.refuse(408, "slow-body", "the body arrived too slowly for its size")
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
            call.deadline = None
            # Before the client can know the answer, and ask for the metrics.
            self._count_in(call)
            if left:
                self.ended(call)
        return None

    async def attempt_plain(self, call: Call, work: Callable[[], Awaitable[T]]) -> T:
        """What `work` gives within the time of a call that is no inference.

        Raises:
            RefusedError: 408, its message did not arrive in time.
        """
        try:
            async with asyncio.timeout(call.seconds) as call.deadline:
                return await work()
        except TimeoutError as error:
            raise RefusedError(408, "slow-body", "the message did not arrive in time") from error
        finally:
            call.deadline = None

    def ended(self, call: Call) -> None:
        """The answer was sent."""
        seconds = time.perf_counter() - call.began
        if call.lease is not None:
            call.lease.loaded.metrics.answered(call.route, seconds)
        if call.span is not None:
            call.span.end(call.name, call.status)
        if call.status != 200 or self._log_requests:
            level = "info" if call.status == 200 else "error" if call.status == 500 else "warning"
            more = {"kind": call.kind, "error": call.problem} if call.problem else {}
            fields = {"model": call.name, "route": call.route, "status": call.status, "seconds": round(seconds, 6)}
            logs.write(level, "request", request_id=call.id, **fields, **more)

    def _count_in(self, call: Call) -> None:
        if call.lease is None:
            # A client's own name for a model is no label: there would be no end of them.
            kind = call.kind if call.status != 200 else ""
            self.metrics.count((*self.cache.labels(call.name, call.version), call.route), kind)
            return
        call.lease.loaded.metrics.count(call.route, call.kind if call.status != 200 else "")
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
                await in_thread(lambda: self.cache.load(name, version, for_request=True))
            except FailedBeforeError as error:
                seconds = math.ceil(error.seconds)
                raise RefusedError(503, "load-failed", "the model could not be loaded", seconds) from error
            except BudgetError as error:
                raise RefusedError(
                    503, "memory-budget", "the model does not fit into the memory of the server"
                ) from error
            except BundleError as error:
                if isinstance(error, UnknownModelError):
                    raise
                logs.write("error", "load-failed", model=name, code=error.code, error=str(error))
                raise RefusedError(503, "load-failed", "the model could not be loaded", 1) from error

    async def decoded(self, served: Served, held: Hold, decode: Callable[[], Request], *, objects: int) -> Request:
        """A request that was checked against the model; made in a thread where it is large.

        Args:
            served: The model.
            held: The memory of the request.
            decode: Makes the request.
            objects: Bytes that decoding takes meanwhile, 0 for few.

        Raises:
            RefusedError: 400, the request does not fit the model; 503, its objects do not fit into memory.
        """

        if not objects:
            return _checked(served, decode())
        self.memory.take(held, objects)
        try:
            return await in_thread(lambda: _checked(served, decode()))
        finally:
            self.memory.give_back(held, objects)

    async def run(self, served: Served, held: Hold, request: Request) -> Arrays:
        """The answer to a request that was checked; cancelled, its run is ended too.

        Raises:
            RefusedError: The model refuses the values, or the queue is full.
        """
        if request.texts is not None and served.texts is not None:
            names = names_of(served.texts, request.outputs)
            answered = await self.answer(served, held, Asked(request.texts, needed(served.texts, names)))
            self.memory.take(held, size_of(answered))
            return stacked(served.texts, answered, names)
        job = served.scheduler.submit(request.inputs, served.model.output_names(request.outputs))
        try:
            with _refusing(served):
                return await job.answer
        finally:
            if not job.answer.done() or job.answer.cancelled():
                served.scheduler.abandon(job)

    async def answer(self, served: Served, held: Hold, asked: Asked) -> Answered:
        """The values that the model has for each text of a request.

        Raises:
            RefusedError: A text cannot be answered, the model refuses the values, or the queue is full.
        """
        with _refusing(served):
            return await answer(served, self.memory, held, asked)


def _checked(served: Served, request: Request) -> Request:
    """A request that fits the model.

    Raises:
        RefusedError: 400, it does not.
    """
    for name in (*request.inputs, *(request.outputs or ())):
        if len(name) > SHOWN and name not in served.names:
            raise RefusedError(400, "input", f"the model has no input or output {quoted(name)}")
    try:
        if request.texts is not None and served.texts is not None:
            names_of(served.texts, request.outputs)
            return request
        served.model.check(request.inputs)
        served.model.output_names(request.outputs)
    except InputError as error:
        raise RefusedError(400, "input", str(error)) from error
    return request


@contextlib.contextmanager
def _refusing(served: Served) -> Iterator[None]:
    """Say what the model refuses in the words of an answer."""
    try:
        yield
    except InputError as error:
        # ONNX Runtime's words name nodes of the graph: they are for the log.
        logs.write("warning", "values-refused", model=served.model.name, error=str(error))
        raise RefusedError(
            400, "input", "the model cannot take these values: one is an index or a size outside of its range"
        ) from error
    except NumericsError as error:
        raise RefusedError(422, "numerics", str(error)) from error
