"""The directory that one build works in; those that killed builds left are cleared away."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ortc.common.file_locks import file_lock

_HELD = ".held"


@contextlib.contextmanager
def workplace(root: Path) -> Iterator[Path]:
    """An empty directory below `root`/work, removed at the end.

    Its file `.held` is locked while the build lives. The kernel drops that lock however a process ends, so that the
    next build can tell what is in use from what a kill left behind.
    """
    base = root / "work"
    base.mkdir(parents=True, exist_ok=True)
    with file_lock(root / "work.lock"):
        for place in base.iterdir():
            _clear(place)
        place = Path(tempfile.mkdtemp(dir=base))
        held = (place / _HELD).open("w")
        fcntl.flock(held, fcntl.LOCK_EX)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        held.close()


def _clear(place: Path) -> None:
    """Remove a directory that nobody holds."""
    try:
        with (place / _HELD).open("a") as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(place, ignore_errors=True)
    except BlockingIOError:
        return
    except FileNotFoundError:
        # Killed between making the directory and holding it; nobody else is at this point, see the lock above.
        shutil.rmtree(place, ignore_errors=True)
