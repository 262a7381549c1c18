"""Worker processes that live longer than one step: candidates that stay loaded.

Starting a process and loading a model takes longer than most of what is then asked of it.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

from ortc.execution.host import cores
from ortc.execution.worker import Worker

T = TypeVar("T")
AT_ONCE = 2
"""Steps done at the same time, where there are as many cores: each may hold a model's weights several times over."""


def at_once(steps: Sequence[Callable[[], T]]) -> list[T]:
    """Do steps that do not depend on each other, two at a time where the machine has the cores.

    Raises:
        Exception: what the first of those that fail raises, after what had begun has ended.
    """
    width = min(AT_ONCE, cores(), len(steps))
    if width < 2:
        return [step() for step in steps]
    with ThreadPoolExecutor(width) as pool:
        futures = [pool.submit(step) for step in steps]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


class Crew(ABC):
    """Processes that end with the block that they are used in."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """End the processes; the next use starts others."""


class Loaded(Crew):
    """Candidates that stay loaded from one step to the next, each in its own process."""

    def __init__(self) -> None:
        self._workers: dict[Path, Worker] = {}
        self._lock = threading.Lock()

    @contextmanager
    def worker(self, name: str, interpreter: Path, bundle: Path) -> Iterator[Worker]:
        """The process that has loaded a bundle; one that fails is ended, and the next use starts another.

        Raises:
            WorkerError: the bundle does not load.
        """
        with self._lock:
            worker = self._workers.pop(bundle, None)
        if worker is None:
            worker = load(name, interpreter, bundle)
        try:
            yield worker
        except BaseException as error:
            worker.__exit__(type(error), error, None)
            raise
        with self._lock:
            other = self._workers.pop(bundle, None)
            self._workers[bundle] = worker
        if other is not None:
            other.__exit__(None, None, None)

    def load(self, candidates: Sequence[tuple[str, Path, Path]]) -> None:
        """Start what is not loaded yet: names, interpreters and bundles.

        Raises:
            WorkerError: a bundle does not load.
        """

        def one(name: str, interpreter: Path, bundle: Path) -> None:
            with self.worker(name, interpreter, bundle):
                pass

        missing = [entry for entry in candidates if entry[2] not in self._workers]
        at_once([partial(one, *entry) for entry in missing])

    def close(self) -> None:
        with self._lock:
            workers = list(self._workers.values())
            self._workers.clear()
        for worker in workers:
            worker.__exit__(None, None, None)


def load(name: str, interpreter: Path, bundle: Path) -> Worker:
    """A process that has loaded a bundle, its files and answers unchecked: whoever compares answers does it himself.

    Raises:
        WorkerError: the bundle does not load.
    """
    with ExitStack() as starting:
        worker = starting.enter_context(Worker.for_bundle(name, interpreter, bundle))
        worker.call("load", bundle=str(bundle), verify="none", selftest=False, warmup=False)
        starting.pop_all()
    return worker
