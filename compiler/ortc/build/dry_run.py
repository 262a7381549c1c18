"""Foresee a build: the driver itself runs, and its actions are looked up instead of executed.

Because the same code computes the same keys, a prediction cannot disagree with the build that follows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from ortc.build.context import Context, opened
from ortc.build.cpu_check import is_checked
from ortc.build.environments import Environments
from ortc.build.model import ModelBuild, build_model, reference_action
from ortc.build.observation import samples_key_of
from ortc.build.runner import Done, Runner, T, UnknownResult, Work, nothing, pinned_files
from ortc.build.stage import Action, R, Stage
from ortc.build.stages import (
    BUNDLE,
    CALIBRATE,
    ENVIRONMENT,
    MEASURE,
    SHAPE_MATRIX,
    START,
    TEACHER_REFERENCE,
    VARIANT,
    VERIFY,
)
from ortc.build.target import search_target
from ortc.build.target_result import Shipment
from ortc.build.task_metric import metric_action
from ortc.build.workspace import Workspace
from ortc.common.errors import OrtcError
from ortc.common.values import Frozen
from ortc.execution.action_cache import Store
from ortc.execution.npm_package import package_place
from ortc.execution.runtime_environment import is_made
from ortc.plan.plan import Plan, TargetPlan
from ortc.spec.runtimes import NpmPackage, pins

State = Literal["cached", "cached (remote)", "will run"]


class Foreseen(Frozen):
    """One stage of a build to come."""

    stage: str
    subject: str
    state: State
    reason: str = ""


@dataclass
class Lookup(Runner):
    """Looks actions up, and tells those that will run from those that are cached.

    Attributes:
        name: of the plan, in the subjects of records.
        store: where entries may be, or in whose remote cache.
        foreseen: what was found, in order.
    """

    executes: ClassVar[bool] = False
    name: str
    store: Store
    foreseen: list[Foreseen] = field(default_factory=list, init=False)
    _seen: set[str] = field(default_factory=set, init=False)

    def run(self, action: Action[R], work: Work[R]) -> Done[R]:
        """The cached entry; or that the action will run, and why."""
        stage, entry = action.stage, self.store.foresee(action.stage.name, action.inputs)
        if entry is None:
            reason = self.store.records.why_missing(stage.name, action.inputs, f"{self.name}: {action.subject}")
            self.tell(stage.name, action.subject, "will run", reason)
            return Done(action)
        # Fetched by then: another target of the build needs the same.
        is_remote = entry.found == "remote" and entry.key not in self._seen
        self._seen.add(entry.key)
        self.tell(stage.name, action.subject, "cached (remote)" if is_remote else "cached")
        return Done(action, stage.read(entry.result), entry)

    def each(self, steps: Sequence[Callable[[], T]]) -> list[T]:
        """All steps, though the result of one is unknown."""
        found: list[T] = []
        unknown: UnknownResult | None = None
        for step in steps:
            try:
                found.append(step())
            except UnknownResult as error:
                unknown = unknown or error
        if unknown is not None:
            raise unknown
        return found

    def interpreter(self, pin_set: str, platforms: tuple[str, ...]) -> Path:
        """Where the interpreter is or will be."""
        requirements = pins(pin_set).requirements_txt(platforms)
        return self._environment(pin_set, *is_made(requirements, self.store.root / "environments"))

    def carried(self, package: NpmPackage) -> Path:
        """Where the files of an npm package are or will be."""
        return self._environment(package.name, *package_place(pinned_files(package), self.store.root / "environments"))

    def _environment(self, pin_set: str, place: Path, made: bool) -> Path:
        if not any(entry.stage == ENVIRONMENT and entry.subject == pin_set for entry in self.foreseen):
            self.tell(ENVIRONMENT, pin_set, "cached" if made else "will run", "" if made else "never made")
        return place

    def tell(self, stage: str, subject: str, state: State, reason: str = "") -> None:
        """Add a line to what is foreseen."""
        self.foreseen.append(Foreseen(stage=stage, subject=subject, state=state, reason=reason))

    def stop(self, subject: str, reason: str) -> None:
        """Add that the build will stop here."""
        self.tell("stop", subject, "cached", reason)

    def later(self, stage: Stage[Any], subject: str, unknown: str) -> None:
        """Add a stage whose inputs depend on a result that is unknown."""
        self.tell(stage.name, subject, "will run", f"after {unknown}")


def foresee(plan: Plan, root: Path, output: Path, store: Store) -> tuple[Foreseen, ...]:
    """What each stage of a build would do now, in order.

    Args: as those of `ortc.build.pipeline.build`.

    Raises:
        StageError: the model's files cannot be had.
    """
    lookup = Lookup(plan.name, store)
    with (
        tempfile.TemporaryDirectory(prefix="ortc-plan-") as work,
        opened(plan, Workspace.with_files(plan, root, store, Path(work)), lookup) as context,
    ):
        try:
            model = build_model(context)
        except UnknownResult as unknown:
            _after_the_model(context, lookup, unknown.stage)
        except OrtcError as error:
            # A cached failure: the build will stop at the same place.
            lookup.stop(plan.name, error.message)
        else:
            for target in context.plan.targets:
                _target(context, lookup, model, target, output)
        return tuple(lookup.foreseen)


def _target(context: Context, lookup: Lookup, model: ModelBuild, target: TargetPlan, output: Path) -> None:
    begun = len(lookup.foreseen)
    try:
        found = search_target(context, model, target)
    except UnknownResult as unknown:
        seen = {entry.stage for entry in lookup.foreseen[begun:]}
        for stage in _judging(target, is_runnable=Environments(context, target).runnable):
            if stage.name not in seen or unknown.stage == VARIANT.name:
                lookup.later(stage, target.name, unknown.stage)
        lookup.later(BUNDLE, target.name, unknown.stage)
        return
    if found.report.exit_code:
        lookup.stop(target.name, "a promise is known to be broken")
        return
    shipment = Shipment.of(found, context, model.material)
    place = output / context.plan.name / context.plan.version / target.name
    if shipment.is_published(place):
        lookup.tell(BUNDLE.name, target.name, "cached")
        return
    why = lookup.store.records.why_missing(BUNDLE.name, shipment.action.inputs, shipment.subject)
    lookup.tell(BUNDLE.name, target.name, "will run", why if place.exists() else "not there")


def _after_the_model(context: Context, lookup: Lookup, unknown: str) -> None:
    """All that comes after the export. What does not depend on it is looked up all the same."""
    plan = context.plan
    context.run(reference_action(context, samples_key_of(context)), nothing)
    if (metric := metric_action(context)) is not None:
        context.run_with_files(metric, nothing)
    if plan.model.teacher is not None:
        lookup.later(TEACHER_REFERENCE, plan.name, unknown)
    lookup.later(SHAPE_MATRIX, plan.name, unknown)
    for target in plan.targets:
        is_runnable = not target.requires_gpu or bool(context.host.gpus)
        # Of a target that cannot run here no more are made than it takes to find one that is right.
        for variant in target.variants if is_runnable else target.variants[:1]:
            if (how := variant.quantization) is not None and how.is_calibrated and is_runnable:
                lookup.later(CALIBRATE, f"{target.name}: {', '.join(how.calibrated_operators)}", unknown)
            lookup.later(VARIANT, f"{target.name}: {variant.name}", unknown)
        for stage in _judging(target, is_runnable=is_runnable):
            lookup.later(stage, target.name, unknown)
        lookup.later(BUNDLE, target.name, unknown)


def _judging(target: TargetPlan, *, is_runnable: bool) -> tuple[Stage[Any], ...]:
    """The stages that a target's variants are judged by: on a host that cannot run them, at most their numbers."""
    if is_runnable:
        return (VERIFY, MEASURE, START)
    return (VERIFY,) if target.variants and is_checked(target.variants[0]) else ()
