"""Where a build works: its cache and directories, and the files of the model and of those beside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ortc.build.runner import Done
from ortc.common.errors import StageError
from ortc.execution.action_cache import Store
from ortc.execution.files_opened import Recorder
from ortc.frontend.fetch import Fetched, fetch
from ortc.plan.plan import Plan
from ortc.spec.model_sources import models_beside


@dataclass(frozen=True)
class Workspace:
    """The places of one build.

    Attributes:
        root: what the spec's relative paths resolve against.
        store: finished actions, source files, runtime environments.
        work: a directory of this build alone.
        fetched: the model's files.
        beside: those of the models beside it, by their roles.
    """

    root: Path
    store: Store
    work: Path
    fetched: Fetched
    beside: dict[str, Fetched] = field(default_factory=dict)

    @classmethod
    def with_files(cls, plan: Plan, root: Path, store: Store, work: Path) -> Workspace:
        """Fetch the files of a plan's models into an empty work directory.

        Raises:
            StageError: a file cannot be had, or not with the declared digest.
        """
        (work / "source").mkdir()
        fetched = fetch(plan.model, root, store, work / "source")
        return cls(root, store, work, fetched, fetch_beside(plan, root, store, work))

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of the files."""
        return (*self.fetched.notes, *(note for fetched in self.beside.values() for note in fetched.notes))

    def recorder(self) -> Recorder:
        """Record what a function of the spec reads in this process, besides the model's files and the cache."""
        return Recorder(self.store.root, self.work, self.fetched.directory)

    def proven(self, done: Done[Any]) -> dict[str, Path]:
        """Where an action's files lie, after their content was compared with their digests.

        Raises:
            StageError: the cache was damaged.
        """
        return self.store.proven(done.kept)


def fetch_beside(plan: Plan, root: Path, store: Store, work: Path) -> dict[str, Fetched]:
    """Put the files of the models beside the plan's own into directories of `work` that are called by their roles.

    Raises:
        StageError: a file cannot be had, or not with the declared digest.
    """
    found = {}
    for role, source in models_beside(plan.model).items():
        (work / role).mkdir()
        with about(role):
            found[role] = fetch(source, root, store, work / role)
    return found


_ALIKE = {
    "teacher": "student and teacher take the same inputs (`export.inputs`); outputs that both give are named in "
    "`model.teacher.outputs`",
    "reference": "the reference takes the file's inputs, by name or in order",
}
"""What two models have in common, by the role of the one beside."""


@contextmanager
def about(role: str) -> Iterator[None]:
    """Say of an error that it is about a model beside the one that ships, which is loaded like any other model."""
    try:
        yield
    except StageError as error:
        error.message = f"the {role} (`model.{role}`): {error.message}"
        error.help = _ALIKE[role] + (f"; {error.help}" if error.help else "")
        raise
