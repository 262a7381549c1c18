"""Search the variants of a target for the one that ships, over any workbench that makes, races and checks them.

Nothing is done here but by the workbench, so that every step can be seen with one that only answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from ortc.build.search.choice import Choice, Chooser, Ranking, name_of
from ortc.build.search.mixed_precision import can_be_refined, closeness, refine
from ortc.build.search.other_shapes import affordable, close_rivals, race_elsewhere
from ortc.build.search.outcome import Outcome, Rejected
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
from ortc.build.search.workbench import Workbench
from ortc.build.tried import Tried
from ortc.common.values import digest
from ortc.evaluation import latency
from ortc.evaluation.budget_gates import absent_here, budget_verdicts
from ortc.evaluation.evidence import Evidence
from ortc.evaluation.gates import describe
from ortc.evaluation.report import Decision, Elsewhere, Numbers, Race, Verdict
from ortc.passes.make_variant import DISABLED_OPTIMIZERS
from ortc.plan.plan import TargetPlan, TuningPlan
from ortc.plan.precision_mix import MIXED

QUICK_STARTS = 3


class TargetSearch:
    """The search of one target's variants.

    `against` holds what was found against those that do not ship.
    """

    def __init__(self, workbench: Workbench) -> None:
        self.workbench = workbench
        self.target = workbench.target
        self.against = Rejected(
            {entry.variant: _left_out(entry.variant, entry.reason) for entry in self.target.left_out}
        )
        self._decisions, self._failed, self._trades = self.against.decisions, self.against.failed, self.against.trades
        self._is_brief = workbench.plan.search != "full"
        # Each of these races starts processes of its own: one process keeps its luck as long as it lives.
        self._chooser = Chooser(self.target, workbench.race, workbench.environment_bytes)

    def find(self) -> Outcome | None:
        """The variant that ships, or None where none passes every gate.

        Raises:
            StageError: the workbench fails for another reason than a variant.
        """
        return self._fastest() if self.workbench.runnable else self._first_right()

    def _fastest(self) -> Outcome | None:
        """On a host that runs the target: the best of the variants that pass, as the races tell."""
        ready = self._ready()
        self.workbench.end_makers()
        rounds = QUICK_ROUNDS if self._is_brief else SECOND_ROUNDS
        racer = partial(self.workbench.race, stay_loaded=True)
        for survivor in survivors(ready, self._chooser, racer, self._verified, self._turn_down, rounds):
            self.workbench.unload()
            refined = self._refined(survivor.entry, survivor.ranking)
            found = None if refined is None else self._finish(refined)
            found = found or self._finish(survivor)
            if found is not None:
                return found
        refined = self._refined(None, None)
        return None if refined is None else self._finish(refined)

    def _ready(self) -> list[Tried]:
        """Made variants of different graphs or sessions that load; the others are rejected."""
        level, tuning = self.target.graph_levels[0], first_tuning(self.target)
        made, spared = make_all(
            self.target.variants, lambda variants: self.workbench.make_each(variants, level, tuning)
        )
        self._decisions |= {decision.variant: decision for decision in spared}
        ready, twins = distinct([entry for entry in made if entry.failed is None])
        for entry, first in twins:
            self._reject(entry, f"the same graph as {name_of(first)}")
        if len(ready) > 1:
            seen = {name_of(entry): entry for entry in self.workbench.glance_each(ready)}
            made = [seen.get(name_of(entry), entry) for entry in made]
            ready = [entry for entry in seen.values() if entry.failed is None]
        for entry in made:
            if entry.failed is not None and name_of(entry) not in self._decisions:
                self._reject(entry, describe(entry.failed))
        self._failed += [entry for entry in made if entry.failed is not None]
        return ready

    def _refined(self, entry: Tried | None, ranking: Ranking | None) -> Survivor | None:
        """What is better than a variant that passes, once its worst nodes are kept in higher precision; None for no.

        One variant is refined: of those that would have been better, were they right, the one closest to it. A quick
        search does so only where nothing passes.
        """
        if entry is not None and self._is_brief:
            return None
        better = [other for other in self._failed if can_be_refined(other)]
        if entry is not None and ranking is not None:
            better = [other for other in better if leads(other, entry, ranking, self.target.objective)]
        if self._trades or not better:
            return None
        base = max(better, key=closeness)
        refined = self._mix(base)
        if refined is None:
            return None
        if entry is None:
            return Survivor(refined, Ranking([refined]), Choice(refined), last=True)
        both = rank([entry, refined], self.target, self.workbench.race)
        if better_of(both, refined, entry, self.target):
            others = [] if ranking is None else [other for other in ranking.order if name_of(other) != name_of(entry)]
            return Survivor(refined, Ranking([refined, entry, *others], both.races), Choice(refined), last=False)
        self._decisions[name_of(refined)] = lost(both, refined, entry, self.target.objective)
        return None

    def _mix(self, base: Tried) -> Tried | None:
        """A variant that is wrong as a whole, with its worst nodes in higher precision; None where no mix is right."""
        outcome = refine(self.workbench, base)
        self._trades.append(outcome.trade)
        if outcome.entry is None:
            self.workbench.note(f"{self.target.name}: {name_of(base)}: {outcome.summary}")
            if outcome.rejected:
                last = outcome.rejected[-1]
                self._reject(last, describe(last.failed))
                self._failed.append(last)
        return outcome.entry

    def _first_right(self) -> Outcome | None:
        """On a host that cannot run the target: the profile's first variant whose graph is right on the CPU provider.

        What comes after it is not made: nothing here can tell whether it would be faster. Where none is right as a
        whole, it is the first one of which a mix of precisions is.
        """
        absent = absent_here(self.target) if self.target.is_javascript else "this host lacks the target's hardware"
        for index, variant in enumerate(self.target.variants):
            entry = self.workbench.judge(
                self.workbench.make(variant, self.target.graph_levels[0], first_tuning(self.target))
            )
            if entry.failed is not None:
                self._reject(entry, describe(entry.failed))
                self._failed.append(entry)
                continue
            for other in self.target.variants[index + 1 :]:
                reason = f"not measured: {absent}, and {variant.name} comes first"
                self._decisions[other.name] = _left_out(other.name, reason)
            return Outcome(entry, f"not measured: {absent}")
        for base in [entry for entry in self._failed if can_be_refined(entry)]:
            mixed = self._mix(base)
            if mixed is not None:
                return Outcome(mixed, f"not measured: {absent}; {mixed.lowered}")
        return None

    def _verified(self, entry: Tried) -> Tried:
        """Gates of accuracy, memory and placement, and of the start where a budget is set."""
        checked = entry if entry.check is not None else self.workbench.verify(entry)
        budgets = self.target.budgets
        if checked.failed is None and budgets.limit("start_budget") is not None and self.workbench.promised:
            seen = Evidence(starts=self.workbench.start(checked, latency.START_RUNS))
            verdicts = budget_verdicts(seen, budgets, self.workbench.platform)
            # A start that was timed on a busy machine says nothing against the variant; it is judged again at the end.
            if any(verdict.outcome == "fail" for verdict in verdicts):
                return replace(checked, verdicts=(*checked.verdicts, *verdicts))
        return checked

    def _finish(self, survivor: Survivor) -> Outcome | None:
        """Tune and measure what is right; None when it breaks a budget that another variant may keep."""
        entry, ranking, choice, last = survivor
        entry, tuned = tune(self.workbench, entry, quick=self._is_brief)
        entry, packed = prepack(self.workbench, entry, self._verified)
        race, numbers = self._measured(entry)
        verdicts: tuple[Verdict, ...] = ()
        if self.workbench.promised:
            seen = Evidence(numbers=numbers, at=self.target.measure_at)
            verdicts = budget_verdicts(seen, self.target.budgets, self.workbench.platform)
        broken = next((verdict for verdict in verdicts if verdict.outcome == "fail"), None)
        if broken is not None and (self.target.objective == "size" or choice.behind) and not last:
            self._reject(entry, describe(broken), ranking)
            self._failed.append(replace(entry, verdicts=(*entry.verdicts, *verdicts)))
            return None
        self._decisions |= decisions_of(survivor, self._chooser, self._decisions)
        reason = reason_of(choice, self.target)
        if self.workbench.plan.variant == f"{name_of(entry)}{MIXED}":
            reason = "right as a whole: no node has to be kept in higher precision"
        notes = [reason, *filter(None, (tuned, packed, entry.lowered))]
        elsewhere = self._elsewhere(entry, ranking)
        return Outcome(entry, "; ".join(notes), race, numbers, verdicts, ranking, elsewhere)

    def _measured(self, entry: Tried) -> tuple[Race, Numbers]:
        """The race of what ships beside PyTorch, and all of its numbers."""
        # Before the race, which goes on with the process that started here.
        eager = self.workbench.reference_start()
        turns = (latency.QUICK_ROUNDS, latency.QUICK_RUNS) if self._is_brief else (latency.ROUNDS, latency.RUNS)
        outcome = self.workbench.race([entry], *turns, with_reference=True, quantity="latency")
        crowd = None
        if self.target.objective == "throughput":
            crowd = self.workbench.race([entry], latency.ROUNDS, latency.RUNS, quantity="throughput")
        starts = self.workbench.start(entry, QUICK_STARTS if self._is_brief else latency.START_RUNS)
        peak = max(starts.peak_rss_bytes, entry.check.peak_rss_bytes if entry.check is not None else 0)
        measured = latency.numbers(outcome, name_of(entry), starts, peak, crowd, eager)
        return outcome, measured.model_copy(update={"soak": None if entry.check is None else entry.check.soak})

    def _elsewhere(self, entry: Tried, ranking: Ranking) -> tuple[Elsewhere, ...]:
        """How the winner does at other shapes of the matrix, against the variants that came close."""
        rivals = close_rivals(entry, ranking, self._failed)
        known = ranking.milliseconds(name_of(entry))
        if self._is_brief or not rivals or known is None:
            return ()
        shapes = affordable(self.workbench.plan.cases, self.target.measure_at, known, 1 + len(rivals))
        return race_elsewhere(entry, rivals, shapes, partial(self.workbench.race, stay_loaded=True), self._verified)

    def _turn_down(self, entry: Tried, reason: str, ranking: Ranking) -> None:
        """Keep what the search says against a variant."""
        self._reject(entry, reason, ranking)
        if entry.failed is not None:
            self._failed.append(entry)

    def _reject(self, entry: Tried, reason: str, ranking: Ranking | None = None) -> None:
        self._decisions[name_of(entry)] = rejected(entry, reason, ranking)


def _left_out(variant: str, reason: str) -> Decision:
    return Decision(variant=variant, graph_level=None, outcome="left out", reason=reason)


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
