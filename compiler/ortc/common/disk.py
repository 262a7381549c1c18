"""Disks without room: which place is full, how much is needed where that is known, and what to do."""

from __future__ import annotations

import contextlib
import errno
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from ortc.common.errors import StageError
from ortc.common.units import format_bytes

Purpose = Literal["the cache", "bundles", "temporary files"]
Place = tuple[Purpose, Path]

_WAYS_OUT: dict[Purpose, str] = {
    "the cache": "`ortc cache prune --older-than 30d` frees some, $ORTC_CACHE_DIR puts the cache elsewhere",
    "bundles": "free some there, or put bundles elsewhere with `-o`; what was there before is untouched",
    "temporary files": "free some there, or put temporary files elsewhere with $TMPDIR",
}
_SAID = ("No space left on device", "Disk quota exceeded", "not enough space")
"""How processes tell of a full disk."""


class DiskFullError(StageError):
    """A place has no room for what a stage writes there."""


def is_full(error: BaseException) -> bool:
    """Whether an error says that a file system, or the user's share of it, has no room left."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def says_full(text: str) -> bool:
    """Whether another process says so."""
    return any(phrase in text for phrase in _SAID)


def temporary() -> Place:
    """Where temporary files go."""
    return "temporary files", Path(tempfile.gettempdir())


def full(*places: Place, needed: int | None = None) -> DiskFullError:
    """The error for the fullest of some places; `needed` bytes were wanted where that is known."""
    purpose, path = min(places, key=lambda place: free(place[1]))
    wanted = "" if needed is None else f"{format_bytes(needed)} are needed, "
    return DiskFullError(
        f"no room for {purpose} in {path}: {wanted}{format_bytes(free(path))} are free", help=_WAYS_OUT[purpose]
    )


def everywhere() -> DiskFullError:
    """The error where nobody knows which place it was."""
    from ortc.common.resources import cache_root

    places = {"the cache": cache_root(), "temporary files": temporary()[1], "this directory": Path.cwd()}
    return DiskFullError(
        "no room left for what ortc writes",
        details=tuple(f"{format_bytes(free(path))} free for {purpose} in {path}" for purpose, path in places.items()),
        help="free some; $ORTC_CACHE_DIR and $TMPDIR put the cache and temporary files elsewhere",
    )


def free(path: Path) -> int:
    """Bytes that can still be written below a path, which need not exist yet."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free


def memory_available() -> int | None:
    """Bytes of memory that processes can still take, as Linux estimates them; None elsewhere."""
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    except OSError:
        return None
    found = next((line.split() for line in lines if line.startswith("MemAvailable:")), None)
    return None if found is None else int(found[1]) * 1024


@contextlib.contextmanager
def room(*places: Place, needed: int | None = None) -> Iterator[None]:
    """Around what writes to a place, or to several.

    Args:
        places: where it writes.
        needed: bytes that will be written to the first, where that is known: then nothing is begun that cannot end.

    Raises:
        DiskFullError: there is no room, or no longer; also when a process that was started says so.
    """
    if needed is not None and free(places[0][1]) < needed:
        raise full(places[0], needed=needed)
    try:
        yield
    except DiskFullError:
        raise
    except (OSError, StageError) as error:
        told = isinstance(error, StageError) and says_full(" ".join([error.message, *error.details]))
        if not (told or is_full(error)):
            raise
        raise full(*places, needed=needed) from error
