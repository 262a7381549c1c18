"""The files of a commit, written to a directory as git stores them, within bounds."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ortc.common.disk import is_full, room, temporary
from ortc.common.errors import StageError
from ortc.common.texts import shown
from ortc.common.units import format_bytes
from ortc.diff.git_process import Answers, answers

MOST_ENTRIES = 200_000
"""Files of a commit; trees that name each other many times over can stand for billions."""
MOST_BLOB = 2**30
"""Bytes of a file."""
MOST_BYTES = 2**32
"""Bytes of all files of a commit."""
MOST_DEPTH = 100
"""Directories that a file may be in."""
MOST_NAME = 255
"""Bytes of a name."""
MOST_PATH = 2_000
"""Bytes of a path, from the root of the repository."""
_MOST_LINK = 4_095
_MOST_POINTER = 1_024
_LFS = re.compile(rb"version https://git-lfs\.github\.com/spec/v1\noid sha256:([0-9a-f]{64})\nsize \d+\n")
_LINK = "120000"
_PROGRAM = "100755"


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of a commit; `mode` as git writes it."""

    mode: str
    sha: str
    size: int
    path: str


class CommitFiles:
    """The files of one commit of a repository."""

    def __init__(self, git_dir: Path, commit: str) -> None:
        self._git_dir = git_dir
        self._commit = commit

    def write(self, directory: Path) -> None:
        """Write all files to an empty directory.

        Raises:
            GitError: git cannot list or give the files.
            StageError: there are too many or too large ones, or a name that no file can have or that leads elsewhere.
        """
        entries = self._entries()
        asked = "".join(f"{entry.sha}\n" for entry in entries).encode()
        needed = sum(entry.size for entry in entries)
        purpose = f"the files of {self._commit[:12]}"
        with (
            room(temporary(), needed=needed),
            answers(f"--git-dir={self._git_dir}", "cat-file", "--batch", stdin=asked, purpose=purpose) as contents,
        ):
            for entry in entries:
                if contents.until(b"\n") != f"{entry.sha} blob {entry.size}".encode():
                    raise self._lacking(entry.path)
                self._write_file(directory, entry, contents)
                # A line break follows.
                for _ in contents.chunks(1):
                    pass

    def _entries(self) -> list[Entry]:
        """The files of the commit; nothing is written before all of them are within the bounds."""
        entries: list[Entry] = []
        names = total = 0
        arguments = ("ls-tree", "-r", "-l", "-z", "--full-tree", self._commit)
        with answers(f"--git-dir={self._git_dir}", *arguments, purpose=f"the names in {self._commit[:12]}") as listing:
            for entry in self._listed(listing):
                entries.append(entry)
                names += len(entry.path)
                total += entry.size
                if len(entries) > MOST_ENTRIES or names > MOST_ENTRIES * MOST_NAME:
                    raise self._refused(f"it has more than {MOST_ENTRIES:,} files, or names as long as theirs")
                if total > MOST_BYTES:
                    raise self._refused(f"its files have more than {format_bytes(MOST_BYTES)}")
        return entries

    def _listed(self, listing: Answers) -> Iterator[Entry]:
        while (line := listing.until(b"\0")) is not None:
            fields, _, name = line.partition(b"\t")
            mode, kind, sha, size = fields.decode("ascii").split()
            # Submodules are commits of other repositories.
            if kind != "blob":
                continue
            path = os.fsdecode(name)
            self._check_path(name, path)
            if not size.isdecimal():
                raise self._lacking(path)
            most = _MOST_LINK if mode == _LINK else MOST_BLOB
            if int(size) > most:
                what = "the target of the link" if mode == _LINK else "the file"
                raise self._refused(f"{what} `{shown(path)}` has {size} bytes, more than {most}")
            yield Entry(mode, sha, int(size), path)

    def _check_path(self, name: bytes, path: str) -> None:
        """Check that a name is one that a file below a directory can have.

        Raises:
            StageError: no git command makes a commit with such a name, but other programs can.
        """
        steps = name.split(b"/")
        if any(step in (b"", b".", b"..") or step.lower() == b".git" for step in steps):
            raise StageError(f"refused the file name `{shown(path)}` of the commit: it leads out of the work tree")
        if len(name) > MOST_PATH or len(steps) > MOST_DEPTH or max(map(len, steps)) > MOST_NAME:
            raise self._refused(
                f"the path `{shown(path)}` has {len(steps)} parts and {len(name)} bytes; at most {MOST_DEPTH} parts, "
                f"{MOST_PATH} bytes, and {MOST_NAME} bytes a part are written"
            )

    def _write_file(self, directory: Path, entry: Entry, contents: Answers) -> None:
        try:
            place = _place(directory, entry.path)
            if entry.mode == _LINK:
                place.symlink_to(os.fsdecode(_whole(contents, entry.size)))
            elif entry.size <= _MOST_POINTER:
                content = _whole(contents, entry.size)
                if (stored := self._lfs_object(content)) is not None:
                    place.symlink_to(stored)
                    return
                _store(place, iter((content,)), entry.mode)
            else:
                _store(place, contents.chunks(entry.size), entry.mode)
        except (OSError, ValueError) as error:
            if is_full(error):
                raise
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            raise self._refused(f"`{shown(entry.path)}` cannot be written: {reason}") from error

    def _lfs_object(self, content: bytes) -> Path | None:
        """Where Git LFS keeps the file that a pointer stands for, where the file is there."""
        pointer = _LFS.match(content)
        if pointer is None:
            return None
        oid = pointer[1].decode("ascii")
        stored = self._git_dir / "lfs" / "objects" / oid[:2] / oid[2:4] / oid
        return stored if stored.is_file() else None

    def _lacking(self, path: str) -> StageError:
        return StageError(
            f"git has no content for `{shown(path)}` of {self._commit[:12]}", help="`git fetch` brings it"
        )

    def _refused(self, reason: str) -> StageError:
        return StageError(
            f"the commit {self._commit[:12]} is not written out: {reason}",
            help="compare the files of two work trees: `ortc diff A.yaml B.yaml`",
        )


def _place(directory: Path, path: str) -> Path:
    """Where a file of a commit is written; its parents are made.

    Raises:
        StageError: the way there leads through a link, or something of that name is there already.
    """
    place = directory.joinpath(*path.split("/"))
    through = [parent for parent in place.parents if parent.is_relative_to(directory) and parent.is_symlink()]
    if through or os.path.lexists(place):
        raise StageError(f"refused the file name `{shown(path)}` of the commit: it leads out of the work tree")
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


def _whole(contents: Answers, size: int) -> bytes:
    return b"".join(contents.chunks(size))


def _store(place: Path, chunks: Iterator[bytes], mode: str) -> None:
    with place.open("xb") as stream:
        for chunk in chunks:
            stream.write(chunk)
    place.chmod(0o755 if mode == _PROGRAM else 0o644)
