"""Where a build works: its cache and directories, and the files of the model and its teacher."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ortc.build.runner import Done
from ortc.common.errors import StageError
from ortc.execution.action_cache import Store
from ortc.execution.files_opened import Recorder
from ortc.frontend.fetch import Fetched, fetch
from ortc.plan.plan import Plan


@dataclass(frozen=True)
class Workspace:
    """The places of one build.

    Attributes:
        root: what the spec's relative paths resolve against.
        store: finished actions, source files, runtime environments.
        work: a directory of this build alone.
        fetched: the model's files.
        teacher: those of the teacher, None without one.
    """

    root: Path
    store: Store
    work: Path
    fetched: Fetched
    teacher: Fetched | None = None

    @classmethod
    def with_files(cls, plan: Plan, root: Path, store: Store, work: Path) -> Workspace:
        """Fetch the files of a plan's model and teacher into an empty work directory.

        Raises:
            StageError: a file cannot be had, or not with the declared digest.
        """
        (work / "source").mkdir()
        fetched = fetch(plan.model, root, store, work / "source")
        return cls(root, store, work, fetched, fetch_teacher(plan, root, store, work))

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of the files."""
        return (*self.fetched.notes, *(() if self.teacher is None else self.teacher.notes))

    def recorder(self) -> Recorder:
        """Record what a function of the spec reads in this process, besides the model's files and the cache."""
        return Recorder(self.store.root, self.work, self.fetched.directory)

    def proven(self, done: Done[Any]) -> dict[str, Path]:
        """Where an action's files lie, after their content was compared with their digests.

        Raises:
            StageError: the cache was damaged.
        """
        return self.store.proven(done.kept)


def fetch_teacher(plan: Plan, root: Path, store: Store, work: Path) -> Fetched | None:
    """Put the files of the plan's teacher into `work`/teacher; None where there is none.

    Raises:
        StageError: a file cannot be had, or not with the declared digest.
    """
    if plan.model.teacher is None:
        return None
    (work / "teacher").mkdir()
    with about_the_teacher():
        return fetch(plan.model.teacher.model, root, store, work / "teacher")


@contextmanager
def about_the_teacher() -> Iterator[None]:
    """Say of an error that it is about the teacher, which is loaded like any other model."""
    try:
        yield
    except StageError as error:
        error.message = f"the teacher (`model.teacher`): {error.message}"
        error.help = (
            "student and teacher take the same inputs (`export.inputs`); outputs that both give are named in "
            "`model.teacher.outputs`" + (f"; {error.help}" if error.help else "")
        )
        raise
