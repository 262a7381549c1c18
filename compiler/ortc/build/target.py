"""One target's part of a build: a search over the real workbench, and the report of what it found."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

from ortc.build.context import Context
from ortc.build.cpu_check import check_on_cpu
from ortc.build.model import ModelBuild
from ortc.build.packing import packed
from ortc.build.races import race, reference_start, start
from ortc.build.search.precision_ladder import Sensitivity
from ortc.build.search.target_search import TargetSearch
from ortc.build.sensitivity import find_sensitivity
from ortc.build.target_report import failed_report, passed_report
from ortc.build.target_result import TargetBuild
from ortc.build.tried import Tried
from ortc.build.variant import VariantBuilder
from ortc.common.errors import StageError
from ortc.evaluation.report import Race, Starts, TargetReport
from ortc.plan.plan import Plan, Shape, TargetPlan, TuningPlan, VariantPlan
from ortc.spec.profile import GraphLevel


def build_target(context: Context, model: ModelBuild, target: TargetPlan) -> TargetBuild:
    """Everything of one target but the writing of its bundle; a failure is a report, not an exception."""
    try:
        return search_target(context, model, target)
    except StageError as error:
        context.progress.note(f"{target.name}: {error.message}")
        text = "\n".join([error.message, *error.details, *([f"help: {error.help}"] if error.help else [])])
        report = TargetReport(target=target.name, status="failed", error=text, exit_code=error.exit_code)
        return TargetBuild(plan=target, report=report, winner=None, race=None, interpreter=None)


def search_target(context: Context, model: ModelBuild, target: TargetPlan) -> TargetBuild:
    """Search a target's variants, and judge what was found by every gate of the spec.

    Raises:
        StageError: a step fails for another reason than a variant.
        UnknownResult: the runner of the build does not know a result.
    """
    builder = VariantBuilder(context, model, target)
    with builder.graphs.makers, builder.loaded:
        search = TargetSearch(TargetWorkbench(builder))
        outcome = search.find()
        if outcome is None:
            return failed_report(builder, search.against)
        return passed_report(builder, outcome, search.against)


class TargetWorkbench:
    """Does what a search asks for, by the actions of a build; see `ortc.build.search.workbench.Workbench`."""

    def __init__(self, builder: VariantBuilder) -> None:
        self._builder = builder
        self._context = builder.context
        self.plan: Plan = builder.context.plan
        self.target: TargetPlan = builder.target
        self.platform: str = builder.platform
        self.runnable: bool = builder.runnable
        self.promised: bool = builder.promised

    def note(self, text: str) -> None:
        self._context.progress.note(text)

    def make(self, variant: VariantPlan, level: GraphLevel, tuning: TuningPlan | None = None) -> Tried:
        return self._builder.make(variant, level, tuning)

    def make_each(self, variants: Sequence[VariantPlan], level: GraphLevel, tuning: TuningPlan | None) -> list[Tried]:
        return self._context.runner.each([partial(self.make, variant, level, tuning) for variant in variants])

    def glance_each(self, entries: Sequence[Tried]) -> list[Tried]:
        return self._context.runner.each([partial(self._builder.glance, entry) for entry in entries])

    def end_makers(self) -> None:
        self._builder.graphs.makers.close()

    def unload(self) -> None:
        self._builder.loaded.close()

    def judge(self, entry: Tried) -> Tried:
        return self._builder.judge(entry) if self.runnable else check_on_cpu(self._builder, entry)

    def verify(self, entry: Tried) -> Tried:
        return self._builder.verify(entry)

    def race(
        self,
        entries: Sequence[Tried],
        rounds: int,
        runs: int,
        *,
        with_reference: bool = False,
        shape: Shape | None = None,
        names: Sequence[str] | None = None,
        quantity: Literal["latency", "throughput"] | None = None,
        stay_loaded: bool = False,
    ) -> Race:
        return race(
            self._builder,
            entries,
            rounds,
            runs,
            with_reference=with_reference,
            shape=shape,
            names=names,
            quantity=quantity,
            loaded=self._builder.loaded if stay_loaded else None,
        )

    def start(self, entry: Tried, starts: int) -> Starts:
        return start(self._builder, entry, starts)

    def reference_start(self) -> Starts | None:
        return reference_start(self._builder)

    def pack(self, entry: Tried) -> Tried:
        return packed(self._builder, entry)

    def sensitivity(self, entry: Tried) -> Sensitivity:
        return find_sensitivity(self._builder, entry)

    def environment_bytes(self, entry: Tried) -> int:
        return self._builder.environment_bytes(entry)
