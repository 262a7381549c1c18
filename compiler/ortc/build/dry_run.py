"""Foresee a build: the driver itself runs, and instead of doing what is missing, it is told apart from what is cached.

Because the same code computes the same keys, a prediction cannot disagree with the build that follows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

from ortc.build.context import Context, T
from ortc.build.cpu_check import is_checked
from ortc.build.distillation import fetch_teacher
from ortc.build.model import ModelBuild, build_model, reference_inputs
from ortc.build.observation import samples_key_of
from ortc.build.pipeline import bundle_subject, is_published
from ortc.build.progress import Progress
from ortc.build.target import TargetBuilder
from ortc.common.errors import OrtcError
from ortc.common.values import Frozen
from ortc.execution.action_cache import Entry, Store
from ortc.execution.host import describe
from ortc.execution.runtime_environment import is_made
from ortc.frontend.fetch import Fetched, fetch
from ortc.plan.plan import Plan, TargetPlan
from ortc.spec.model_sources import PyTorchSource
from ortc.spec.runtimes import pins

_FORESEEABLE = ("reference", "teacher", "metric", "shape matrix", "calibrate")
"""Stages whose result the keys of later stages do not need."""


class Foreseen(Frozen):
    """One stage of a build to come."""

    stage: str
    subject: str
    state: Literal["cached", "cached (remote)", "will run"]
    reason: str = ""


class _Missing(Exception):  # noqa: N818  # control flow: what comes after cannot be foreseen in detail
    """A stage whose result is needed to know more has not been done."""


class _Foreseeing(Context):
    """A context that does nothing; it looks."""

    foreseen: list[Foreseen]
    seen: set[str]

    def run(
        self,
        stage: str,
        subject: str,
        inputs: dict[str, Any],
        action: Any,
        is_final: Callable[[dict[str, Any]], bool] | None = None,
    ) -> Entry:
        """The cached entry, or a note that the stage will run."""
        if (entry := self.store.foresee(stage, inputs)) is not None:
            state: Literal["cached", "cached (remote)"] = "cached (remote)" if entry.found == "remote" else "cached"
            if entry.key in self.seen:
                state = "cached"  # fetched by then: another target of the build needs the same
            self.seen.add(entry.key)
            self.foreseen.append(Foreseen(stage=stage, subject=subject, state=state))
            return entry
        reason = self.store.records.why_missing(stage, inputs, f"{self.plan.name}: {subject}")
        self.foreseen.append(Foreseen(stage=stage, subject=subject, state="will run", reason=reason))
        if stage in _FORESEEABLE:
            return Entry(key="", result={}, found="nowhere", pending=True)
        raise _Missing(stage)

    def observe(self, source: PyTorchSource, fetched: Fetched) -> None:
        """Nothing: a dry run runs nothing of the user's."""

    def each(self, steps: Sequence[Callable[[], T]]) -> list[T]:
        """All steps, though one's result is missing."""
        found, missing = [], None
        for step in steps:
            try:
                found.append(step())
            except _Missing as error:
                missing = missing or error
        if missing is not None:
            raise missing
        return found

    def interpreter(self, pin_set: str, platforms: tuple[str, ...]) -> Path:
        """Where the interpreter is or will be."""
        requirements = pins(pin_set).requirements_txt(platforms)
        place, made = is_made(requirements, self.store.root / "environments")
        if not any(entry.stage == "environment" and entry.subject == pin_set for entry in self.foreseen):
            state: Literal["cached", "will run"] = "cached" if made else "will run"
            reason = "" if made else "never made"
            self.foreseen.append(Foreseen(stage="environment", subject=pin_set, state=state, reason=reason))
        return place


def foresee(plan: Plan, root: Path, output: Path, store: Store) -> tuple[Foreseen, ...]:
    """What each stage of a build would do now, in order.

    Args: as those of `ortc.build.pipeline.build`.

    Raises:
        StageError: the model's files cannot be had.
    """
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ortc-plan-")))
        (work / "source").mkdir()
        fetched = fetch(plan.model, root, store, work / "source")
        teacher = fetch_teacher(plan, root, store, work)
        context = _Foreseeing(plan, root, store, describe(), Progress(), work, stack, fetched, teacher=teacher)
        context.foreseen = []
        context.seen = set()
        try:
            model = build_model(context)
        except _Missing as missing:
            _downstream(context, str(missing))
            return tuple(context.foreseen)
        except OrtcError as error:
            # A cached failure: the build will stop at the same place.
            context.foreseen.append(Foreseen(stage="stop", subject=plan.name, state="cached", reason=error.message))
            return tuple(context.foreseen)
        for target in context.plan.targets:
            _target(context, model, target, output)
        return tuple(context.foreseen)


def _target(context: _Foreseeing, model: ModelBuild, target: TargetPlan, output: Path) -> None:
    builder = TargetBuilder(context, model, target)
    begun = len(context.foreseen)
    try:
        found = builder.build()
    except _Missing as missing:
        stages = [entry.stage for entry in context.foreseen[begun:]]
        for stage in _judging(target, builder.builder.runnable):
            if stage not in stages or str(missing) == "variant":
                _later(context, stage, target.name, str(missing))
        _later(context, "bundle", target.name, str(missing))
        return
    if found.report.exit_code:
        context.foreseen.append(
            Foreseen(stage="stop", subject=target.name, state="cached", reason="a promise is known to be broken")
        )
        return
    base = output / context.plan.name / context.plan.version
    if is_published(context, found, model.material, base):
        context.foreseen.append(Foreseen(stage="bundle", subject=target.name, state="cached"))
        return
    key, subject = found.key(context, model.material), bundle_subject(context, found)
    reason = context.store.records.why_missing("bundle", key, subject)
    if not (base / target.name).exists():
        reason = "not there"
    context.foreseen.append(Foreseen(stage="bundle", subject=target.name, state="will run", reason=reason))


def _downstream(context: _Foreseeing, missing: str) -> None:
    """All that comes after the export. What does not depend on it is looked up all the same."""
    plan = context.plan
    inputs = reference_inputs(context, samples_key_of(context))
    context.run("reference", f"{len(plan.cases)} shapes", inputs, None)
    if (metric := plan.accuracy.metric) is not None and context.has_reference:
        context.run_recorded("metric", metric.entrypoint, context.metric_inputs(metric), None)
    if plan.model.teacher is not None:
        _later(context, "teacher", plan.name, missing)
    _later(context, "shape matrix", plan.name, missing)
    for target in context.plan.targets:
        runnable = not target.requires_gpu or bool(context.host.gpus)
        # Of a target that cannot run here no more are made than it takes to find one that is right.
        for variant in target.variants if runnable else target.variants[:1]:
            if (how := variant.quantization) is not None and how.is_calibrated and runnable:
                _later(context, "calibrate", f"{target.name}: {', '.join(how.operators)}", missing)
            _later(context, "variant", f"{target.name}: {variant.name}", missing)
        for stage in _judging(target, runnable):
            _later(context, stage, target.name, missing)
        _later(context, "bundle", target.name, missing)


def _judging(target: TargetPlan, runnable: bool) -> tuple[str, ...]:
    """The stages that a target's variants are judged by: on a host that cannot run them, at most their numbers."""
    if runnable:
        return ("verify", "measure", "start")
    return ("verify",) if target.variants and is_checked(target.variants[0]) else ()


def _later(context: _Foreseeing, stage: str, subject: str, missing: str) -> None:
    context.foreseen.append(Foreseen(stage=stage, subject=subject, state="will run", reason=f"after {missing}"))
