"""This machine while something is timed: the control workload, other processes, and one lock for all measurements.

The work is that of `runtime/machine.py`, which bundles carry, so that a bundle measures itself with the same control.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ortc.common.bundle_runtime import runtime_module
from ortc.common.errors import StageError, UnmeasuredError
from ortc.common.resources import cache_root, templates_dir
from ortc.evaluation.report import Control, Load
from ortc.execution.host_gate import timing
from ortc.execution.processes import standard_script
from ortc.execution.worker import Worker

Say = Callable[[str], None]
CONTROL_RUNS = 48
"""Blocks that each thread of the control workload hashes in a turn, as `runtime/machine.py` does in a bundle."""
HELD_ELSEWHERE = "ORTC_MEASURE_LOCK_HELD"
"""Tells a bundle that measures itself that the lock is held by who started it."""


def program() -> Path:
    """The file that bundles get as runtime/machine.py."""
    return templates_dir() / "runtime" / "machine.py"


def control_worker() -> Worker:
    """The process of the control workload, not yet started."""
    return Worker("the control workload", standard_script(program()))


class ControlClock:
    """Collects turns of the control workload."""

    def __init__(self, worker: Worker, threads: int) -> None:
        self._worker = worker
        self._threads = threads
        self._turns: list[dict[str, Any]] = []

    def take(self) -> None:
        """Run the workload once."""
        self._turns.append(self._worker.call("control", threads=self._threads, runs=CONTROL_RUNS))

    def control(self) -> Control:
        """All turns so far."""
        return Control(
            threads=self._threads,
            rounds=tuple(tuple(turn["times_ms"]) for turn in self._turns),
            wall_seconds=tuple(turn["wall_seconds"] for turn in self._turns),
            cpu_seconds=tuple(turn["cpu_seconds"] for turn in self._turns),
        )


class Watch:
    """What runs beside this process from now on."""

    def __init__(self) -> None:
        self._watch = runtime_module("machine").Watch()

    def look(self) -> None:
        """Look at every process, at most once a second."""
        self._watch.look()

    def load(self) -> Load:
        """What ran since the beginning, this process and those that it started left out."""
        return Load.model_validate(self._watch.load())


@contextmanager
def exclusive(say: Say) -> Iterator[None]:
    """Hold this machine's lock for measuring, while no build that was started with this one computes.

    See `runtime/machine.py` and `execution/host_gate.py`.

    Args:
        say: told what is waited for.

    Raises:
        UnmeasuredError: another process held the lock for an hour.
        StageError: no lock can be made.
    """
    with timing():
        try:
            held = runtime_module("machine").exclusive(say, cache_root())
            held.__enter__()
        except TimeoutError as error:
            raise UnmeasuredError(str(error), help="wait until it has ended, and build again") from error
        except OSError as error:
            raise StageError(
                f"no lock for measuring can be made: {error}",
                help="make /run/lock, /tmp or the cache directory writable",
            ) from error
        try:
            yield
        finally:
            held.__exit__(None, None, None)
