"""Who runs when: a bounded queue, the threads that the session was measured for, batches where they are allowed."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from loading.arrays import Arrays
from loading.errors import InputError, NumericsError, SessionError
from loading.model import Model
from numpy.typing import NDArray

from serving import logs
from serving.batching import Batching, nearest
from serving.errors import RefusedError

INLINE_SECONDS = 0.0003  # a thread takes about as long to wake up, and to wake the loop up again
MOST_SHAPES = 1000  # whose times are remembered


class Observer(Protocol):
    """Is told of every run, in the thread that ran."""

    def ran(self, batch: Batch) -> None:
        """A run has ended, and its answers are on their way."""


class Job:
    """One request that waits for its run, or runs. `answer` is a future of the event loop that submitted it."""

    __slots__ = (
        *("_options", "answer", "inputs", "join", "key", "loop", "names", "placed", "queued_seconds", "rows"),
        *("submitted", "width"),
    )

    def __init__(
        self, inputs: Arrays, names: list[str], *, placed: bool = False, join: Callable[..., Arrays] | None = None
    ) -> None:
        self.inputs, self.names, self.placed, self.join = inputs, names, placed, join
        self.loop = asyncio.get_running_loop()
        self.answer: asyncio.Future[Arrays] = self.loop.create_future()
        self.submitted = time.perf_counter()
        self.queued_seconds = 0.0
        self.rows = 1
        self.width = 0
        self.key: tuple[object, ...] = ()
        self._options: Any = None

    def terminate(self) -> None:
        """End the run at its next node, if it runs alone."""
        options = self._options
        if options is not None:
            options.terminate = True


@dataclass
class Batch:
    """What one run served, and how long it took."""

    jobs: list[Job]
    compute_seconds: float
    outputs: Arrays


class Runs:
    """Runs jobs of one model together, and remembers what a run takes. Belongs to whichever thread runs."""

    def __init__(self, model: Model) -> None:
        import onnxruntime

        self._model = model
        self._options = onnxruntime.RunOptions
        self._seconds: dict[tuple[tuple[int, ...], ...], float] = {}  # what a run takes, by the shapes of its inputs

    def seconds(self, inputs: Arrays) -> float:
        """What a run of such inputs takes, infinity where none was seen."""
        return self._seconds.get(_shapes(inputs), math.inf)

    def remember(self, batch: Batch) -> None:
        """Take the time of a run of one request into account."""
        if len(batch.jobs) == 1:
            shapes = _shapes(batch.jobs[0].inputs)
            if len(self._seconds) > MOST_SHAPES:
                self._seconds.clear()
            known = self._seconds.get(shapes, batch.compute_seconds)
            self._seconds[shapes] = known + 0.2 * (batch.compute_seconds - known)

    def results(self, jobs: list[Job]) -> tuple[Sequence[Arrays | Exception], list[Batch]]:
        """The answer or the error of each job, and the runs that it took."""
        began = time.perf_counter()
        try:
            answers, whole = self.answers(jobs)
        except Exception as error:  # noqa: BLE001 - it is raised where the answer is awaited
            if len(jobs) == 1 or not isinstance(error, (InputError, NumericsError, SessionError)):
                return [error] * len(jobs), []
            # One of them is at fault: no other must fail for it.
            alone = [self.results([job]) for job in jobs]
            return [results[0] for results, _ in alone], [batch for _, batches in alone for batch in batches]
        return answers, [Batch(jobs, time.perf_counter() - began, whole)]

    def answers(self, jobs: Sequence[Job]) -> tuple[Sequence[Arrays], Arrays]:
        """The answer to each job, and to all of them as one."""
        options = self._options()
        if len(jobs) == 1:
            (job,) = jobs
            job._options = options
            whole = self._model.run_checked(job.inputs, job.names, options)
            return [whole], whole
        every, join = [job.inputs for job in jobs], jobs[0].join
        inputs = (
            {name: np.concatenate([one[name] for one in every]) for name in every[0]} if join is None else join(every)
        )
        whole = self._model.run_checked(inputs, jobs[0].names, options)
        ends = np.cumsum([job.rows for job in jobs])
        parts = [
            {name: array[end - job.rows : end] for name, array in whole.items()}
            for job, end in zip(jobs, ends.tolist(), strict=True)
        ]
        return parts, whole


def _shapes(inputs: Arrays) -> tuple[tuple[int, ...], ...]:
    return tuple((*array.shape, *_text_size(array)) for array in inputs.values())


def _text_size(array: NDArray[Any]) -> tuple[int, ...]:
    """Roughly the characters of strings, whose runs take as long as those are many; nothing for numbers."""
    return (sum(map(len, array.ravel().tolist())).bit_length(),) if array.dtype.kind in "OU" else ()


class Scheduler:
    """The queue of one model. `submit` belongs to the event loop; the runs have threads of their own."""

    def __init__(
        self,
        model: Model,
        observer: Observer,
        *,
        workers: int,
        queue_size: int,
        batching: Batching | None = None,
        inline_seconds: float = INLINE_SECONDS,
    ) -> None:
        """Start `workers` threads. What runs for less than `inline_seconds` runs in the event loop's own thread."""
        self.model = model
        self._runs = Runs(model)
        self._observer, self._batching, self._queue_size = observer, batching, queue_size
        self._queue: deque[Job] = deque()
        self._changed = threading.Condition(threading.Lock())
        self._inline_seconds = inline_seconds
        self._closed = False
        self._places = 0  # requests of several runs; each has one place, however many of its runs wait
        self._active = 0  # threads that run something
        self._running: set[Job] = set()
        self._threads = [
            threading.Thread(target=self._work, name=f"{model.name}-{number}", daemon=True) for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Requests that wait for a thread."""
        return len(self._queue)

    @property
    def busy(self) -> bool:
        """Whether a thread has not ended yet."""
        return any(thread.is_alive() for thread in self._threads)

    @property
    def workers(self) -> int:
        """Runs at once."""
        return len(self._threads)

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """A place in the queue for a request of several runs, from before its first until after its last.

        Raises:
            RefusedError: 429, the queue is full; 503, the model is being unloaded.
        """
        with self._changed:
            self._admit()
            self._places += 1
        try:
            yield
        finally:
            with self._changed:
                self._places -= 1

    def _admit(self) -> None:
        """Raise RefusedError where one more request cannot be taken."""
        if self._closed:
            raise RefusedError(503, "unloading", "the model is being unloaded", 1)
        alone = sum(not job.placed for job in self._queue)
        if alone + self._places >= self._queue_size + len(self._threads) - self._active:
            raise RefusedError(429, "queue-full", "too many requests wait already; try again later", 1)

    def submit(
        self, inputs: Arrays, names: list[str], *, placed: bool = False, join: Callable[..., Arrays] | None = None
    ) -> Job:
        """Queue a request that Model.check has passed; `placed` is whether it has a place already.

        Texts come with `join`, which makes the inputs of one run of those of several.

        Raises:
            RefusedError: 429, the queue is full; 503, the model is being unloaded.
        """
        job = Job(inputs, names, placed=placed)
        if self._batching is not None:
            first = next(iter(inputs.values()))
            job.rows, job.width = int(first.shape[0]), int(math.prod(first.shape[1:]))
            job.join = join if self._batching.tokens else None
            shapes = ((name, None if job.join else array.shape[1:]) for name, array in sorted(inputs.items()))
            job.key = (*names, *shapes)
        with self._changed:
            if self._closed and not placed:
                raise RefusedError(503, "unloading", "the model is being unloaded", 1)
            is_idle = not self._queue and not self._running and self._batching is None
            # The run is over before a thread would have begun it.
            inline = is_idle and self._runs.seconds(inputs) < self._inline_seconds
        if inline:
            self._run_inline(job)
            return job
        with self._changed:
            if not placed:
                self._admit()
            self._queue.append(job)
            self._changed.notify()
        return job

    def abandon(self, job: Job) -> None:
        """Nobody waits for this answer any more."""
        with self._changed, contextlib.suppress(ValueError):
            self._queue.remove(job)
        job.terminate()

    def close(self, *, terminate: bool = False) -> None:
        """Take no more; end once the queue is empty. `terminate` ends what runs, too."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            running = list(self._running) if terminate else []
        for job in running:
            job.terminate()

    def join(self, seconds: float) -> None:
        """Wait for the threads to end."""
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _work(self) -> None:
        while jobs := self._take():
            try:
                self._run(jobs)
            except Exception as error:  # noqa: BLE001 - the thread must live on; this is the boundary that reports
                logs.failed("run", error, model=self.model.name, version=self.model.version)

    def _take(self) -> list[Job]:
        """The next jobs to run together, in the order they came; none when it is time to end."""
        with self._changed:
            while True:
                jobs, wait = self._gather()
                if jobs and not wait:
                    for job in jobs:
                        self._queue.remove(job)
                    self._running.update(jobs)
                    self._active += 1
                    return jobs
                if self._closed and not jobs:
                    return []
                self._changed.wait(wait)

    def _gather(self) -> tuple[list[Job], float | None]:
        """The first job with those that fit it, and for how long to wait for more of them."""
        if not self._queue:
            return [], None
        first = self._queue[0]
        if self._batching is None:
            return [first], None
        if first.join is not None:
            others = [job for job in self._queue if job.key == first.key and job is not first]
            jobs, full = nearest(first, others, self._batching)
            wait = first.submitted + self._batching.delay - time.perf_counter()
            return jobs, None if full or self._closed or wait <= 0 else wait
        jobs = []
        rows, full = 0, False
        for job in self._queue:
            if job.key == first.key:
                if jobs and rows + job.rows > self._batching.rows:
                    full = True  # whoever comes after waits behind it: none overtakes another of its kind
                    break
                jobs.append(job)
                rows += job.rows
        wait = first.submitted + self._batching.delay - time.perf_counter()
        return jobs, None if full or self._closed or rows >= self._batching.rows or wait <= 0 else wait

    def _run(self, jobs: list[Job]) -> None:
        began = time.perf_counter()
        live = [job for job in jobs if not job.answer.done()]
        for job in live:
            job.queued_seconds = began - job.submitted
        results, batches = self._runs.results(live) if live else ([], [])
        with self._changed:  # before anybody can know the answers, and ask again
            self._active -= 1
            self._running.difference_update(jobs)
        if live:
            _post(live, results)
        for batch in batches:
            self._ran(batch)

    def _run_inline(self, job: Job) -> None:
        """Run in the event loop's own thread, which waits for it."""
        began = time.perf_counter()
        try:
            (answer,), whole = self._runs.answers([job])
        except Exception as error:  # noqa: BLE001 - it is raised where the answer is awaited
            job.answer.set_exception(error)
            return
        job.answer.set_result(answer)
        job.loop.call_soon(self._ran, Batch([job], time.perf_counter() - began, whole))

    def _ran(self, batch: Batch) -> None:
        self._runs.remember(batch)
        self._observer.ran(batch)


def _post(jobs: Sequence[Job], results: Sequence[Arrays | Exception]) -> None:
    """Hand results to the event loop, in one step."""

    def deliver() -> None:
        for job, result in zip(jobs, results, strict=True):
            if job.answer.done():
                continue
            if isinstance(result, Exception):
                job.answer.set_exception(result)
            else:
                job.answer.set_result(result)

    with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
        jobs[0].loop.call_soon_threadsafe(deliver)
