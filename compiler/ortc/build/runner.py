"""Runners take the actions of a build one after the other: to execute them, to look them up, or to record them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from ortc.build.stage import Action, R
from ortc.common.values import Frozen
from ortc.execution.action_cache import Entry, Store
from ortc.execution.files_opened import latest
from ortc.execution.npm_package import PinnedFiles
from ortc.spec.runtimes import NpmPackage

T = TypeVar("T")
Work = Callable[[Path], R]
"""Writes an action's files into the empty directory that it gets, and returns the result."""


class UnknownResult(Exception):  # noqa: N818  # no failure: a dry run or a comparison ends here
    """The driver asks for a result that its runner does not know; `stage` is the name of the action's stage."""

    def __init__(self, stage: str) -> None:
        super().__init__(stage)
        self.stage = stage


class RemoteResult(Frozen):
    """A result that a remote cache gave: `uri` names the record without its place, `record_sha256` is its digest."""

    stage: str
    subject: str
    key: str
    uri: str
    record_sha256: str


@dataclass(frozen=True)
class Done(Generic[R]):
    """What a runner knows of an action: its result and its entry in the cache, or neither.

    As long as nobody asks for an unknown result, the driver goes on to the actions that do not depend on it.
    """

    action: Action[R]
    known: R | None = None
    entry: Entry | None = None

    @property
    def key(self) -> str:
        """What the result is found by; keys of later actions hold it."""
        return self.action.key

    @property
    def result(self) -> R:
        """The result.

        Raises:
            UnknownResult: the runner does not know it.
        """
        if self.known is None:
            raise UnknownResult(self.action.stage.name)
        return self.known

    @property
    def kept(self) -> Entry:
        """The entry in the cache, with the action's files.

        Raises:
            UnknownResult: the runner has none.
        """
        if self.entry is None:
            raise UnknownResult(self.action.stage.name)
        return self.entry

    @property
    def files(self) -> Mapping[str, Path]:
        """Where the content of each file lies; empty where the runner has none."""
        return {} if self.entry is None else self.entry.files


@dataclass
class Runner(ABC):
    """Takes a build's actions.

    Attributes:
        executes: whether anything is done: work, functions of the spec, runtime environments.
        from_remote: results that a remote cache gave, now or in an earlier build, by key.
    """

    executes: ClassVar[bool]
    from_remote: dict[str, RemoteResult] = field(default_factory=dict, init=False)

    @abstractmethod
    def run(self, action: Action[R], work: Work[R]) -> Done[R]:
        """Take an action; `work` is what it does where neither cache has it."""

    @abstractmethod
    def each(self, steps: Sequence[Callable[[], T]]) -> list[T]:
        """Take steps that do not depend on each other."""

    @abstractmethod
    def interpreter(self, pin_set: str, platforms: tuple[str, ...]) -> Path:
        """The interpreter of a pinned runtime environment on this host.

        Raises:
            StageError: it cannot be made.
        """

    @abstractmethod
    def carried(self, package: NpmPackage) -> Path:
        """The directory of the files of a pinned npm package.

        Raises:
            StageError: they cannot be fetched.
        """


def latest_action(store: Store, action: Action[R], root: Path) -> tuple[Action[R], Entry | None]:
    """The action with the state of the files that its function reads, and its entry if that still holds.

    See `ortc.execution.files_opened.latest`.
    """
    inputs, entry = latest(store, action.stage.name, action.inputs, root)
    return replace(action, inputs=inputs), entry


def pinned_files(package: NpmPackage) -> PinnedFiles:
    """What is fetched of a pinned npm package."""
    digests = {file.path: file.sha256 for file in package.files}
    return PinnedFiles(package.name, package.version, package.integrity, digests)


def nothing(_: Path) -> Any:
    """The work of an action that is only looked up."""
    raise AssertionError("an action that is only looked up has been executed")
