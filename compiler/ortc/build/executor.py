"""Execute the actions of a build: each is done once, and found in a cache from then on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from ortc.build.progress import Progress
from ortc.build.runner import Done, RemoteResult, Runner, T, Work, pinned_files
from ortc.build.stage import Action, R
from ortc.build.stages import ENVIRONMENT
from ortc.execution.action_cache import Entry, Store
from ortc.execution.host_gate import computing
from ortc.execution.npm_package import package_files
from ortc.execution.runtime_environment import environment
from ortc.execution.worker_pool import at_once
from ortc.spec.runtimes import NpmPackage, pins


@dataclass
class Executor(Runner):
    """Does what neither cache has, and tells of every stage.

    Attributes:
        name: of the plan, in the subjects of records.
        store: finished actions, runtime environments.
        progress: told of every stage.
        remeasured: names of stages that are done again in spite of the cache, each action once.
    """

    executes: ClassVar[bool] = True
    name: str
    store: Store
    progress: Progress
    remeasured: frozenset[str] = frozenset()
    _measured: dict[str, Entry] = field(default_factory=dict, init=False)
    """Results of this build that are not taken from the cache again: of those stages, and of a busy machine."""

    def run(self, action: Action[R], work: Work[R]) -> Done[R]:
        """Execute an action, with progress.

        A result that the stage does not take as final holds for this build alone.
        """
        stage, key = action.stage, action.key
        with self.progress.step(stage.name, action.subject) as step:
            entry = self._measured.get(key)
            if entry is not None:
                step.cached = True
                return Done(action, stage.read(entry.result), entry)
            entry = self._stored(action, work)
            result = stage.read(entry.result)
            step.cached, step.remote = entry.cached, entry.found == "remote"
            step.noisy = stage.is_final is not None and not stage.is_final(result)
            if step.noisy or stage.name in self.remeasured:
                self._measured[key] = entry
            return Done(action, result, entry)

    def _stored(self, action: Action[R], work: Work[R]) -> Entry:
        stage, subject = action.stage, f"{self.name}: {action.subject}"

        def do(directory: Path) -> dict[str, Any]:
            with computing():
                return work(directory).model_dump(mode="json")

        def is_final(result: dict[str, Any]) -> bool:
            return stage.is_final is None or stage.is_final(stage.read(result))

        again = stage.name in self.remeasured
        try:
            entry = self.store.run(stage.name, action.inputs, do, subject, is_final=is_final, again=again)
        finally:
            for warning in self.store.warnings():
                self.progress.note(warning)
        if entry.origin is not None:
            self.from_remote[entry.key] = RemoteResult(
                stage=stage.name,
                subject=subject,
                key=entry.key,
                uri=entry.origin,
                record_sha256=self.store.records.sha256(entry.key),
            )
        return entry

    def each(self, steps: Sequence[Callable[[], T]]) -> list[T]:
        """Do steps, two at a time."""
        return at_once(steps)

    def interpreter(self, pin_set: str, platforms: tuple[str, ...]) -> Path:
        """Make a runtime environment that is not there yet."""
        with self.progress.step(ENVIRONMENT, pin_set) as step:
            made: list[bool] = []
            requirements = pins(pin_set).requirements_txt(platforms)
            with computing():
                path = environment(requirements, self.store.root / "environments", on_make=lambda: made.append(True))
            step.cached = not made
        return path

    def carried(self, package: NpmPackage) -> Path:
        """Fetch an npm package that is not there yet."""
        with self.progress.step(ENVIRONMENT, package.name) as step:
            made: list[bool] = []
            place = self.store.root / "environments"
            path = package_files(pinned_files(package), place, on_make=lambda: made.append(True))
            step.cached = not made
        return path
