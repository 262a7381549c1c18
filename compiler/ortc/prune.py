"""List and drop what the cache holds."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ortc.store import RESULT, Store


@dataclass(frozen=True)
class Kept:
    """Something in the cache; `used` is the time of last use in seconds since the epoch."""

    kind: str
    key: str
    subject: str
    bytes: int
    used: float
    path: Path


def entries(root: Path) -> Iterator[Kept]:
    """Everything that is kept: actions by stage, source files, runtime environments."""
    for place in sorted((root / "actions").glob("*/*")):
        if (place / RESULT).is_file():
            used = (place / RESULT).stat().st_mtime
            yield Kept(f"action {place.parent.name}", place.name, place.parent.name, _size(place), used, place)
    for place in sorted((root / "blobs").glob("*/*")):
        if not place.name.startswith("."):
            status = place.stat()
            yield Kept("source file", place.name, "", status.st_size, status.st_mtime, place)
    for place in sorted((root / "environments").glob("*")):
        if (marker := place / ".complete").is_file():
            yield Kept("environment", place.name, "", _size(place), marker.stat().st_mtime, place)


def prune(store: Store, *, before: float, dry_run: bool = False) -> list[Kept]:
    """Drop entries last used before a time.

    Returns what was, or with `dry_run` would be, dropped.

    Raises:
        StageError: a build is running, which may be using any of them.
    """
    gone = [entry for entry in entries(store.root) if entry.used <= before]
    if dry_run or not gone:
        return gone
    with store.alone():
        for entry in gone:
            # Out of the way in one step before it is deleted: a kill leaves no half entry.
            trash = Path(tempfile.mkdtemp(prefix=".trash-", dir=store.root))
            with contextlib.suppress(FileNotFoundError):
                entry.path.rename(trash / "entry")
                Path(f"{entry.path}.lock").unlink(missing_ok=True)
        for trash in store.root.glob(".trash-*"):
            shutil.rmtree(trash, ignore_errors=True)
    return gone


def _size(place: Path) -> int:
    return sum(file.lstat().st_size for file in place.rglob("*") if file.is_file())
