"""Do the jobs of some specs beside each other on this machine; the build that follows finds their results."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ortc.cli.report import write
from ortc.common.disk import memory_available
from ortc.common.permissions import granted_options
from ortc.common.units import count, format_seconds
from ortc.execution.host_gate import GATE
from ortc.execution.processes import own_environment, own_module
from ortc.plan.jobs import Job, jobs_text

if TYPE_CHECKING:
    from ortc.plan.plan import Plan

_BUNDLE_ALONE = 1
"""The stages that are left where everything is known: what ships is put together where it is to lie."""
_NEEDED = 2 * 2**30
"""Bytes that have to be free before one more job begins: PyTorch, ONNX Runtime and a small model."""
_TIMES_WEIGHTS = 6
"""The memory of a build, in sizes of the model's files, about."""
_PAUSE = 0.05
_PATIENCE = 30.0
"""Seconds that jobs have to clear up after a signal."""


@dataclass
class _Running:
    """A job under way, in a process of its own."""

    job: Job
    process: subprocess.Popen[bytes]
    began: float

    def end(self) -> int | None:
        """Its exit code, once it has ended."""
        return self.process.poll()


def do_side_by_side(jobs: Sequence[Job], most: int, cache_url: str | None, weights: Mapping[str, int]) -> None:
    """Do what is left of some jobs, several at once, and tell of each on stderr.

    While a job times something, the others wait. What a job could not do is left for the build that follows, which
    says why.

    Args:
        jobs: of specs below the current directory.
        most: how many at once.
        cache_url: of the command.
        weights: how many bytes a model has, by its name.
    """
    left = [job for job in jobs if job.will_run > _BUNDLE_ALONE]
    if len(left) < 2:
        return
    write(f"{count(len(left), 'job')}, {most} at once\n")
    running: list[_Running] = []
    done = 0
    # A signal interrupts this thread between any two steps: a process that another one starts is never forgotten.
    with tempfile.TemporaryDirectory(prefix="ortc-jobs-") as place, ThreadPoolExecutor(1) as starter:
        try:
            while left or running:
                while left and len(running) < most and (not running or _has_room(weights.get(left[0].name, 0))):
                    # With what the command allows specs.
                    begin = copy_context().run
                    starter.submit(begin, _start, left.pop(0), Path(place), cache_url, running).result()
                for one in [one for one in running if one.end() is not None]:
                    running.remove(one)
                    done += 1
                    _tell(one, f"{done} of {len(jobs)}")
                time.sleep(_PAUSE)
        finally:
            starter.shutdown()
            _stop(running)


def _has_room(weights: int) -> bool:
    available = memory_available()
    return available is None or available > _NEEDED + _TIMES_WEIGHTS * weights


def _start(job: Job, place: Path, cache_url: str | None, running: list[_Running]) -> None:
    given = ["job", "run", "-", "-o", str(place / job.id), *granted_options()]
    if cache_url is not None:
        given += ["--cache-url", cache_url]
    process = subprocess.Popen(
        own_module("ortc", *given),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        # The build that follows says it again.
        stderr=subprocess.DEVNULL,
        env={**os.environ, **own_environment(), GATE: str(place)},
        # A signal of the terminal reaches this process, which passes it on.
        start_new_session=True,
    )
    running.append(_Running(job, process, time.monotonic()))
    if process.stdin is None:
        raise AssertionError(process)
    with process.stdin as pipe:
        pipe.write(jobs_text([job]).encode())
    write(f"  begun  {job.id}\n")


def _tell(one: _Running, number: str) -> None:
    code = one.process.returncode
    outcome = "done" if code == 0 else f"exit {code}"
    write(f"  {outcome}  {one.job.id}  {format_seconds(time.monotonic() - one.began)}, {number}\n")


def _stop(running: Sequence[_Running]) -> None:
    """End what still runs as a signal would end it, so that it clears up."""
    for one in running:
        if one.end() is None:
            one.process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + _PATIENCE
    for one in running:
        try:
            one.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(one.process.pid, signal.SIGKILL)
            one.process.wait()


def model_bytes(plan: Plan, root: Path) -> int:
    """How large the model's files are, as far as they are here."""
    names = (getattr(plan.model, field, None) for field in ("path", "weights"))
    places = [root / name for name in names if isinstance(name, str)]
    files = [file for place in places for file in ([place] if place.is_file() else place.rglob("*"))]
    return sum(file.stat().st_size for file in files if file.is_file())
