"""Which stages a change makes anew: the build's own driver computes the keys of both sides, and does no work.

Every stage is taken to succeed, with results that are the same on both sides. A key then differs exactly where
something differs that goes into it, or into a stage before it. What comes after the first race of a target depends on
who wins: it is told as one stage of each kind, which is done again where the race is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from ortc.build.context import Context, opened
from ortc.build.model import ModelBuild, build_model
from ortc.build.runner import Done, Runner, T, UnknownResult, Work, pinned_files
from ortc.build.stage import Action, R
from ortc.build.stages import BUNDLE, ENVIRONMENT, START, VARIANT, VERIFY
from ortc.build.target import search_target
from ortc.build.target_result import Shipment, TargetBuild
from ortc.build.workspace import Workspace
from ortc.common.values import Frozen, digest
from ortc.diff.report import StageChange
from ortc.diff.values import changes
from ortc.evaluation.report import TargetReport
from ortc.execution.action_cache import Store
from ortc.execution.npm_package import package_place
from ortc.execution.runtime_environment import is_made
from ortc.frontend.fetch import Fetched, FetchedFile, fetch
from ortc.frontend.samples.sources import samples_digest
from ortc.inspection.entrypoint import entrypoint_digest
from ortc.inspection.hub_files import WEIGHT_SUFFIXES
from ortc.plan.plan import Plan, SourcePlan, TargetPlan
from ortc.spec.accuracy import SamplesFunction
from ortc.spec.model_sources import HuggingFaceSource, PyTorchSource, models_beside
from ortc.spec.runtimes import NpmPackage, pins

_SHORT = 24
_DIGEST = re.compile(r"[0-9a-f]{64}")
"""Longest value that a reason shows; longer ones are digests."""


class Recorded(Frozen):
    """A stage of a build, and everything that goes into it."""

    target: str | None
    stage: str
    subject: str
    inputs: dict[str, Any]


@dataclass
class ActionRecorder(Runner):
    """Keeps what goes into each action, and takes it to have succeeded.

    Attributes:
        name: of the plan.
        environments: where runtime environments would be.
        recorded: the actions, in order.
        target: the name of the target whose part is built; None in the model's part.
    """

    executes: ClassVar[bool] = False
    name: str
    environments: Path
    recorded: list[Recorded] = field(default_factory=list, init=False)
    target: str | None = field(default=None, init=False)

    def run(self, action: Action[R], work: Work[R]) -> Done[R]:
        """Keep what goes into the action; its result is the one that its stage assumes, or unknown."""
        stage = action.stage
        # A result that nobody has would tell how many cases or texts there are.
        self.record(stage.name, self.name if stage.counts_results else action.subject, action.inputs)
        return Done(action, None if stage.assume is None else stage.assume(action))

    def each(self, steps: Sequence[Callable[[], T]]) -> list[T]:
        """One after the other: what is recorded has an order."""
        return [step() for step in steps]

    def interpreter(self, pin_set: str, platforms: tuple[str, ...]) -> Path:
        """Where the interpreter would be; the packages it holds are part of the keys."""
        requirements = pins(pin_set).requirements_txt(platforms)
        self._environment(pin_set, requirements)
        return is_made(requirements, self.environments)[0]

    def carried(self, package: NpmPackage) -> Path:
        """Where the files of an npm package would be; their digests are part of the keys."""
        pinned = pinned_files(package)
        self._environment(package.name, [*pinned[:3], dict(pinned.files)])
        return package_place(pinned, self.environments)[0]

    def _environment(self, pin_set: str, packages: object) -> None:
        found = self._of(ENVIRONMENT, pin_set, {"packages": digest(packages)})
        if found not in self.recorded:
            self.recorded.append(found)

    def record(self, stage: str, subject: str, inputs: dict[str, Any]) -> None:
        """Keep what goes into a stage of the target's part, or of the model's."""
        self.recorded.append(self._of(stage, subject, inputs))

    def _of(self, stage: str, subject: str, inputs: dict[str, Any]) -> Recorded:
        return Recorded(target=self.target, stage=stage, subject=subject, inputs=inputs)


@dataclass(frozen=True)
class Outlook:
    """A build as it would go: its stages, and digests of what the plan names and does not hold."""

    stages: tuple[Recorded, ...]
    ingredients: dict[str, dict[str, str]]


def foresee(plan: Plan, root: Path, work: Path) -> Outlook:
    """Every stage of a build, with its inputs.

    Args:
        plan: what would be built.
        root: what the spec's relative paths resolve against.
        work: an empty directory.

    Raises:
        StageError: something that goes into a stage cannot be found.
    """
    fetched = declared_files(plan.model, root, work)
    beside = {}
    for role, source in models_beside(plan.model).items():
        (work / role).mkdir()
        beside[role] = declared_files(source, root, work / role)
    recorder = ActionRecorder(plan.name, work)
    with opened(plan, Workspace(root, Store(work), work, fetched, beside), recorder) as context:
        model = build_model(context)
        for target in context.plan.targets:
            recorder.target = target.name
            _target(context, recorder, model, target)
        return Outlook(tuple(recorder.recorded), _ingredients(plan, root, fetched, beside))


def _target(context: Context, recorder: ActionRecorder, model: ModelBuild, target: TargetPlan) -> None:
    begun = len(recorder.recorded)
    try:
        built = search_target(context, model, target)
    except UnknownResult:
        # A race: what comes after it depends on who wins.
        of = recorder.recorded[begun:]
        race = {"race": of[-1].inputs}
        if not any(entry.stage == VERIFY.name and entry.inputs["only"] is None for entry in of):
            variants = [entry.inputs for entry in of if entry.stage == VARIANT.name]
            metric = None if model.metric is None else model.metric.code
            inputs = {"variants": variants, "model": model.key, "metric": metric}
            recorder.record(VERIFY.name, f"{target.name}: the best", inputs)
        recorder.record(START.name, f"{target.name}: the best", race)
        report = TargetReport(target=target.name, status="published")
        built = TargetBuild(plan=target, report=report, winner=None, race=None, interpreter=None)
    # No stage had results: what goes into them stands for the report.
    results = {entry.stage: digest(entry.inputs) for entry in recorder.recorded[begun:]}
    shipment = Shipment.of(built, context, model.material)
    recorder.record(BUNDLE.name, target.name, {**shipment.action.inputs, "report": results})


def declared_files(source: SourcePlan, root: Path, work: Path) -> Fetched:
    """A model's files by their digests, without getting any: of a hub's model those that the spec declares.

    Raises:
        StageError: a file of the project is not there, or not the declared one.
    """
    if isinstance(source, HuggingFaceSource) and source.path is None:
        taken = source.weights == "pretrained"
        files = tuple(
            FetchedFile(name=name, sha256=sha256, origin="declared")
            for name, sha256 in source.files.items()
            if taken or not name.endswith(WEIGHT_SUFFIXES)
        )
        return Fetched(directory=work, files=files)
    return fetch(source, root, Store(work), work)


def _ingredients(plan: Plan, root: Path, fetched: Fetched, beside: dict[str, Fetched]) -> dict[str, dict[str, str]]:
    metric, samples = plan.accuracy.metric, plan.accuracy.samples
    code = [metric.entrypoint] if metric is not None else []
    sources = (plan.model, *models_beside(plan.model).values())
    code += [source.entrypoint for source in sources if isinstance(source, PyTorchSource)]
    return {
        "model": fetched.digests(),
        **{role: files.digests() for role, files in beside.items()},
        "samples": {} if samples is None else {_name(samples): samples_digest(samples, root)},
        "code": {entrypoint: entrypoint_digest(entrypoint, root) for entrypoint in code},
    }


def _name(samples: str | SamplesFunction) -> str:
    return samples if isinstance(samples, str) else samples.entrypoint


def compare_stages(before: tuple[Recorded, ...], after: tuple[Recorded, ...]) -> tuple[StageChange, ...]:
    """Each stage of the second build: done again, or served by what the first one left."""
    done = {(entry.stage, digest(entry.inputs)) for entry in before}
    return tuple(
        StageChange(
            target=entry.target,
            stage=entry.stage,
            subject=entry.subject,
            anew=anew,
            because=_reasons(_earlier(entry, before), entry.inputs) if anew else (),
        )
        for entry in after
        for anew in [(entry.stage, digest(entry.inputs)) not in done]
    )


def _earlier(entry: Recorded, before: tuple[Recorded, ...]) -> dict[str, Any] | None:
    """What went into the same stage before, or into the only one of its kind."""
    alike = [other for other in before if (other.target, other.stage) == (entry.target, entry.stage)]
    same = [other for other in alike if other.subject == entry.subject]
    return same[0].inputs if same else alike[0].inputs if len(alike) == 1 else None


def _reasons(before: dict[str, Any] | None, after: dict[str, Any]) -> tuple[str, ...]:
    """Which inputs differ; with their values where those are short."""
    if before is None:
        return ("new",)
    reasons = []
    for change in changes(before, after):
        values = (change.before, change.after)
        short = all(not isinstance(value, dict | list) and len(str(value)) < _SHORT for value in values)
        # Samples and files are keys by their digests.
        name = _DIGEST.sub(lambda found: f"{found[0][:12]}…", change.dotted)
        reasons.append(f"{name} {values[0]} -> {values[1]}" if short else name)
    return tuple(reasons)
