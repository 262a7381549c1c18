"""Worker processes that make graphs of variants, each used for one after another."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import Any

from ortc.common.disk import DiskFullError
from ortc.execution.worker import Worker
from ortc.execution.worker_pool import Crew
from ortc.execution.worker_process import WorkerError
from ortc.execution.worker_protocol import INTERNAL


class Makers(Crew):
    """Processes that make graphs of variants: as many as are asked for at once, each used again."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._idle: list[Worker] = []
        self._lock = threading.Lock()

    def close(self) -> None:
        with self._lock:
            self._idle.clear()
            self._stack.close()

    def call(self, operation: str, **request: object) -> dict[str, Any]:
        """An operation of `ortc.passes.__main__` in one of the processes.

        Raises:
            StageError: the variant cannot be made.
            DiskFullError: for want of room.
            RuntimeError: a bug.
        """
        worker = self._take()
        try:
            result = worker.call(operation, **request)
        except DiskFullError:
            self._give(worker)
            raise
        except WorkerError as error:
            if error.code in ("died", "timeout"):
                raise
            self._give(worker)
            if error.code == INTERNAL:
                raise RuntimeError("\n".join([error.message, *error.details])) from error
            raise
        self._give(worker)
        return result

    def _take(self) -> Worker:
        with self._lock:
            if self._idle:
                return self._idle.pop()
            return self._stack.enter_context(Worker.for_making("the process that makes graphs"))

    def _give(self, worker: Worker) -> None:
        with self._lock:
            self._idle.append(worker)
