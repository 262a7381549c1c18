"""Where builds keep what they can reuse: finished actions, source files by digest, runtime environments."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from platformdirs import user_cache_path

from ortc.errors import StageError
from ortc.plan import digest

Json = dict[str, Any]

RESULT = "result.json"
INPUTS = "inputs.json"


def cache_root() -> Path:
    """`$ORTC_CACHE_DIR`, or `ortc` in the user's cache directory."""
    configured = os.environ.get("ORTC_CACHE_DIR")
    return Path(configured) if configured else user_cache_path("ortc")


@dataclass(frozen=True)
class Entry:
    """A finished action: the files it wrote, its JSON result, and whether it was found or ran now.

    A pending one is foreseen by `ortc plan` and has no result.
    """

    key: str
    directory: Path
    result: Json
    cached: bool
    pending: bool = False


class Store:
    """Finished actions by the digest of everything that went into them.

    An entry is written beside its place and renamed into it, under a lock of its own: a kill leaves no half entry, and
    of several builds that need the same action one does it while the others wait.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, stage: str, inputs: Json, action: Callable[[Path], Json], subject: str = "") -> Entry:
        """The entry for these inputs; `action(directory)` makes it when there is none.

        Args:
            stage: name of the stage.
            subject: what the action is about; the next miss for it is explained by what changed since this entry.
            inputs: everything the result depends on, as JSON.
            action: writes files into the empty directory it gets, returns its JSON result.
        """
        if (found := self.find(stage, inputs)) is not None:
            return found
        key = digest({"stage": stage, "inputs": inputs})
        place = self._place(stage, key)
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{place}.lock"):
            if (found := self._read(key, place)) is not None:
                return found
            # Torn by a crash of the machine: what cannot be read is made again. Only here, where nobody else mends it.
            shutil.rmtree(place, ignore_errors=True)
            work = Path(tempfile.mkdtemp(prefix=f".{key[:12]}-", dir=place.parent))
            try:
                result = action(work)
                (work / INPUTS).write_text(json.dumps(inputs), "utf-8")
                (work / RESULT).write_text(json.dumps(result, indent=1), "utf-8")
                work.rename(place)
                self._remember(stage, subject, key)
            finally:
                shutil.rmtree(work, ignore_errors=True)
            return Entry(key, place, result, cached=False)

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """While a build runs: its entries stay. Any number of builds at once."""
        with self._users(fcntl.LOCK_SH):
            yield

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """While entries are dropped.

        Raises:
            StageError: a build is running.
        """
        try:
            with self._users(fcntl.LOCK_EX | fcntl.LOCK_NB):
                yield
        except BlockingIOError as error:
            raise StageError("a build is using the cache", help="try again when it has ended") from error

    @contextlib.contextmanager
    def _users(self, operation: int) -> Iterator[None]:
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "users.lock").open("w") as stream:
            # The kernel drops the lock with the process, however it ends.
            fcntl.flock(stream, operation)
            yield

    def put(self, stage: str, inputs: Json, result: Json, subject: str = "") -> Entry:
        """Keep a result that is there already."""
        return self.run(stage, inputs, lambda _: result, subject)

    def why_missing(self, stage: str, inputs: Json, subject: str) -> str:
        """What changed since the last entry for this subject, for people."""
        try:
            key = self._latest(stage, subject).read_text("utf-8")
            before = json.loads((self._place(stage, key) / INPUTS).read_text("utf-8"))
        except (OSError, ValueError):
            return "never done"
        changed = list(_changes(before, json.loads(json.dumps(inputs)), ()))
        shown = ", ".join(changed[:3])
        return f"changed: {shown}{', …' if len(changed) > 3 else ''}" if changed else "was pruned"

    def _latest(self, stage: str, subject: str) -> Path:
        return self.root / "latest" / stage.replace(" ", "-") / digest(subject)[:32]

    def _remember(self, stage: str, subject: str, key: str) -> None:
        pointer = self._latest(stage, subject)
        pointer.parent.mkdir(parents=True, exist_ok=True)
        fresh = pointer.with_name(f".{pointer.name}.{os.getpid()}")
        fresh.write_text(key, "utf-8")
        fresh.replace(pointer)

    def find(self, stage: str, inputs: Json) -> Entry | None:
        """The entry for these inputs, if the action has been done."""
        key = digest({"stage": stage, "inputs": inputs})
        return self._read(key, self._place(stage, key))

    def _place(self, stage: str, key: str) -> Path:
        return self.root / "actions" / stage.replace(" ", "-") / key

    def _read(self, key: str, place: Path) -> Entry | None:
        try:
            result = json.loads((place / RESULT).read_text("utf-8"))
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None
        with contextlib.suppress(OSError):
            # The time of last use, for `ortc cache prune`.
            os.utime(place / RESULT)
        return Entry(key, place, result, cached=True)

    def blob(self, sha256: str) -> Path:
        """Where the file with this digest is kept."""
        return self.root / "blobs" / sha256[:2] / sha256

    def add_blob(self, path: Path, sha256: str) -> Path:
        """Keep a copy of a file whose digest was checked; returns its place."""
        place = self.blob(sha256)
        if not place.is_file():
            place.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=".", dir=place.parent)
            os.close(handle)
            try:
                shutil.copyfile(path, name)
                Path(name).rename(place)
            finally:
                Path(name).unlink(missing_ok=True)
        return place


def _changes(before: object, now: object, path: tuple[str, ...]) -> Iterator[str]:
    """Dotted paths at which two JSON values differ; short scalars with both values."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            yield from _changes(before.get(key), now.get(key), (*path, key))
    elif before != now:
        name = ".".join(path) or "inputs"
        short = all(not isinstance(value, dict | list) and len(str(value)) < 24 for value in (before, now))
        yield f"{name} {before} -> {now}" if short else name


def sha256_file(path: Path) -> str:
    """sha256, in hex, of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def code_digest(*modules: str) -> str:
    """sha256 over the source of modules or packages of this one, given as paths relative to it (`stages/export.py`)."""
    package = Path(__file__).parent
    files = [
        file
        for name in modules
        for file in (sorted((package / name).rglob("*.py")) if (package / name).is_dir() else [package / name])
    ]
    return digest([[str(file.relative_to(package)), sha256_file(file)] for file in files])


def loader_digest() -> str:
    """sha256 of the loader that bundles carry: what runs every check and measurement."""
    from ortc.resources import templates_dir

    return sha256_file(templates_dir() / "runtime" / "loader.py")


def templates_digest() -> str:
    """sha256 over everything that is rendered or copied into bundles."""
    from ortc.resources import templates_dir

    root = templates_dir()
    files = sorted(file for file in root.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    return digest([[str(file.relative_to(root)), sha256_file(file)] for file in files])
