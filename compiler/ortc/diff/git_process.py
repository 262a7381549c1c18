"""git as a process: nothing that a repository configures runs, and no answer is waited for without end."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import subprocess
import tempfile
from collections.abc import Iterator
from typing import IO, Any, cast

from ortc.common.disk import room, temporary
from ortc.common.errors import StageError, UsageError

PATIENCE = 60.0
"""Seconds that git may be silent: it reads a configuration, or a listing of a work tree."""

_PLACES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX")
"""What git tells its hooks, relative to where they start; here the directory alone says which repository is meant."""
_NOTHING_RUNS = (
    "--no-pager",
    "--no-replace-objects",
    *("-c", "safe.bareRepository=explicit"),
    *("-c", f"core.hooksPath={os.devnull}"),
    *("-c", "core.fsmonitor=false"),
    *("-c", "protocol.allow=never"),
    # Larger contents are streamed, and not held in memory.
    *("-c", "core.bigFileThreshold=16m"),
)
"""Repositories name programs in their configuration. None of them runs, and a repository inside a checkout, which
anybody can commit, is not taken for the user's own."""
_MEMORY = 2**31
"""Bytes of memory that git may take for itself; files that it maps do not count."""
_CHUNK = 1 << 16
_LONGEST_LINE = 1 << 14


class GitError(Exception):
    """git ended with an error; `lines` is what it said."""

    def __init__(self, lines: tuple[str, ...]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


class Answers:
    """The standard output of a git process, read in parts."""

    def __init__(self, process: subprocess.Popen[bytes], purpose: str) -> None:
        self._descriptor = cast("IO[bytes]", process.stdout).fileno()
        self._purpose = purpose
        self._held = b""
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLIN)

    def until(self, end: bytes) -> bytes | None:
        """The bytes up to the next `end`, without it; None after the last one.

        Raises:
            StageError: git is silent for too long, or no `end` comes.
        """
        while end not in self._held:
            if len(self._held) > _LONGEST_LINE:
                raise StageError(f"git gave a name of more than {_LONGEST_LINE} bytes for {self._purpose}")
            more = self._more()
            if not more:
                return None
            self._held += more
        found, _, self._held = self._held.partition(end)
        return found

    def chunks(self, size: int) -> Iterator[bytes]:
        """The next `size` bytes, in parts.

        Raises:
            StageError: git is silent for too long, or ends before.
        """
        left = size
        while left > 0:
            chunk = self._held[:left] or self._more()
            if not chunk:
                raise StageError(f"git ended before it gave {self._purpose} whole", help="`git fsck` looks for damage")
            chunk, rest = chunk[:left], chunk[left:]
            self._held = self._held[len(chunk) :] if self._held else rest
            left -= len(chunk)
            yield chunk

    def _more(self) -> bytes:
        if not self._poll.poll(PATIENCE * 1000):
            raise _silent()
        return os.read(self._descriptor, _CHUNK)


def run(*arguments: str) -> bytes:
    """What git answers, whole: for answers of a line or two.

    Raises:
        GitError: git ended with an error.
        StageError: git is silent for too long.
        UsageError: git is not installed.
    """
    try:
        done = subprocess.run(
            **_command(arguments), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False, timeout=PATIENCE
        )
    except FileNotFoundError as error:
        raise _missing() from error
    except subprocess.TimeoutExpired as error:
        raise _silent() from error
    if done.returncode != 0:
        raise GitError(tuple(done.stderr.decode(errors="replace").strip().splitlines()[-6:]))
    answer: bytes = done.stdout
    return answer


@contextlib.contextmanager
def answers(*arguments: str, purpose: str, stdin: bytes = b"") -> Iterator[Answers]:
    """What git answers to some input, as a stream.

    Raises:
        GitError: git ended with an error after all was read.
        StageError: git does not end.
        UsageError: git is not installed.
    """
    with tempfile.TemporaryFile() as questions, tempfile.TemporaryFile() as said, room(temporary()):
        questions.write(stdin)
        questions.seek(0)
        try:
            process = subprocess.Popen(**_command(arguments), stdin=questions, stderr=said)
        except FileNotFoundError as error:
            raise _missing() from error
        with process:
            try:
                with contextlib.suppress(OSError, ValueError):
                    resource.prlimit(process.pid, resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
                yield Answers(process, purpose)
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired as error:
                raise _silent() from error
            finally:
                process.kill()
        if process.returncode != 0:
            said.seek(0)
            raise GitError(tuple(said.read(_LONGEST_LINE).decode(errors="replace").strip().splitlines()[-6:]))


def _command(arguments: tuple[str, ...]) -> dict[str, Any]:
    """Arguments of subprocess for git, the user's, wherever it is."""
    inherited = {name: value for name, value in os.environ.items() if name not in _PLACES}
    return {
        "args": ["git", *_NOTHING_RUNS, *arguments],
        "env": {**inherited, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_NO_LAZY_FETCH": "1"},
        "stdout": subprocess.PIPE,
    }


def _missing() -> UsageError:
    return UsageError("git is not installed", help="revisions are read with git; compare files instead")


def _silent() -> StageError:
    return StageError(
        f"git gave no answer for {PATIENCE:.0f} s",
        help="look for a pipe among the files of .git and those that its configuration includes",
    )
