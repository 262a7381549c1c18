"""Which stages a change makes anew: the build's own driver computes the keys of both sides, and does no work.

Every stage is taken to succeed, with results that are the same on both sides. A key then differs exactly where
something differs that goes into it, or into a stage before it. What comes after the first race of a target depends on
who wins: it is told as one stage of each kind, which is done again where the race is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ortc.build.context import Context, T
from ortc.build.model import ModelBuild, build_model
from ortc.build.progress import Progress
from ortc.build.search.sensitivity import Sensitivity
from ortc.build.target import TargetBuilder
from ortc.build.target_result import TargetBuild
from ortc.common.values import Frozen, digest
from ortc.diff.report import StageChange
from ortc.diff.values import changes
from ortc.evaluation.compare import Difference
from ortc.evaluation.report import CaseResult, Check, Starts, TargetReport
from ortc.execution.action_cache import Entry, Store
from ortc.execution.host import describe
from ortc.execution.runtime_environment import is_made
from ortc.frontend.fetch import Fetched, FetchedFile, fetch
from ortc.frontend.samples.sources import samples_digest
from ortc.inspection.entrypoint import entrypoint_digest
from ortc.inspection.hub_files import WEIGHT_SUFFIXES
from ortc.passes.canonical import Exported
from ortc.passes.variant_graph import VariantGraph
from ortc.plan.plan import Plan, SourcePlan, TargetPlan
from ortc.spec.accuracy import SamplesFunction
from ortc.spec.model_sources import HuggingFaceSource, PyTorchSource
from ortc.spec.runtimes import pins

_SHORT = 24
"""Longest value that a reason shows; longer ones are digests."""


class Recorded(Frozen):
    """A stage of a build, and everything that goes into it."""

    target: str | None
    stage: str
    subject: str
    inputs: dict[str, Any]


class _Raced(Exception):  # noqa: N818  # control flow: what comes after a race depends on how it ends
    """A race would be held."""


class _Recording(Context):
    """A context in which every stage up to the first race of a target has succeeded already."""

    recorded: list[Recorded]
    target: str | None = None

    def run(
        self,
        stage: str,
        subject: str,
        inputs: dict[str, Any],
        action: Any,
        is_final: Callable[[dict[str, Any]], bool] | None = None,
    ) -> Entry:
        """Keep what goes into the stage; give a result that lets the build go on."""
        # How many cases the shape matrix has, a result would tell.
        name = self.plan.name if stage == "shape matrix" else subject
        self.recorded.append(Recorded(target=self.target, stage=stage, subject=name, inputs=inputs))
        if stage == "measure":
            raise _Raced
        key = digest({"stage": stage, "inputs": inputs})
        # Of the shape matrix nothing is read: it says what `pending` does.
        return Entry(key, self._result(stage, inputs, key), found="here", pending=stage == "shape matrix")

    def observe(self, source: PyTorchSource, fetched: Fetched) -> None:
        """Nothing: a comparison runs nothing of the user's."""

    def each(self, steps: Sequence[Callable[[], T]]) -> list[T]:
        """One after the other: what is recorded has an order."""
        return [step() for step in steps]

    def interpreter(self, pin_set: str, platforms: tuple[str, ...]) -> Path:
        """Where the interpreter would be; the packages it holds are part of the keys."""
        requirements = pins(pin_set).requirements_txt(platforms)
        name = {"packages": digest(requirements)}
        found = Recorded(target=self.target, stage="environment", subject=pin_set, inputs=name)
        if found not in self.recorded:
            self.recorded.append(found)
        return is_made(requirements, self.store.root)[0]

    def _result(self, stage: str, inputs: dict[str, Any], key: str) -> dict[str, Any]:
        match stage:
            case "export":
                plan = self.plan.export
                exported = Exported(
                    exporter=inputs["exporter"],
                    opset=plan.opset,
                    ir_version=plan.ir_version,
                    domains={},
                    inputs=plan.inputs or (),
                    outputs=(),
                    operators={},
                    warnings=(),
                )
                return {"exported": exported.model_dump(mode="json")}
            case "variant" | "prepack":
                # No two variants are the same graph.
                return VariantGraph(bytes=0, domains={}, operators={}, sha256=key).model_dump(mode="json")
            case "verify":
                exact = Difference(output="", max_abs=0.0, cosine=1.0, top1=1.0)
                case_result = CaseResult(case="", differences=(exact,))
                return Check(cases=(case_result,), invariance=0.0, metric=1e300).model_dump(mode="json")
            case "sensitivity":
                return Sensitivity(nodes=(), steps=()).model_dump(mode="json")
            case "start":
                return Starts(seconds=(0.0,), peak_rss_bytes=0).model_dump(mode="json")
        return {}


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
    teacher = plan.model.teacher
    taught = None
    if teacher is not None:
        (work / "teacher").mkdir()
        taught = declared_files(teacher.model, root, work / "teacher")
    with ExitStack() as stack:
        context = _Recording(plan, root, Store(work), describe(), Progress(), work, stack, fetched, teacher=taught)
        context.recorded = []
        model = build_model(context)
        for target in plan.targets:
            context.target = target.name
            _target(context, model, target)
        return Outlook(tuple(context.recorded), _ingredients(plan, root, fetched, taught))


def _target(context: _Recording, model: ModelBuild, target: TargetPlan) -> None:
    begun = len(context.recorded)
    try:
        built = TargetBuilder(context, model, target).build()
    except _Raced:
        of = context.recorded[begun:]
        race = {"race": of[-1].inputs}
        later: list[tuple[str, dict[str, Any]]] = [("start", race)]
        if not any(entry.stage == "verify" and entry.inputs["only"] is None for entry in of):
            variants = [entry.inputs for entry in of if entry.stage == "variant"]
            metric = None if model.metric is None else model.metric.code
            later.insert(0, ("verify", {"variants": variants, "model": model.key, "metric": metric}))
        for stage, inputs in later:
            subject = f"{target.name}: the best"
            context.recorded.append(Recorded(target=target.name, stage=stage, subject=subject, inputs=inputs))
        report = TargetReport(target=target.name, status="published")
        built = TargetBuild(plan=target, report=report, winner=None, race=None, interpreter=None)
    # No stage had results: what goes into them stands for the report.
    results = {entry.stage: digest(entry.inputs) for entry in context.recorded[begun:]}
    inputs = {**built.key(context, model.material), "report": results}
    context.recorded.append(Recorded(target=target.name, stage="bundle", subject=target.name, inputs=inputs))


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


def _ingredients(plan: Plan, root: Path, fetched: Fetched, teacher: Fetched | None) -> dict[str, dict[str, str]]:
    metric, samples = plan.accuracy.metric, plan.accuracy.samples
    code = [metric.entrypoint] if metric is not None else []
    sources = (plan.model, *([] if plan.model.teacher is None else [plan.model.teacher.model]))
    code += [source.entrypoint for source in sources if isinstance(source, PyTorchSource)]
    return {
        "model": fetched.digests(),
        **({} if teacher is None else {"teacher": teacher.digests()}),
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
        reasons.append(f"{change.dotted} {values[0]} -> {values[1]}" if short else change.dotted)
    return tuple(reasons)
