"""Where builds keep what they can reuse: finished actions, files by digest, runtime environments."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock

from ortc.common.digests import sha256_file
from ortc.common.disk import room, temporary
from ortc.common.errors import StageError
from ortc.common.values import digest
from ortc.execution.action_record import KeptFile, Record, action_key, read_record
from ortc.execution.blob_store import Blobs
from ortc.execution.ownership import refuse_others
from ortc.execution.remote_cache import RemoteCache

Json = dict[str, Any]

NOISY = "the last measurement was noisy"
"""Why an action that was done is done again: `is_final` did not accept its result."""
Found = Literal["here", "remote", "nowhere"]
"""Where a finished action was found; `nowhere` when it ran now."""


@dataclass(frozen=True)
class Entry:
    """A finished action: its JSON result and the files it wrote.

    A pending one is foreseen by `ortc plan` and has neither.
    """

    key: str
    result: Json
    found: Found
    kept: tuple[KeptFile, ...] = ()
    files: Mapping[str, Path] = field(default_factory=dict)
    """Where the content of each file lies in the cache; to be read, never to be changed or linked to."""
    pending: bool = False
    origin: str | None = None
    """The remote record that this machine took the result from, now or earlier, as a URI without its place."""

    @property
    def cached(self) -> bool:
        """Whether nothing had to be done."""
        return self.found != "nowhere"


class Store:
    """Finished actions by the digest of everything that went into them, and files by the digest of their content.

        actions/KEY.json    what an action gave, and its files by digest
        blobs/AA/SHA256     the files
        origins/KEY         where the result of an action came from, if not from this machine
        latest/             the last action of each subject, to explain why the next one is not cached; and the last
                            one whose result was not kept, as the machine was not quiet
        unfinished/KEY/     where an action under way writes
        environments/       runtime environments

    Whatever is kept is written beside its place and renamed into it, records after their files: a kill leaves no half
    entry. An action runs under a lock of its own: of several builds that need the same one does it while the others
    wait.
    """

    def __init__(self, root: Path, remote: RemoteCache | None = None) -> None:
        """Take a directory for a cache, which need not exist.

        Raises:
            StageError: other users may write to it.
        """
        refuse_others(root)
        self.root = root
        self.remote = remote
        self.blobs = Blobs(root / "blobs")

    def run(
        self,
        stage: str,
        inputs: Json,
        action: Callable[[Path], Json],
        subject: str = "",
        *,
        is_final: Callable[[Json], bool] | None = None,
        again: bool = False,
    ) -> Entry:
        """The entry for these inputs; `action(directory)` makes it when neither this cache nor the remote one has it.

        Args:
            stage: name of the stage.
            subject: what the action is about; the next miss for it is explained by what changed since this entry.
            inputs: everything the result depends on, as JSON.
            action: writes files into the empty directory it gets, returns its JSON result.
            is_final: whether a result may be kept, here and in the remote cache; every result when None.
            again: do it though there is an entry, which the new one replaces. What is not kept replaces it, too.
        """
        if not again and (found := self.find(stage, inputs)) is not None:
            return found
        key = action_key(stage, inputs)
        with self._locked(key):
            # Somebody else may have done it in the meantime.
            if not again and (found := self.find(stage, inputs) or self._fetch(key)) is not None:
                return found
            if again:
                self._action(key).unlink(missing_ok=True)
            # Some stages have scratch directories besides.
            with room(("the cache", self.root), temporary()):
                with self._unfinished(key) as work:
                    result = action(work)
                    if is_final is not None and not is_final(result):
                        _write(self._not_final(stage, subject), key.encode())
                        return Entry(key, result, "nowhere")
                    record = Record(stage=stage, subject=subject, inputs=inputs, result=result, files=self._take(work))
                    content = record.content()
                entry = self._keep(record, content, "nowhere")
        if self.remote is not None:
            self.remote.offer(key, content, [(file, self.blobs.place(file.sha256)) for file in record.files])
        return entry

    def warnings(self) -> Iterator[str]:
        """What a user should know of the remote cache, each once."""
        while self.remote is not None and self.remote.warnings:
            yield self.remote.warnings.popleft()

    def put(self, stage: str, inputs: Json, result: Json, subject: str = "", *, offered: bool = False) -> Entry:
        """Keep a result that is there already; on this machine only, unless it is offered to the remote cache."""
        record = Record(stage=stage, subject=subject, inputs=inputs, result=result, files=())
        content = record.content()
        with room(("the cache", self.root)):
            entry = self._keep(record, content, "nowhere")
        if offered and self.remote is not None:
            self.remote.offer(entry.key, content, [])
        return entry

    def find(self, stage: str, inputs: Json) -> Entry | None:
        """The entry for these inputs, if this cache has it."""
        key = action_key(stage, inputs)
        place = self._action(key)
        try:
            record = read_record(place.read_bytes(), key)
        except (OSError, ValueError):
            # Not there, or torn by a crash of the machine: it is made again.
            return None
        if not all(map(self.blobs.has, record.files)):
            return None
        with contextlib.suppress(OSError):
            # The time of last use, for `ortc cache prune`.
            os.utime(place)
        return self._entry(key, record, "here", self._read_origin(key))

    def foresee(self, stage: str, inputs: Json) -> Entry | None:
        """The entry that a build would find here or in the remote cache, without its files in the latter case."""
        if (found := self.find(stage, inputs)) is not None or self.remote is None:
            return found
        key = action_key(stage, inputs)
        record = self.remote.find(key)
        return None if record is None else self._entry(key, record, "remote", None)

    def proven(self, entry: Entry) -> dict[str, Path]:
        """Where the files of an entry lie, after their content was compared with their digests.

        Raises:
            StageError: the cache was damaged.
        """
        return {file.path: self.blobs.proven(file.sha256) for file in entry.kept}

    def check_out(self, entry: Entry, directory: Path) -> Path:
        """Copy the files of an entry, with their names, into a directory of the caller's own.

        They are copies because onnx reads no external data through links, symbolic or hard.

        Raises:
            StageError: the cache was damaged.
        """
        files = self.proven(entry)
        with room(("the cache", directory), needed=sum(file.bytes for file in entry.kept)):
            for file in entry.kept:
                place = directory / file.path
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(files[file.path], place)
                place.chmod(file.mode)
        return directory

    def _fetch(self, key: str) -> Entry | None:
        """An entry of the remote cache, with all its files here; None when anything of it is missing or damaged."""
        if self.remote is None or (record := self.remote.find(key)) is None:
            return None
        missing = [file for file in record.files if not self.blobs.has(file)]
        with room(("the cache", self.root), needed=sum(file.bytes for file in missing)):
            with self._unfinished(key) as work:
                for file in missing:
                    if not self.remote.fetch(file, work / file.sha256):
                        return None
                    self.blobs.adopt(work / file.sha256, file.sha256)
            return self._keep(record, record.content(), "remote", self.remote.public_uri(key))

    def _take(self, work: Path) -> tuple[KeptFile, ...]:
        """Make blobs of all files of a directory."""
        taken = []
        for path in sorted(path for path in work.rglob("*") if path.is_file()):
            status, sha256 = path.stat(), sha256_file(path)
            name, mode = path.relative_to(work).as_posix(), status.st_mode & 0o777
            taken.append(KeptFile(path=name, sha256=sha256, bytes=status.st_size, mode=mode))
            self.blobs.adopt(path, sha256)
        return tuple(taken)

    def _keep(self, record: Record, content: bytes, found: Found, origin: str | None = None) -> Entry:
        key = record.key
        # First: a result that came from elsewhere is never taken for this machine's own.
        if origin is not None:
            _write(self._origin(key), origin.encode())
        _write(self._action(key), content)
        _write(self._latest(record.stage, record.subject), key.encode())
        self._not_final(record.stage, record.subject).unlink(missing_ok=True)
        if origin is None:
            self._origin(key).unlink(missing_ok=True)
        return self._entry(key, record, found, origin)

    def _entry(self, key: str, record: Record, found: Found, origin: str | None) -> Entry:
        files = {file.path: self.blobs.place(file.sha256) for file in record.files}
        return Entry(key, record.result, found, record.files, files, origin=origin)

    def _read_origin(self, key: str) -> str | None:
        try:
            return self._origin(key).read_text("utf-8", "replace")
        except FileNotFoundError:
            return None

    def record_sha256(self, key: str) -> str:
        """The digest of the record of a finished action, which is the same here and in a remote cache."""
        return sha256_file(self._action(key))

    @contextlib.contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        (self.root / "unfinished").mkdir(parents=True, exist_ok=True)
        with FileLock(self.root / "unfinished" / f"{key}.lock"):
            yield

    @contextlib.contextmanager
    def _unfinished(self, key: str) -> Iterator[Path]:
        """An empty directory for an action whose lock is held; what a killed one left there is removed."""
        work = self.root / "unfinished" / key
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def why_missing(self, stage: str, inputs: Json, subject: str) -> str:
        """What changed since the last entry for this subject, or that the last one was not kept, for people."""
        with contextlib.suppress(OSError):
            if self._not_final(stage, subject).read_text("utf-8") == action_key(stage, inputs):
                return NOISY
        try:
            key = self._latest(stage, subject).read_text("utf-8")
            before = read_record(self._action(key).read_bytes(), key).inputs
        except (OSError, ValueError):
            return "never done"
        changed = list(_changes(before, json.loads(json.dumps(inputs)), ()))
        shown = ", ".join(changed[:3])
        return f"changed: {shown}{', …' if len(changed) > 3 else ''}" if changed else "was pruned"

    def _action(self, key: str) -> Path:
        return self.root / "actions" / f"{key}.json"

    def _origin(self, key: str) -> Path:
        return self.root / "origins" / key

    def _latest(self, stage: str, subject: str) -> Path:
        return self.root / "latest" / stage.replace(" ", "-") / digest(subject)[:32]

    def _not_final(self, stage: str, subject: str) -> Path:
        """Holds the key of a subject's last action where its result was not kept."""
        return self._latest(stage, subject).with_suffix(".noisy")

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


def _write(place: Path, content: bytes) -> None:
    """Write a file beside its place, and rename it into it."""
    place.parent.mkdir(parents=True, exist_ok=True)
    handle, fresh = tempfile.mkstemp(prefix=f".{place.name[:12]}-", dir=place.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        Path(fresh).replace(place)
    except BaseException:
        Path(fresh).unlink(missing_ok=True)
        raise


def _changes(before: object, now: object, path: tuple[str, ...]) -> Iterator[str]:
    """Dotted paths at which two JSON values differ; short scalars with both values."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            yield from _changes(before.get(key), now.get(key), (*path, key))
    elif before != now:
        name = ".".join(path) or "inputs"
        short = all(not isinstance(value, dict | list) and len(str(value)) < 24 for value in (before, now))
        yield f"{name} {before} -> {now}" if short else name
