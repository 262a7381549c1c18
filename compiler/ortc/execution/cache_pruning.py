"""List and drop what the cache holds."""

from __future__ import annotations

import contextlib
import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ortc.common.plain_files import read_plain
from ortc.execution.action_cache import Store
from ortc.execution.action_record import Record, read_record
from ortc.execution.cache_users import alone

LEFT_BEHIND = "left behind"
"""Of killed builds, and of versions of ortc that kept a directory an action; no build uses it."""


@dataclass(frozen=True)
class Kept:
    """Something in the cache; `used` is the time of last use in seconds since the epoch.

    The bytes of a file that several actions gave are those of the first.
    """

    kind: str
    key: str
    subject: str
    bytes: int
    used: float
    path: Path
    blobs: frozenset[str] = frozenset()


def entries(root: Path) -> Iterator[Kept]:
    """Everything that is kept: actions with their files, source files, runtime environments."""
    actions = root / "actions"
    # Of a link its own: builds make none, and it may lead nowhere.
    sizes = {place.name: place.lstat() for place in sorted((root / "blobs").glob("*/*"))}
    counted: set[str] = set()
    for place in sorted(actions.glob("*")):
        if place.name.startswith(".") or (record := _record(place)) is None:
            yield Kept(LEFT_BEHIND, place.name, "", _size(place), 0.0, place)
            continue
        blobs = frozenset(file.sha256 for file in record.files)
        status = place.stat()
        size = status.st_size + sum(sizes[blob].st_size for blob in blobs - counted if blob in sizes)
        counted |= blobs
        yield Kept(f"action {record.stage}", place.stem, record.subject, size, status.st_mtime, place, blobs)
    for place in sorted((root / "blobs").glob("*/*")):
        if place.name.startswith(".") or not stat.S_ISREG(sizes[place.name].st_mode):
            yield Kept(LEFT_BEHIND, place.name, "", sizes[place.name].st_size, 0.0, place)
        elif place.name not in counted:
            status = sizes[place.name]
            # Builds set the time of last access; the other time tells whether the file was changed.
            yield Kept("source file", place.name, "", status.st_size, max(status.st_atime, status.st_mtime), place)
    for place in sorted((root / "unfinished").glob("*")):
        if place.is_dir():
            yield Kept(LEFT_BEHIND, place.name, "", _size(place), 0.0, place)
    for place in sorted((root / "environments").glob("*")):
        if (marker := place / ".complete").is_file():
            yield Kept("environment", place.name, "", _size(place), marker.stat().st_mtime, place)
        elif place.is_dir():
            yield Kept(LEFT_BEHIND, place.name, "", _size(place), 0.0, place)


def prune(store: Store, *, before: float, dry_run: bool = False) -> list[Kept]:
    """Drop entries last used before a time, and whatever was left behind.

    Returns what was, or with `dry_run` would be, dropped.

    Raises:
        StageError: a build is running, which may be using any of them.
    """
    with contextlib.nullcontext() if dry_run else alone(store.root):
        found = list(entries(store.root))
        gone = [entry for entry in found if entry.used <= before]
        if dry_run:
            return gone
        needed = {blob for entry in found if entry.used > before for blob in entry.blobs}
        for entry in gone:
            _drop(entry.path, store.root)
        for blob in {blob for entry in gone for blob in entry.blobs} - needed:
            store.blobs.place(blob).unlink(missing_ok=True)
        for origin in (store.root / "origins").glob("*"):
            if not (store.root / "actions" / f"{origin.name}.json").exists():
                origin.unlink(missing_ok=True)
        for lock in (store.root / "unfinished").glob("*.lock"):
            lock.unlink(missing_ok=True)
        for trash in store.root.glob(".trash-*"):
            shutil.rmtree(trash, ignore_errors=True)
    return gone


def _drop(place: Path, root: Path) -> None:
    if not place.is_dir() or place.is_symlink():
        place.unlink(missing_ok=True)
        return
    # Out of the way in one step before it is deleted: a kill leaves no half entry.
    trash = Path(tempfile.mkdtemp(prefix=".trash-", dir=root))
    place.rename(trash / "entry")
    Path(f"{place}.lock").unlink(missing_ok=True)


def _record(place: Path) -> Record | None:
    try:
        return read_record(read_plain(place), place.stem)
    except (OSError, ValueError):
        return None


def _size(place: Path) -> int:
    files = place.rglob("*") if place.is_dir() else [place]
    return sum(file.lstat().st_size for file in files if file.is_file())
