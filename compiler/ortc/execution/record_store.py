"""Records of finished actions on disk: which there are, where each came from, and the last one of each subject."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ortc.common.atomic_files import PRIVATE, replace_file
from ortc.common.digests import sha256_file
from ortc.common.plain_files import read_plain, read_plain_text
from ortc.common.values import digest
from ortc.execution.action_record import Record, action_key, read_record

Json = dict[str, Any]

NOISY = "the last measurement was noisy"
"""Why an action that was done is done again: `is_final` did not accept its result."""


class Records:
    """The records of a cache, each renamed into its place.

    actions/KEY.json    what an action gave, and its files by digest
    origins/KEY         where the result of an action came from, if not from this machine
    latest/             the last action of each subject, to explain why the next one is not cached; and the last
                        one whose result was not kept, as the machine was not quiet
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def place(self, key: str) -> Path:
        """Where the record of an action is."""
        return self._root / "actions" / f"{key}.json"

    def read(self, key: str) -> Record | None:
        """The record of an action; None where there is none, or a crash of the machine has torn it."""
        try:
            return read_record(read_plain(self.place(key)), key)
        except (OSError, ValueError):
            return None

    def use(self, key: str) -> None:
        """Note the time of last use, for `ortc cache prune`."""
        with contextlib.suppress(OSError):
            os.utime(self.place(key))

    def keep(self, record: Record, content: bytes, origin: str | None = None) -> None:
        """Write a record; `origin` names the remote record that the result was taken from."""
        key = record.key
        # First: a result that came from elsewhere is never taken for this machine's own.
        if origin is not None:
            _write(self._origin(key), origin.encode())
        _write(self.place(key), content)
        _write(self._latest(record.stage, record.subject), key.encode())
        self._not_final(record.stage, record.subject).unlink(missing_ok=True)
        if origin is None:
            self._origin(key).unlink(missing_ok=True)

    def drop(self, key: str) -> None:
        """Forget an action that is done again."""
        self.place(key).unlink(missing_ok=True)

    def keep_not(self, stage: str, subject: str, key: str) -> None:
        """Note that the last result about a subject was not kept."""
        _write(self._not_final(stage, subject), key.encode())

    def origin(self, key: str) -> str | None:
        """The remote record that this machine took a result from; None for its own."""
        try:
            return read_plain(self._origin(key)).decode("utf-8", "replace")
        except FileNotFoundError:
            return None

    def sha256(self, key: str) -> str:
        """The digest of the record of a finished action, which is the same here and in a remote cache."""
        return sha256_file(self.place(key))

    def why_missing(self, stage: str, inputs: Json, subject: str) -> str:
        """What changed since the last entry for this subject, or that the last one was not kept, for people."""
        with contextlib.suppress(OSError):
            if read_plain_text(self._not_final(stage, subject)) == action_key(stage, inputs):
                return NOISY
        try:
            before = self.read(read_plain_text(self._latest(stage, subject)))
        except (OSError, ValueError):
            before = None
        if before is None:
            return "never done"
        changed = list(_changes(before.inputs, json.loads(json.dumps(inputs)), ()))
        shown = ", ".join(changed[:3])
        return f"changed: {shown}{', …' if len(changed) > 3 else ''}" if changed else "was pruned"

    def _origin(self, key: str) -> Path:
        return self._root / "origins" / key

    def _latest(self, stage: str, subject: str) -> Path:
        return self._root / "latest" / stage.replace(" ", "-") / digest(subject)[:32]

    def _not_final(self, stage: str, subject: str) -> Path:
        """Holds the key of a subject's last action where its result was not kept."""
        return self._latest(stage, subject).with_suffix(".noisy")


def _write(place: Path, content: bytes) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    replace_file(place, content, mode=PRIVATE)


def _changes(before: object, now: object, path: tuple[str, ...]) -> Iterator[str]:
    """Dotted paths at which two JSON values differ; short scalars with both values."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            yield from _changes(before.get(key), now.get(key), (*path, key))
    elif before != now:
        name = ".".join(path) or "inputs"
        short = all(not isinstance(value, dict | list) and len(str(value)) < 24 for value in (before, now))
        yield f"{name} {before} -> {now}" if short else name
