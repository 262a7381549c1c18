"""A git repository at a revision, in a directory of its own; neither work tree nor index nor branches are touched."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ortc.common.disk import is_full
from ortc.common.errors import StageError, UsageError
from ortc.diff.commit_files import MOST_ENTRIES, CommitFiles
from ortc.diff.git_process import GitError, answers, run


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
            answer = run("-C", str(directory), "rev-parse", "--absolute-git-dir", "--is-inside-work-tree")
        except GitError as error:
            message = f"git finds no repository around {directory.resolve()}"
            raise UsageError(message, details=error.lines, help="a revision needs the repository it is of") from error
        git_dir, _, inside = answer.decode(errors="surrogateescape").removesuffix("\n").rpartition("\n")
        if inside != "true":
            raise UsageError(
                f"{git_dir} is a repository without a work tree",
                help="clone it: anybody can commit such a directory, so ortc does not follow its configuration",
            )
        # On its own, without the line break: paths may hold any character but a null byte.
        top = run("-C", str(directory), "rev-parse", "--show-toplevel").decode(errors="surrogateescape")
        here = run("-C", str(directory), "rev-parse", "--show-prefix").decode(errors="surrogateescape")
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
        except GitError as error:
            advice = "name a commit, a branch or a tag, as `git log REVISION` does; a shallow clone has few of them"
            message = f"there is no revision `{revision}` in {self.top}"
            raise UsageError(message, help=advice) from error
        return found.decode().strip()

    def has(self, commit: str, path: str) -> bool:
        """Whether a file of this path, from the root of the repository, is part of a commit."""
        try:
            return self._run("cat-file", "-t", f"{commit}:{path}").strip() == b"blob"
        except GitError:
            return False

    def checkout(self, commit: str, directory: Path) -> None:
        """Write the commit's files as git stores them, and those that git does not know as links.

        Weights are often not in git; they are the same at every revision. `git checkout` would run the filters that the
        files of the commit ask for; here no filter runs, and files of Git LFS are links to where it keeps them.

        Args:
            commit: the full hash.
            directory: an empty one.

        Raises:
            StageError: git cannot give the files, they are too many or too large, or a name leads out of the directory.
        """
        try:
            CommitFiles(self.git_dir, commit).write(directory)
            # A project's root is known by it.
            (directory / ".git").mkdir()
            self._link_untracked(directory)
        except GitError as error:
            raise StageError(f"git cannot check out {commit[:12]}", details=error.lines) from error
        except OSError as error:
            if is_full(error):
                raise
            raise StageError(f"{commit[:12]} cannot be written to {directory}: {error.strerror or error}") from error

    def _link_untracked(self, directory: Path) -> None:
        arguments = (f"--git-dir={self.git_dir}", f"--work-tree={self.top}", "-C", str(self.top))
        listed = ("ls-files", "--others", "--directory", "-z")
        count = 0
        with answers(*arguments, *listed, purpose="the files that it does not know") as listing:
            while (name := listing.until(b"\0")) is not None:
                count += 1
                if count > MOST_ENTRIES:
                    raise StageError(
                        f"{self.top} has more than {MOST_ENTRIES:,} files that git does not know",
                        help="compare in a clone, with the files that the spec names beside it",
                    )
                self._link(directory, os.fsdecode(name))

    def _link(self, directory: Path, name: str) -> None:
        """Link a file of the work tree; one of the commit goes before it, and nothing can be below one of those."""
        place = directory / name
        if os.path.lexists(place):
            return
        parents = [parent for parent in place.parents if parent.is_relative_to(directory)]
        if not any(parent.is_symlink() or (parent.exists() and not parent.is_dir()) for parent in parents):
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(self.top / name.rstrip("/"))

    def _run(self, *arguments: str) -> bytes:
        return run(f"--git-dir={self.git_dir}", *arguments)
