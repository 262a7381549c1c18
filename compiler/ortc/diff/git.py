"""A git repository at a revision, in a directory of its own; neither work tree nor index nor branches are touched."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from ortc.errors import StageError, UsageError

_PLACES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX")
"""What git tells its hooks, relative to where they start; here the directory alone says which repository is meant."""


@dataclass(frozen=True)
class Repository:
    """A repository; `top` is the root of its work tree, None for a bare one."""

    git_dir: Path
    top: Path | None
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
            return cls(Path(git_dir), None, "")
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
            message = f"there is no revision `{revision}` in {self.top or self.git_dir}"
            raise UsageError(message, help=advice) from error
        return found.decode().strip()

    def has(self, commit: str, path: str) -> bool:
        """Whether a file of this path, from the root of the repository, is part of a commit."""
        try:
            return self._run("cat-file", "-t", f"{commit}:{path}").strip() == b"blob"
        except _GitError:
            return False

    def checkout(self, commit: str, directory: Path) -> None:
        """Write what `git checkout` would leave: the commit's files, and those that git does not know, as links.

        Weights are often not in git; they are the same at every revision.

        Args:
            commit: the full hash.
            directory: an empty one.

        Raises:
            StageError: git cannot write the files.
        """
        index = directory.with_name(f"{directory.name}.index")
        tree = {"GIT_INDEX_FILE": str(index), "GIT_WORK_TREE": str(directory)}
        try:
            self._run("read-tree", commit, environment=tree)
            self._run("checkout-index", "--all", "--quiet", cwd=directory, environment=tree)
        except _GitError as error:
            raise StageError(f"git cannot check out {commit[:12]}", details=error.lines) from error
        finally:
            index.unlink(missing_ok=True)
        # A project's root is known by it.
        (directory / ".git").mkdir()
        if self.top is not None:
            self._link_untracked(self.top, directory)

    def _link_untracked(self, top: Path, directory: Path) -> None:
        listing = self._run("-C", str(top), "ls-files", "--others", "--directory", "-z")
        for name in listing.decode(errors="surrogateescape").split("\0"):
            place = directory / name
            # A file of the commit goes before one of the work tree; what would lie below one cannot.
            if name and not os.path.lexists(place):
                parents = [parent for parent in place.parents if parent.is_relative_to(directory)]
                if not any(parent.is_symlink() or (parent.exists() and not parent.is_dir()) for parent in parents):
                    place.parent.mkdir(parents=True, exist_ok=True)
                    place.symlink_to(top / name.rstrip("/"))

    def _run(self, *arguments: str, cwd: Path | None = None, environment: dict[str, str] | None = None) -> bytes:
        return _git(f"--git-dir={self.git_dir}", *arguments, cwd=cwd, environment=environment)


class _GitError(Exception):
    """git ended with an error; `lines` is what it said."""

    def __init__(self, lines: tuple[str, ...]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


def _git(*arguments: str, cwd: Path | None = None, environment: dict[str, str] | None = None) -> bytes:
    inherited = {name: value for name, value in os.environ.items() if name not in _PLACES}
    try:
        done = subprocess.run(
            ["git", *arguments],  # noqa: S607  # the user's git, wherever it lies
            cwd=cwd,
            env={**inherited, "LC_ALL": "C", **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise UsageError("git is not installed", help="revisions are read with git; compare files instead") from error
    if done.returncode != 0:
        raise _GitError(tuple(done.stderr.decode(errors="replace").strip().splitlines()[-6:]))
    return done.stdout
