"""One target's part of a build: make the variants, race them, verify from the best on, tune and judge the winner."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from ortc.build.context import Context
from ortc.build.cpu_check import check_on_cpu
from ortc.build.model import ModelBuild
from ortc.build.search.choice import Choice, Chooser, Ranking, name_of
from ortc.build.search.mixed_precision import can_be_refined, closeness, refine
from ortc.build.search.other_shapes import affordable, close_rivals, race_elsewhere
from ortc.build.search.races import race, reference_start, start
from ortc.build.search.ranking import (
    QUICK_ROUNDS,
    SECOND_ROUNDS,
    Survivor,
    better_of,
    decisions_of,
    leads,
    lost,
    make_all,
    rank,
    reason_of,
    rejected,
    survivors,
)
from ortc.build.search.session_tuning import prepack, tune
from ortc.build.target_report import Outcome, Rejected, failed_report, passed_report
from ortc.build.target_result import TargetBuild, Tried
from ortc.build.variant import VariantBuilder
from ortc.common.errors import StageError
from ortc.common.values import digest
from ortc.evaluation import latency
from ortc.evaluation.budget_gates import budget_verdicts
from ortc.evaluation.evidence import Evidence
from ortc.evaluation.gates import describe
from ortc.evaluation.report import Decision, Elsewhere, TargetReport, Verdict
from ortc.passes.make_variant import DISABLED_OPTIMIZERS
from ortc.plan.plan import TargetPlan, TuningPlan
from ortc.plan.precision_mix import MIXED

QUICK_STARTS = 3


def build_target(context: Context, model: ModelBuild, target: TargetPlan) -> TargetBuild:
    """Everything of one target but the writing of its bundle; a failure is a report, not an exception."""
    try:
        return TargetBuilder(context, model, target).build()
    except StageError as error:
        context.progress.note(f"{target.name}: {error.message}")
        text = "\n".join([error.message, *error.details, *([f"help: {error.help}"] if error.help else [])])
        report = TargetReport(target=target.name, status="failed", error=text, exit_code=error.exit_code)
        return TargetBuild(plan=target, report=report, winner=None, race=None, interpreter=None)


class TargetBuilder:
    """The steps of one target."""

    def __init__(self, context: Context, model: ModelBuild, target: TargetPlan) -> None:
        self.context = context
        self.target = target
        self.builder = VariantBuilder(context, model, target)
        left_out = {
            entry.variant: Decision(variant=entry.variant, graph_level=None, outcome="left out", reason=entry.reason)
            for entry in target.left_out
        }
        self.against = Rejected(left_out)
        self.decisions, self.failed, self.trades = self.against.decisions, self.against.failed, self.against.trades
        self.brief = context.plan.search != "full"
        self._race = partial(race, self.builder)
        # Each of these races starts processes of its own: one process keeps its luck as long as it lives.
        self.chooser = Chooser(target, self._race, self.builder.environment_bytes)

    def build(self) -> TargetBuild:
        """Search, then judge what was found."""
        with self.builder.graphs.makers, self.builder.loaded:
            return self._search()

    def _search(self) -> TargetBuild:
        if not self.builder.runnable:
            return self._unseen()
        level, tuning = self.target.graph_levels[0], first_tuning(self.target)
        made, spared = make_all(
            self.target.variants,
            lambda variants: self.context.runner.each(
                [partial(self.builder.make, variant, level, tuning) for variant in variants]
            ),
        )
        self.decisions |= {decision.variant: decision for decision in spared}
        ready, twins = distinct([entry for entry in made if entry.failed is None])
        for entry, first in twins:
            self._reject(entry, f"the same graph as {name_of(first)}")
        if len(ready) > 1:
            glances = [partial(self.builder.glance, entry) for entry in ready]
            seen = {name_of(entry): entry for entry in self.context.runner.each(glances)}
            made = [seen.get(name_of(entry), entry) for entry in made]
            ready = [entry for entry in seen.values() if entry.failed is None]
        for entry in made:
            if entry.failed is not None and name_of(entry) not in self.decisions:
                self._reject(entry, describe(entry.failed))
        self.failed += [entry for entry in made if entry.failed is not None]
        self.builder.graphs.makers.close()
        rounds = QUICK_ROUNDS if self.brief else SECOND_ROUNDS
        racer = partial(self._race, loaded=self.builder.loaded)
        for survivor in survivors(ready, self.chooser, racer, self._verified, self._turn_down, rounds):
            self.builder.loaded.close()
            refined = self._refined(survivor.entry, survivor.ranking)
            found = None if refined is None else self._finish(refined)
            found = found or self._finish(survivor)
            if found is not None:
                return found
        refined = self._refined(None, None)
        return self._nothing_passed() if refined is None else self._finish(refined) or self._nothing_passed()

    def _refined(self, entry: Tried | None, ranking: Ranking | None) -> Survivor | None:
        """What is better than a variant that passes, once its worst nodes are kept in higher precision; None for no.

        One variant is refined: of those that would have been better, were they right, the one closest to it. A quick
        search does so only where nothing passes.
        """
        if entry is not None and self.brief:
            return None
        better = [other for other in self.failed if can_be_refined(other)]
        if entry is not None and ranking is not None:
            better = [other for other in better if leads(other, entry, ranking, self.target.objective)]
        if self.trades or not better:
            return None
        base = max(better, key=closeness)
        refined = self._mix(base, self.builder.judge)
        if refined is None:
            return None
        if entry is None:
            return Survivor(refined, Ranking([refined]), Choice(refined), last=True)
        both = rank([entry, refined], self.target, self._race)
        if better_of(both, refined, entry, self.target):
            others = [] if ranking is None else [other for other in ranking.order if name_of(other) != name_of(entry)]
            return Survivor(refined, Ranking([refined, entry, *others], both.races), Choice(refined), last=False)
        self.decisions[name_of(refined)] = lost(both, refined, entry, self.target.objective)
        return None

    def _mix(self, base: Tried, judge: Callable[[Tried], Tried]) -> Tried | None:
        """A variant that is wrong as a whole, with its worst nodes in higher precision; None where no mix is right."""
        outcome = refine(self.builder, base, judge)
        self.trades.append(outcome.trade)
        if outcome.entry is None:
            self.context.progress.note(f"{self.target.name}: {name_of(base)}: {outcome.summary}")
            if outcome.rejected:
                self._turn_down_mixed(outcome.rejected[-1])
        return outcome.entry

    def _turn_down_mixed(self, entry: Tried) -> None:
        self._reject(entry, describe(entry.failed))
        self.failed.append(entry)

    def _unseen(self) -> TargetBuild:
        """On a host that cannot run the target: the profile's first variant whose graph is right on the CPU provider.

        What comes after it is not made: nothing here can tell whether it would be faster. Where none is right as a
        whole, it is the first one of which a mix of precisions is.
        """
        absent = "no Chromium on this host" if self.target.is_web else "this host lacks the target's hardware"
        for index, variant in enumerate(self.target.variants):
            made = self.builder.make(variant, self.target.graph_levels[0], first_tuning(self.target))
            entry = check_on_cpu(self.builder, made)
            if entry.failed is not None:
                self._reject(entry, describe(entry.failed))
                self.failed.append(entry)
                continue
            for other in self.target.variants[index + 1 :]:
                reason = f"not measured: {absent}, and {variant.name} comes first"
                self.decisions[other.name] = Decision(
                    variant=other.name, graph_level=None, outcome="left out", reason=reason
                )
            return self._passed(Outcome(entry, f"not measured: {absent}"))
        for base in [entry for entry in self.failed if can_be_refined(entry)]:
            mixed = self._mix(base, partial(check_on_cpu, self.builder))
            if mixed is not None:
                return self._passed(Outcome(mixed, f"not measured: {absent}; {mixed.lowered}"))
        return self._nothing_passed()

    def _verified(self, entry: Tried) -> Tried:
        """Gates of accuracy, memory and placement, and of the start where a budget is set."""
        checked = entry if entry.check is not None else self.builder.verify(entry)
        budgets = self.target.budgets
        if checked.failed is None and budgets.limit("start_budget") is not None and self.builder.promised:
            seen = Evidence(starts=start(self.builder, checked))
            verdicts = budget_verdicts(seen, budgets, self.builder.platform)
            # A start that was timed on a busy machine says nothing against the variant; it is judged again at the end.
            if any(verdict.outcome == "fail" for verdict in verdicts):
                return replace(checked, verdicts=(*checked.verdicts, *verdicts))
        return checked

    def _finish(self, survivor: Survivor) -> TargetBuild | None:
        """Tune and measure what is right; None when it breaks a budget that another variant may keep."""
        entry, ranking, choice, last = survivor
        entry, tuned = tune(self.builder, entry, self._race, quick=self.brief)
        entry, packed = prepack(self.builder, entry, self._verified)
        # Before the race, which goes on with the process that started here.
        eager = reference_start(self.builder)
        turns = (latency.QUICK_ROUNDS, latency.QUICK_RUNS) if self.brief else (latency.ROUNDS, latency.RUNS)
        outcome = self._race([entry], *turns, with_reference=True, quantity="latency")
        crowd = None
        if self.target.objective == "throughput":
            crowd = self._race([entry], latency.ROUNDS, latency.RUNS, quantity="throughput")
        starts = start(self.builder, entry, QUICK_STARTS if self.brief else latency.START_RUNS)
        peak = max(starts.peak_rss_bytes, entry.check.peak_rss_bytes if entry.check is not None else 0)
        measured = latency.numbers(outcome, name_of(entry), starts, peak, crowd, eager)
        measured = measured.model_copy(update={"soak": None if entry.check is None else entry.check.soak})
        verdicts: tuple[Verdict, ...] = ()
        if self.builder.promised:
            seen = Evidence(numbers=measured, at=self.target.measure_at)
            verdicts = budget_verdicts(seen, self.target.budgets, self.builder.platform)
        broken = next((verdict for verdict in verdicts if verdict.outcome == "fail"), None)
        if broken is not None and (self.target.objective == "size" or choice.behind) and not last:
            self._reject(entry, describe(broken), ranking)
            self.failed.append(replace(entry, verdicts=(*entry.verdicts, *verdicts)))
            return None
        self.decisions |= decisions_of(survivor, self.chooser, self.decisions)
        reason = reason_of(choice, self.target)
        if self.context.plan.variant == f"{name_of(entry)}{MIXED}":
            reason = "right as a whole: no node has to be kept in higher precision"
        notes = [reason, *filter(None, (tuned, packed, entry.lowered))]
        elsewhere = self._elsewhere(entry, ranking)
        return self._passed(Outcome(entry, "; ".join(notes), outcome, measured, verdicts, ranking, elsewhere))

    def _elsewhere(self, entry: Tried, ranking: Ranking) -> tuple[Elsewhere, ...]:
        """How the winner does at other shapes of the matrix, against the variants that came close."""
        rivals = close_rivals(entry, ranking, self.failed)
        known = ranking.milliseconds(name_of(entry))
        if self.brief or not rivals or known is None:
            return ()
        shapes = affordable(self.context.plan.cases, self.target.measure_at, known, 1 + len(rivals))
        return race_elsewhere(entry, rivals, shapes, partial(self._race, loaded=self.builder.loaded), self._verified)

    def _passed(self, outcome: Outcome) -> TargetBuild:
        return passed_report(self.builder, outcome, self.against)

    def _nothing_passed(self) -> TargetBuild:
        return failed_report(self.builder, self.against)

    def _turn_down(self, entry: Tried, reason: str, ranking: Ranking) -> None:
        """Keep what the search says against a variant."""
        self._reject(entry, reason, ranking)
        if entry.failed is not None:
            self.failed.append(entry)

    def _reject(self, entry: Tried, reason: str, ranking: Ranking | None = None) -> None:
        self.decisions[name_of(entry)] = rejected(entry, reason, ranking)


def distinct(entries: Sequence[Tried]) -> tuple[list[Tried], list[tuple[Tried, Tried]]]:
    """Variants that serve different graphs or sessions, and the others with their first twin: those race themselves."""
    found: dict[str, Tried] = {}
    twins = []
    for entry in entries:
        first = found.setdefault(_served(entry), entry)
        if first is not entry:
            twins.append((entry, first))
    return list(found.values()), twins


def _served(entry: Tried) -> str:
    """Digest what is served: the graph, and the session but for optimizers that have nothing left to do."""
    session, made = entry.made.session, entry.made
    if made.variant.offline:
        entries = {name: value for name, value in session.config_entries.items() if name != DISABLED_OPTIMIZERS}
        session = session.model_copy(update={"config_entries": entries})
    return digest([made.graph.sha256, made.variant.runtime.model_dump(mode="json"), session.model_dump(mode="json")])


def first_tuning(target: TargetPlan) -> TuningPlan | None:
    """The session settings that variants are raced with: for throughput, several requests at once."""
    if target.tuned is not None:
        return next(entry for entry in target.tuning if entry.name == target.tuned)
    if target.objective != "throughput":
        return None
    return next((entry for entry in target.tuning if entry.concurrency == "physical"), None)
