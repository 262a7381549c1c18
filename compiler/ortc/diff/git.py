"""A git repository at a revision, in a directory of its own; neither work tree nor index nor branches are touched."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from ortc.common.disk import room, temporary
from ortc.common.errors import StageError, UsageError

_PLACES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX")
"""What git tells its hooks, relative to where they start; here the directory alone says which repository is meant."""

_NOTHING_RUNS = (
    "--no-pager",
    "--no-replace-objects",
    *("-c", "safe.bareRepository=explicit"),
    *("-c", f"core.hooksPath={os.devnull}"),
    *("-c", "core.fsmonitor=false"),
    *("-c", "protocol.allow=never"),
)
"""Repositories name programs in their configuration. None of them runs, and a repository inside a checkout, which
anybody can commit, is not taken for the user's own."""
_LFS = re.compile(rb"version https://git-lfs\.github\.com/spec/v1\noid sha256:([0-9a-f]{64})\nsize \d+\n")


@dataclass(frozen=True)
class Repository:
    """A repository; `top` is the root of its work tree."""

    git_dir: Path
    top: Path
    here: str
    """The directory that it was found from, below `top`: empty, or with a slash at the end."""

    @classmethod
    def around(cls, directory: Path) -> Repository:
        """The repository that a directory is in.

        Raises:
            UsageError: there is none, or git is not installed.
        """
        try:
            answer = _git("-C", str(directory), "rev-parse", "--absolute-git-dir", "--is-inside-work-tree")
        except _GitError as error:
            message = f"git finds no repository around {directory.resolve()}"
            raise UsageError(message, details=error.lines, help="a revision needs the repository it is of") from error
        git_dir, inside = answer.decode(errors="surrogateescape").splitlines()
        if inside != "true":
            raise UsageError(
                f"{git_dir} is a repository without a work tree",
                help="clone it: anybody can commit such a directory, so ortc does not follow its configuration",
            )
        # On its own, without the line break: paths may hold any character but a null byte.
        top = _git("-C", str(directory), "rev-parse", "--show-toplevel").decode(errors="surrogateescape")
        here = _git("-C", str(directory), "rev-parse", "--show-prefix").decode(errors="surrogateescape")
        return cls(Path(git_dir), Path(top.removesuffix("\n")), here.removesuffix("\n"))

    def commit(self, revision: str) -> str:
        """The full hash of a revision.

        Raises:
            UsageError: there is no such revision.
        """
        if not revision:
            raise UsageError("a revision is missing before the colon", help="write REV:PATH, like HEAD:specs/bert.yaml")
        try:
            found = self._run("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
        except _GitError as error:
            advice = "name a commit, a branch or a tag, as `git log REVISION` does; a shallow clone has few of them"
            message = f"there is no revision `{revision}` in {self.top}"
            raise UsageError(message, help=advice) from error
        return found.decode().strip()

    def has(self, commit: str, path: str) -> bool:
        """Whether a file of this path, from the root of the repository, is part of a commit."""
        try:
            return self._run("cat-file", "-t", f"{commit}:{path}").strip() == b"blob"
        except _GitError:
            return False

    def checkout(self, commit: str, directory: Path) -> None:
        """Write the commit's files as git stores them, and those that git does not know as links.

        Weights are often not in git; they are the same at every revision. `git checkout` would run the filters that the
        files of the commit ask for; here no filter runs, and files of Git LFS are links to where it keeps them.

        Args:
            commit: the full hash.
            directory: an empty one.

        Raises:
            StageError: git cannot give the files, or their names lead out of the directory.
        """
        try:
            self._write_files(commit, directory)
        except _GitError as error:
            raise StageError(f"git cannot check out {commit[:12]}", details=error.lines) from error
        # A project's root is known by it.
        (directory / ".git").mkdir()
        self._link_untracked(directory)

    def _write_files(self, commit: str, directory: Path) -> None:
        entries = []
        for line in self._run("ls-tree", "-r", "-z", "--full-tree", commit).split(b"\0"):
            if line:
                fields, _, path = line.partition(b"\t")
                mode, kind, sha = fields.decode("ascii").split(" ")
                # Submodules are commits of other repositories.
                if kind == "blob":
                    entries.append((mode, sha, path.decode(errors="surrogateescape")))
        asked = "".join(f"{sha}\n" for _, sha, _ in entries).encode()
        with _answers(f"--git-dir={self.git_dir}", "cat-file", "--batch", stdin=asked) as answers:
            for mode, sha, name in entries:
                found, _, size = answers.readline().decode("ascii").rpartition(" ")
                if found != f"{sha} blob":
                    raise StageError(f"git has no content for `{name}` of {commit[:12]}", help="`git fetch` gets it")
                self._write_file(_place(directory, name), mode, answers.read(int(size)))
                # A line break follows.
                answers.read(1)

    def _write_file(self, place: Path, mode: str, content: bytes) -> None:
        if mode == "120000":
            place.symlink_to(os.fsdecode(content))
        elif (stored := self._lfs_object(content)) is not None:
            place.symlink_to(stored)
        else:
            place.write_bytes(content)
            place.chmod(0o755 if mode == "100755" else 0o644)

    def _lfs_object(self, content: bytes) -> Path | None:
        """Where Git LFS keeps the file that a pointer stands for, where the file is there."""
        pointer = _LFS.match(content)
        if pointer is None:
            return None
        oid = pointer[1].decode("ascii")
        stored = self.git_dir / "lfs" / "objects" / oid[:2] / oid[2:4] / oid
        return stored if stored.is_file() else None

    def _link_untracked(self, directory: Path) -> None:
        listing = self._run(f"--work-tree={self.top}", "-C", str(self.top), "ls-files", "--others", "--directory", "-z")
        for name in listing.decode(errors="surrogateescape").split("\0"):
            place = directory / name
            # A file of the commit goes before one of the work tree; what would lie below one cannot.
            if name and not os.path.lexists(place):
                parents = [parent for parent in place.parents if parent.is_relative_to(directory)]
                if not any(parent.is_symlink() or (parent.exists() and not parent.is_dir()) for parent in parents):
                    place.parent.mkdir(parents=True, exist_ok=True)
                    place.symlink_to(self.top / name.rstrip("/"))

    def _run(self, *arguments: str) -> bytes:
        return _git(f"--git-dir={self.git_dir}", *arguments)


class _GitError(Exception):
    """git ended with an error; `lines` is what it said."""

    def __init__(self, lines: tuple[str, ...]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


def _place(directory: Path, name: str) -> Path:
    """Where a file of a commit is written; its parents are made.

    Raises:
        StageError: the name leads elsewhere: no git command makes such a commit, but other programs can.
    """
    steps = name.split("/")
    place = directory.joinpath(*steps)
    through = [parent for parent in place.parents if parent.is_relative_to(directory) and parent.is_symlink()]
    if any(step in ("", ".", "..") or step.lower() == ".git" for step in steps) or through or os.path.lexists(place):
        raise StageError(f"refused the file name `{name}` of the commit: it leads out of the work tree")
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


def _git(*arguments: str) -> bytes:
    try:
        done = subprocess.run(**_command(arguments), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    except FileNotFoundError as error:
        raise _missing() from error
    if done.returncode != 0:
        raise _GitError(tuple(done.stderr.decode(errors="replace").strip().splitlines()[-6:]))
    answer: bytes = done.stdout
    return answer


@contextlib.contextmanager
def _answers(*arguments: str, stdin: bytes) -> Iterator[IO[bytes]]:
    """What git answers to some input, as a stream."""
    with tempfile.TemporaryFile() as questions, room(temporary()):
        questions.write(stdin)
        questions.seek(0)
        try:
            process = subprocess.Popen(**_command(arguments), stdin=questions, stderr=subprocess.DEVNULL)
        except FileNotFoundError as error:
            raise _missing() from error
        with process:
            try:
                yield cast("IO[bytes]", process.stdout)
            finally:
                process.kill()


def _command(arguments: tuple[str, ...]) -> dict[str, Any]:
    """Arguments of subprocess for git, the user's, wherever it lies."""
    inherited = {name: value for name, value in os.environ.items() if name not in _PLACES}
    return {
        "args": ["git", *_NOTHING_RUNS, *arguments],
        "env": {**inherited, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_NO_LAZY_FETCH": "1"},
        "stdout": subprocess.PIPE,
    }


def _missing() -> UsageError:
    return UsageError("git is not installed", help="revisions are read with git; compare files instead")
