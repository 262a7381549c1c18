"""Drop old versions of a registry, and the files that no record needs any more; safe beside writers.

Deleting takes two runs: what is found to be needed by nothing is marked, and deleted by a run that finds it still so
after the grace period. A registration that began before a mark has ended by then, and a new one writes anew what is
neither needed nor fresh.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from ortc.common.errors import StageError
from ortc.common.values import Frozen
from ortc.registry.contents import blob
from ortc.registry.documents import Marks, now
from ortc.registry.store import Registry

MARKS = "gc.json"
_BLOB = re.compile("[0-9a-f]{64}")
_HIDDEN = re.compile(r"\.[0-9a-f]{32}")
"""Names that writers give to files until these are whole."""
GRACE = timedelta(days=1)
"""Longer than any registration takes, and than `store.FRESH`."""


class Collected(Frozen):
    """What a run did, or would do: versions as NAME@VERSION; blobs by digest.

    `unreadable` has a message about each document that cannot be read. Nothing is deleted that one of them may need.
    """

    versions: tuple[str, ...]
    marked: tuple[str, ...]
    deleted: tuple[str, ...]
    freed_bytes: int
    leftovers: int
    unreadable: tuple[str, ...] = ()


def collect(
    registry: Registry, *, keep: int | None = None, grace: timedelta = GRACE, dry_run: bool = False
) -> Collected:
    """Collect garbage.

    Args:
        registry: which.
        keep: how many versions of a model stay, the highest, besides those that an alias names or would after a
            rollback; None keeps all.
        grace: how long files that nothing needs stay. Shorter than a registration takes, it must run alone.
        dry_run: only tell.

    Raises:
        StageError: the registry cannot be read or written.
    """
    registry.check()
    storage = registry.storage
    # Blobs are listed before records are read: one that comes later belongs to a registration under way.
    blobs = [
        found
        for part in storage.names("blobs")
        for found in storage.names(f"blobs/{part}")
        if _BLOB.fullmatch(found) and found[:2] == part
    ]
    versions, dropped, kept = _drop(registry, keep, dry_run)
    unread: list[str] = []
    needed = {
        file.sha256
        for name in storage.names("models")
        for file in registry.needed(name, unread, without=dropped.get(name, frozenset()))
    }
    marks, damaged = _marks(registry)
    time = now()
    unneeded = {sha256: marks.blobs.get(sha256, time) for sha256 in blobs if sha256 not in needed}
    deleted: list[str] = []
    freed = 0
    # Nobody knows what a document that cannot be read needs.
    for sha256, since in unneeded.items() if not unread else ():
        written = storage.modified(blob(sha256))
        if written is None or time - since < grace or time - written < grace or not storage.is_file(blob(sha256)):
            continue
        freed += storage.size(blob(sha256)) or 0
        deleted.append(sha256)
        if not dry_run:
            storage.remove(blob(sha256))
    left = _leftovers(registry, time - grace, dry_run=dry_run)
    marked = {sha256: since for sha256, since in unneeded.items() if sha256 not in deleted}
    if not dry_run and marked != marks.blobs:
        storage.put(MARKS, Marks(blobs=marked).content())
    return Collected(
        versions=tuple(versions),
        marked=tuple(marked),
        deleted=tuple(deleted),
        freed_bytes=freed,
        leftovers=left,
        unreadable=tuple(dict.fromkeys((*unread, *kept, *damaged))),
    )


def _marks(registry: Registry) -> tuple[Marks, list[str]]:
    """The marks of earlier runs; where they cannot be read, none, so that every file is marked anew."""
    try:
        return registry.find(Marks, MARKS) or Marks(blobs={}), []
    except StageError as error:
        return Marks(blobs={}), [error.message]


def _drop(
    registry: Registry, keep: int | None, dry_run: bool
) -> tuple[list[str], dict[str, frozenset[str]], list[str]]:
    """Remove the records of versions that need not stay; returns these, also by model, and why others stay."""
    gone: list[str] = []
    dropped: dict[str, frozenset[str]] = {}
    unread: list[str] = []
    if keep is None:
        return gone, dropped, unread
    for name in registry.models():
        out = []
        # The highest stays in any case.
        for version in registry.versions(name)[: -max(keep, 1)]:
            try:
                # Asked anew for each: a promotion may come in between.
                if version in _named(registry, name):
                    continue
                _read_all(registry, name, version)
            except StageError as error:
                unread.append(error.message)
                continue
            out.append(version)
            if not dry_run:
                registry.remove(name, version)
        gone += [f"{name}@{version}" for version in out]
        dropped[name] = frozenset(out)
    return gone, dropped, unread


def _read_all(registry: Registry, name: str, version: str) -> None:
    """Read every document of a version: one that this ortc cannot read is not removed.

    Raises:
        StageError: one of them cannot be read.
    """
    for target in registry.targets(name, version):
        if (record := registry.record(name, version, target)) is not None:
            registry.joined(record)


def _named(registry: Registry, name: str) -> set[str]:
    """The versions that an alias names, or would after a rollback."""
    return {version for alias in registry.alias_names(name) for version in registry.stack(name, alias)[-2:]}


def _leftovers(registry: Registry, before: datetime, *, dry_run: bool) -> int:
    """Remove hidden files that killed writers left, and tell how many."""
    storage = registry.storage
    count = 0
    directories = ["", *(f"blobs/{part}" for part in storage.names("blobs"))]
    for name in storage.names("models"):
        base = f"models/{name}"
        directories += [f"{base}/bundles"]
        directories += [
            f"{base}/{kind}/{n}" for kind in ("aliases", "companions") for n in storage.names(f"{base}/{kind}")
        ]
    for directory in directories:
        for hidden in storage.names(directory, hidden=True):
            path = f"{directory}/{hidden}".lstrip("/")
            if not _HIDDEN.fullmatch(hidden) or not storage.is_file(path):
                continue
            written = storage.modified(path)
            if written is not None and written < before:
                count += 1
                if not dry_run:
                    storage.remove(path)
    return count
