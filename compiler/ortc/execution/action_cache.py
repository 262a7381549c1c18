"""Where builds keep what they can reuse: finished actions, files by digest, runtime environments."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ortc.common.digests import sha256_file
from ortc.common.disk import room, temporary
from ortc.common.file_locks import file_lock
from ortc.execution.action_record import KeptFile, Record, action_key
from ortc.execution.blob_store import Blobs
from ortc.execution.ownership import refuse_others
from ortc.execution.record_store import Records
from ortc.execution.remote_cache import RemoteCache

Json = dict[str, Any]

Found = Literal["here", "remote", "nowhere"]
"""Where a finished action was found; `nowhere` when it ran now."""


@dataclass(frozen=True)
class Entry:
    """A finished action: its JSON result and the files it wrote."""

    key: str
    result: Json
    found: Found
    kept: tuple[KeptFile, ...] = ()
    files: Mapping[str, Path] = field(default_factory=dict)
    """Where the content of each file lies in the cache; to be read, never to be changed or linked to."""
    origin: str | None = None
    """The remote record that this machine took the result from, now or earlier, as a URI without its place."""

    @property
    def cached(self) -> bool:
        """Whether nothing had to be done."""
        return self.found != "nowhere"


class Store:
    """Finished actions by the digest of everything that went into them, and files by the digest of their content.

        actions/ origins/ latest/    the records of actions
        blobs/AA/SHA256     their files
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
        self.records = Records(root)
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
                self.records.drop(key)
            # Some stages have scratch directories besides.
            with room(("the cache", self.root), temporary()):
                with self._unfinished(key) as work:
                    result = action(work)
                    if is_final is not None and not is_final(result):
                        self.records.keep_not(stage, subject, key)
                        return Entry(key, result, "nowhere")
                    record = Record(stage=stage, subject=subject, inputs=inputs, result=result, files=self._take(work))
                    content = record.content()
                self.records.keep(record, content)
        if self.remote is not None:
            self.remote.offer(key, content, [(file, self.blobs.place(file.sha256)) for file in record.files])
        return self._entry(key, record, "nowhere", None)

    def warnings(self) -> Iterator[str]:
        """What a user should know of the remote cache, each once."""
        while self.remote is not None and self.remote.warnings:
            yield self.remote.warnings.popleft()

    def put(self, stage: str, inputs: Json, result: Json, subject: str = "", *, offered: bool = False) -> Entry:
        """Keep a result that is there already; on this machine only, unless it is offered to the remote cache."""
        record = Record(stage=stage, subject=subject, inputs=inputs, result=result, files=())
        content = record.content()
        with room(("the cache", self.root)):
            self.records.keep(record, content)
        if offered and self.remote is not None:
            self.remote.offer(record.key, content, [])
        return self._entry(record.key, record, "nowhere", None)

    def find(self, stage: str, inputs: Json) -> Entry | None:
        """The entry for these inputs, if this cache has it."""
        key = action_key(stage, inputs)
        record = self.records.read(key)
        if record is None or not all(map(self.blobs.has, record.files)):
            return None
        self.records.use(key)
        return self._entry(key, record, "here", self.records.origin(key))

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
            origin = self.remote.public_uri(key)
            self.records.keep(record, record.content(), origin)
            return self._entry(key, record, "remote", origin)

    def _take(self, work: Path) -> tuple[KeptFile, ...]:
        """Make blobs of all files of a directory."""
        taken = []
        for path in sorted(path for path in work.rglob("*") if path.is_file()):
            status, sha256 = path.stat(), sha256_file(path)
            name, mode = path.relative_to(work).as_posix(), status.st_mode & 0o777
            taken.append(KeptFile(path=name, sha256=sha256, bytes=status.st_size, mode=mode))
            self.blobs.adopt(path, sha256)
        return tuple(taken)

    def _entry(self, key: str, record: Record, found: Found, origin: str | None) -> Entry:
        files = {file.path: self.blobs.place(file.sha256) for file in record.files}
        return Entry(key, record.result, found, record.files, files, origin=origin)

    @contextlib.contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        (self.root / "unfinished").mkdir(parents=True, exist_ok=True)
        with file_lock(self.root / "unfinished" / f"{key}.lock"):
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
