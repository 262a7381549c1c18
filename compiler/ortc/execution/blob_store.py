"""Files by the digest of their content."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from pathlib import Path

from ortc.common.digests import sha256_file
from ortc.common.disk import room
from ortc.common.errors import StageError
from ortc.execution.action_record import KeptFile


class Blobs:
    """A directory of files whose names are their sha256; below one of its first two digits, and read-only."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._proven: set[str] = set()

    def place(self, sha256: str) -> Path:
        """Where the file with this digest is, or would be."""
        return self.root / sha256[:2] / sha256

    def has(self, file: KeptFile) -> bool:
        """Whether a file is there, by its name and size."""
        try:
            return self.place(file.sha256).stat().st_size == file.bytes
        except OSError:
            return False

    def proven(self, sha256: str) -> Path:
        """The place of a file after its content was compared with its digest; once a build is enough.

        Raises:
            StageError: it is damaged.
        """
        path = self.place(sha256)
        if sha256 not in self._proven:
            if sha256_file(path) != sha256:
                path.unlink(missing_ok=True)
                raise StageError(
                    f"the cache was damaged: the content of {path} is not what was kept there",
                    help="the file is removed now; build again, and what gave it will be done again",
                )
            self._proven.add(sha256)
        return path

    def adopt(self, path: Path, sha256: str) -> Path:
        """Move a file, whose digest is known, into its place."""
        path.chmod(0o444)
        place = self.place(sha256)
        place.parent.mkdir(parents=True, exist_ok=True)
        return path.replace(place)

    def add(self, path: Path, sha256: str) -> Path:
        """Keep a copy of a file whose digest was checked.

        Its time of last access becomes now, for `ortc cache prune`.
        """
        place = self.place(sha256)
        if place.is_file():
            with contextlib.suppress(OSError):
                # Set by hand: file systems are mounted so that reading does not set it, or not always.
                os.utime(place, ns=(time.time_ns(), place.stat().st_mtime_ns))
        else:
            with room(("the cache", self.root), needed=path.stat().st_size):
                self._copy(path, sha256)
        return place

    def _copy(self, path: Path, sha256: str) -> None:
        place = self.place(sha256)
        place.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".", dir=place.parent)
        os.close(handle)
        try:
            shutil.copyfile(path, name)
            self.adopt(Path(name), sha256)
        finally:
            Path(name).unlink(missing_ok=True)
