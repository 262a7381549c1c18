"""An open session of ONNX Runtime whose inputs are checked, for many threads at once."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from numpy.typing import NDArray

from .arrays import Arrays
from .device_buffers import Bound, Graphs, captures_graphs
from .errors import InputError, NumericsError, SessionError, one_line
from .files import parsing
from .numerics import NanWatch
from .opening import Contents, Opened
from .placement import Placed, left_to_cpu, named
from .profiling import executed_nodes
from .providers import CPU
from .selftest import first_inputs

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor


class CheckedSession:
    """A session, its interface, and what watches over both; see `Model`, which is one."""

    def __init__(self, contents: Contents, opened: Opened, *, profiled: bool) -> None:
        """Take an open session over.

        Args:
            contents: What the documents of its bundle say.
            opened: The session.
            profiled: Whether ONNX Runtime records what runs.
        """
        self.root, self.manifest = contents.root, contents.manifest
        self.name, self.version, self.target = contents.identity
        self.concurrency = contents.concurrency
        self._interface, self._shape_nodes = contents.interface, contents.shape_nodes
        self.inputs, self.outputs, self.axes = self._interface.inputs, self._interface.outputs, self._interface.axes
        self._session: Any = opened.session
        self._engines, self._placement = opened.engines, opened.placement
        self.providers = tuple(opened.session.get_providers())
        self._nan = NanWatch()
        self._profiled = profiled
        self._pool: ThreadPoolExecutor | None = None
        self._pool_lock = threading.Lock()
        # A captured CUDA graph reads and writes fixed buffers: one run at a time. All else runs concurrently.
        graphs = captures_graphs(contents.config)
        self._lock: contextlib.AbstractContextManager[Any] = threading.Lock() if graphs else contextlib.nullcontext()
        with parsing(contents.root / "manifest.json"):
            shapes = [self.example(sizes) for sizes in contents.manifest.get("warmup", ())] if graphs else None
        self._graphs = Graphs(opened.session, self._interface, self.check, shapes)

    def example(self, sizes: Mapping[str, int] | None = None) -> Arrays:
        """Inputs of the given axis sizes (typical ones where not given), for warming up and measuring.

        They are the first golden inputs, repeated or cut to size; seeded values within `range` where none fit.
        """
        return self._interface.example(sizes or {}, first_inputs(self.root, self.manifest))

    def placement(self) -> list[Placed]:
        """Which node runs where, after optimization: (provider, node name, op_type, domain)."""
        return list(self._placement)

    def fallback(self) -> dict[str, Any]:
        """What the first provider left to the CPU.

        Returns:
            `nodes`: how many; `shape_nodes`: how many besides that compute nothing but shapes; `named`: some of the
            former, by operator and name. Nothing where only the CPU was asked for.
        """
        if all(provider == CPU for provider in self.providers):
            return {"nodes": 0, "shape_nodes": 0, "named": []}
        shapes, others = left_to_cpu(self._placement, self._shape_nodes)
        return {"nodes": len(others), "shape_nodes": len(shapes), "named": named(others)}

    def check(self, inputs: Mapping[str, NDArray[Any]]) -> None:
        """Raise InputError unless `inputs` holds exactly what the model takes.

        Nothing is cast: a Python list, a float64 where float32 is taken, or another byte order is refused, because a
        silent conversion hides mistakes and costs time; the message says what to send. Memory layout is free.
        """
        self._interface.check(inputs, self._nan)

    def output_names(self, outputs: Sequence[str] | None = None) -> list[str]:
        """The outputs asked for, or all of them; raises InputError for one that the model does not have."""
        return self._interface.output_names(outputs)

    def run(self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None) -> Arrays:
        """The model's answer: name -> array, for the `outputs` named or for all.

        Raises:
            InputError: The inputs do not fit; the message says what to send instead.
            NumericsError: The answer holds NaN where the golden answers have none.
            SessionError: ONNX Runtime failed, or the model is closed.
        """
        self.check(inputs)
        return self.run_checked(inputs, self.output_names(outputs))

    def run_checked(self, inputs: Mapping[str, NDArray[Any]], names: Sequence[str], run_options: Any = None) -> Arrays:
        """`run` for inputs that `check`, and names that `output_names`, has passed already.

        `run_options` is an onnxruntime.RunOptions, whose `terminate` ends the run from another thread.
        """
        session = self._session
        if session is None:
            raise SessionError(f"{self.name} was closed. Load it again.")
        try:
            with self._lock:
                if self._graphs.enabled:
                    answer = self._graphs.run(inputs, names, run_options)
                else:
                    answer = dict(zip(names, session.run(names, inputs, run_options), strict=True))
        except Exception as error:
            # A value that only the graph can judge: an index past the end of a table, a string that is no category.
            refused = type(error).__name__ == "InvalidArgument" or "Unknown Category" in str(error)
            kind = InputError if refused else SessionError
            raise kind(f"onnxruntime could not run {self.name}: {one_line(error)}") from error
        for name, array in answer.items():
            if self._nan.finds(name, array):
                raise NumericsError(f"output {name!r} of {self.name} holds NaN, which no golden answer does.")
        return answer

    def bind(self, inputs: Mapping[str, NDArray[Any]]) -> Bound:
        """Keep inputs, and the outputs that they give, in buffers on the first provider's device, for run after run.

        At a shape that is captured the buffers are those that `run` uses, too.

        Raises:
            InputError: The inputs do not fit.
            SessionError: ONNX Runtime failed, or the model is closed.
        """
        self.check(inputs)
        if self._session is None:
            raise SessionError(f"{self.name} was closed. Load it again.")
        try:
            with self._lock:
                bound = self._graphs.bound(inputs)
                bound.run()
                return bound
        except Exception as error:
            raise SessionError(f"onnxruntime could not run {self.name}: {one_line(error)}") from error

    def executed(self) -> list[dict[str, Any]]:
        """What ran since the model was loaded with `profile`: each node once, and nothing is recorded from here on.

        Returns:
            For each node name, op_type, provider, runs, and microseconds of its last run; copies between devices, which
            ONNX Runtime inserts on its own, are nodes whose op_type begins with Memcpy.

        Raises:
            SessionError: It was loaded without `profile`, or was asked already.
        """
        if self._session is None or not self._profiled:
            raise SessionError(f"{self.name} was not loaded with profile. Load it so to see what runs.")
        self._profiled = False
        return executed_nodes(Path(self._session.end_profiling()))

    def run_async(self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None) -> Future[Arrays]:
        """`run` in a thread of the model's own, of which there are `concurrency`; its errors are the future's.

        Inputs that do not fit are refused at once, by InputError. `asyncio.wrap_future` makes it awaitable.
        """
        self.check(inputs)
        names = self.output_names(outputs)
        with self._pool_lock:
            if self._session is None:
                raise SessionError(f"{self.name} was closed. Load it again.")
            if self._pool is None:
                from concurrent.futures import ThreadPoolExecutor

                self._pool = ThreadPoolExecutor(self.concurrency, thread_name_prefix=f"run-{self.name}")
            return self._pool.submit(self.run_checked, inputs, names)

    def close(self) -> None:
        """Free the session once running calls have ended; a later `run` raises SessionError.

        What `run_async` has not begun yet is cancelled.
        """
        with self._pool_lock:
            self._graphs.close()
            self._session, pool, self._pool = None, self._pool, None
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)
        self._engines.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
