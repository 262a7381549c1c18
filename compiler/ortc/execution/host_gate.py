"""Who computes while something is timed: nobody else of the builds that one command runs beside each other.

Builds that were started together share two files. Work that computes holds the first one together with others; work
that is timed holds it alone. Who waits to be alone holds the second one meanwhile, which all others pass through, so
that a steady stream of work cannot keep it waiting. The locks are the kernel's on open files and end with the process.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

GATE = "ORTC_JOBS_GATE"
"""The directory of both files, for builds that run beside each other; not set for a build alone."""
_FILE, _NEXT = "computing", "next"


class _Held(threading.local):
    """The open file by which this thread computes; None where it does not."""

    file: int | None = None


_held = _Held()


@contextmanager
def computing() -> Iterator[None]:
    """Compute while nothing is timed."""
    place = _place()
    if place is None or _held.file is not None:
        yield
        return
    with _opened(place / _NEXT) as following:
        fcntl.flock(following, fcntl.LOCK_SH)
    with _opened(place / _FILE) as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        _held.file = file
        try:
            yield
        finally:
            _held.file = None


@contextmanager
def timing() -> Iterator[None]:
    """Be timed while nobody else computes; what this thread had begun to compute goes on afterwards."""
    place = _place()
    if place is None:
        yield
        return
    if _held.file is not None:
        # Others must not wait for what waits here.
        fcntl.flock(_held.file, fcntl.LOCK_UN)
    with _opened(place / _NEXT) as following, _opened(place / _FILE) as file:
        fcntl.flock(following, fcntl.LOCK_EX)
        fcntl.flock(file, fcntl.LOCK_EX)
        fcntl.flock(following, fcntl.LOCK_UN)
        yield
    if _held.file is not None:
        fcntl.flock(_held.file, fcntl.LOCK_SH)


def _place() -> Path | None:
    found = os.environ.get(GATE)
    return Path(found) if found else None


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield file
    finally:
        os.close(file)
