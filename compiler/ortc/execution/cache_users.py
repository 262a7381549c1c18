"""Who uses a cache: any number of builds at once, or one that drops entries."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from ortc.common.errors import StageError


@contextlib.contextmanager
def in_use(root: Path) -> Iterator[None]:
    """While a build runs: its entries stay. Any number of builds at once."""
    with _users(root, fcntl.LOCK_SH):
        yield


@contextlib.contextmanager
def alone(root: Path) -> Iterator[None]:
    """While entries are dropped.

    Raises:
        StageError: a build is running.
    """
    try:
        with _users(root, fcntl.LOCK_EX | fcntl.LOCK_NB):
            yield
    except BlockingIOError as error:
        raise StageError("a build is using the cache", help="try again when it has ended") from error


@contextlib.contextmanager
def _users(root: Path, operation: int) -> Iterator[None]:
    root.mkdir(parents=True, exist_ok=True)
    with (root / "users.lock").open("w") as stream:
        # The kernel drops the lock with the process, however it ends.
        fcntl.flock(stream, operation)
        yield
