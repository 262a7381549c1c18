"""One target's part of a build: make the variants, race them, verify from the best on, tune and judge the winner."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from ortc.build.context import Context
from ortc.build.cpu_check import check_on_cpu
from ortc.build.instruction_sets import missing_verdicts
from ortc.build.model import ModelBuild
from ortc.build.search.choice import Choice, Chooser, Ranking, name_of
from ortc.build.search.mixed_precision import can_be_refined, closeness, refine
from ortc.build.search.races import footprint_of, race, reference_start, start
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
from ortc.build.target_result import TargetBuild, Tried
from ortc.build.variant import VariantBuilder
from ortc.common.errors import StageError
from ortc.common.statistics import Interval, ratio_of_rounds
from ortc.common.values import digest
from ortc.evaluation import latency
from ortc.evaluation.gates import (
    ACCURACY_GATES,
    EXIT_BUDGET,
    EXIT_STAGE,
    EXIT_UNMEASURED,
    describe,
    failure_code,
    foreseen_verdicts,
    parity,
    plain_gate,
    unmeasured_verdicts,
)
from ortc.evaluation.report import Decision, Elsewhere, Numbers, Race, TargetReport, Trade, Verdict
from ortc.evaluation.time_gates import start_verdict, time_verdicts
from ortc.passes.make_variant import DISABLED_OPTIMIZERS
from ortc.plan.plan import Shape, TargetPlan, TuningPlan
from ortc.plan.precision_mix import MIXED, mix_of

QUICK_STARTS = 3
ELSEWHERE_ROUNDS, ELSEWHERE_RUNS = 6, 2
ELSEWHERE_SECONDS = 12.0
"""Most that a race at another shape may be expected to take."""
ELSEWHERE_SHAPES = 4
WRONG = ACCURACY_GATES | {"runs", "applies"}
"""Gates that no budget can make up for."""


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
        self.decisions: dict[str, Decision] = {
            entry.variant: Decision(variant=entry.variant, graph_level=None, outcome="left out", reason=entry.reason)
            for entry in target.left_out
        }
        self.failed: list[Tried] = []
        self.trades: list[Trade] = []
        self.brief = context.plan.search != "full"
        self._race = partial(race, self.builder)
        # Each of these races starts processes of its own: one process keeps its luck as long as it lives.
        self.chooser = Chooser(target, self._race, self.builder.environment_bytes)

    def build(self) -> TargetBuild:
        """Search, then judge what was found."""
        with self.builder.makers, self.builder.loaded:
            return self._search()

    def _search(self) -> TargetBuild:
        if not self.builder.runnable:
            return self._unseen()
        level, tuning = self.target.graph_levels[0], self._first_tuning()
        made, spared = make_all(
            self.target.variants,
            lambda variants: self.context.each(
                [partial(self.builder.make, variant, level, tuning) for variant in variants]
            ),
        )
        self.decisions |= {decision.variant: decision for decision in spared}
        ready = self._distinct([entry for entry in made if entry.failed is None])
        if len(ready) > 1:
            seen = {
                name_of(entry): entry for entry in self.context.each([partial(self.builder.glance, e) for e in ready])
            }
            made = [seen.get(name_of(entry), entry) for entry in made]
            ready = [entry for entry in seen.values() if entry.failed is None]
        for entry in made:
            if entry.failed is not None and name_of(entry) not in self.decisions:
                self._reject(entry, describe(entry.failed))
        self.failed = [entry for entry in made if entry.failed is not None]
        self.builder.makers.close()
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
        absent = "this host lacks the target's hardware"
        for index, variant in enumerate(self.target.variants):
            made = self.builder.make(variant, self.target.graph_levels[0], self._first_tuning())
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
            return self._judge(entry, None, None, (), f"not measured: {absent}")
        for base in [entry for entry in self.failed if can_be_refined(entry)]:
            mixed = self._mix(base, partial(check_on_cpu, self.builder))
            if mixed is not None:
                return self._judge(mixed, None, None, (), f"not measured: {absent}; {mixed.lowered}")
        return self._nothing_passed()

    def _distinct(self, entries: Sequence[Tried]) -> list[Tried]:
        """Variants without those that come to the same graph in the same session: they would race themselves."""
        found: dict[str, Tried] = {}
        for entry in entries:
            first = found.setdefault(self._serves(entry), entry)
            if first is not entry:
                self._reject(entry, f"the same graph as {name_of(first)}")
        return list(found.values())

    @staticmethod
    def _serves(entry: Tried) -> str:
        """What is served: the graph, and the session but for optimizers that have nothing left to do."""
        session, made = entry.made.session, entry.made
        entries = {name: value for name, value in session.config_entries.items() if name != DISABLED_OPTIMIZERS}
        plain = session.model_copy(update={"config_entries": entries})
        if not made.variant.offline:
            plain = session
        return digest([made.graph.sha256, made.variant.runtime.model_dump(mode="json"), plain.model_dump(mode="json")])

    def _first_tuning(self) -> TuningPlan | None:
        """What variants are raced with: for throughput, the session that runs several requests at once."""
        if self.target.tuned is not None:
            return next(entry for entry in self.target.tuning if entry.name == self.target.tuned)
        if self.target.objective != "throughput":
            return None
        return next((entry for entry in self.target.tuning if entry.concurrency == "physical"), None)

    def _verified(self, entry: Tried) -> Tried:
        """Gates of accuracy, memory and placement, and of the start where a budget is set."""
        checked = entry if entry.check is not None else self.builder.verify(entry)
        if checked.failed is None and self.target.budgets.start is not None and self.builder.promised:
            verdict = start_verdict(start(self.builder, checked), self.target.budgets.start, self.builder.platform)
            # A start that was timed on a busy machine says nothing against the variant; it is judged again at the end.
            if verdict.outcome == "fail":
                return Tried(checked.made, checked.key, checked.check, (*checked.verdicts, verdict), checked.lowered)
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
            verdicts = time_verdicts(measured, self.target.budgets, self.target.measure_at, self.builder.platform)
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
        return self._judge(entry, outcome, measured, verdicts, "; ".join(notes), ranking, elsewhere)

    def _elsewhere(self, entry: Tried, ranking: Ranking) -> tuple[Elsewhere, ...]:
        """How the winner does at other shapes of the matrix, against the variants that came close."""
        if self.context.plan.search != "full" or not ranking.races:
            return ()
        close = {contender.name for contender in ranking.races[-1].contenders} - {name_of(entry)}
        wrong = {name_of(other) for other in self.failed}
        rivals = [other for other in ranking.order if name_of(other) in close - wrong]
        at, known = self.target.measure_at, ranking.milliseconds(name_of(entry))
        if not rivals or known is None:
            return ()
        shapes = list(dict.fromkeys(case.shape for case in self.context.plan.cases if case.shape != at))
        turns = ELSEWHERE_ROUNDS * (ELSEWHERE_RUNS + 1) * (1 + len(rivals))
        affordable = [s for s in shapes if known / 1000 * _volume(s) / _volume(at) * turns <= ELSEWHERE_SECONDS]
        # From the smallest to the largest that can be afforded, evenly.
        affordable.sort(key=_volume)
        step = max(1, -(-len(affordable) // ELSEWHERE_SHAPES))
        found = []
        for shape in affordable[::-1][::step][::-1]:
            outcome = self._race(
                [entry, *rivals], ELSEWHERE_ROUNDS, ELSEWHERE_RUNS, shape=shape, loaded=self.builder.loaded
            )
            rounds = {contender.name: contender.rounds for contender in outcome.contenders}
            gains = {name: ratio_of_rounds(rounds[name_of(entry)], values) for name, values in rounds.items()}
            fastest = self._fastest_right(entry, rivals, gains)
            found.append(Elsewhere(shape=str(shape), fastest=fastest, gain=gains[fastest]))
        return tuple(found)

    def _fastest_right(self, entry: Tried, rivals: Sequence[Tried], gains: dict[str, Interval]) -> str:
        """The fastest of a race that passes every gate; rivals that nobody looked at yet are verified for that."""
        known = {name_of(entry): entry, **{name_of(other): other for other in rivals}}
        for name in sorted(gains, key=lambda name: gains[name].value, reverse=True):
            if name == name_of(entry):
                return name
            checked = self._verified(known[name])
            # What passes at a lower graph level alone is not what was raced.
            if checked.failed is None and checked.lowered == known[name].lowered:
                return name
        raise AssertionError("the winner is in its own race")

    def _turn_down(self, entry: Tried, reason: str, ranking: Ranking) -> None:
        """Keep what the search says against a variant."""
        self._reject(entry, reason, ranking)
        if entry.failed is not None:
            self.failed.append(entry)

    def _reject(self, entry: Tried, reason: str, ranking: Ranking | None = None) -> None:
        self.decisions[name_of(entry)] = rejected(entry, reason, ranking)

    def _smallest_right(self) -> Decision | None:
        """The smallest variant that only its budgets stand against: what the spec could have instead."""
        if not self.builder.runnable:
            return None
        made = [entry for entry in self.failed if entry.key and entry.failed is not None]
        budgets = [entry for entry in made if entry.failed is not None and plain_gate(entry.failed.gate) not in WRONG]
        for entry in sorted(budgets, key=lambda entry: entry.made.graph.bytes):
            judged = entry if entry.check is not None else self.builder.judge(replace(entry, verdicts=()))
            if self.builder.is_right(judged):
                reason = f"the smallest that is right, and {describe(entry.failed)}"
                return rejected(entry, reason)
        return None

    def _nothing_passed(self) -> TargetBuild:
        failed = self.failed
        gates = {entry.failed.gate for entry in failed if entry.failed is not None}
        report = TargetReport(
            target=self.target.name,
            status="failed",
            verdicts=tuple(verdict for entry in failed for verdict in entry.verdicts if verdict.outcome != "pass"),
            decisions=tuple(self.decisions.values()),
            trades=tuple(self.trades),
            calibration_requests=self.builder.calibrated or None,
            smallest_right=self._smallest_right(),
            error="no variant passes every gate" if failed else "no variant of the profile can be tried",
            exit_code=failure_code(gates) if failed else EXIT_STAGE,
        )
        return TargetBuild(plan=self.target, report=report, winner=None, race=None, interpreter=None)

    def _judge(
        self,
        winner: Tried,
        outcome: Race | None,
        measured: Numbers | None,
        timed: tuple[Verdict, ...],
        reason: str,
        ranking: Ranking | None = None,
        elsewhere: tuple[Elsewhere, ...] = (),
    ) -> TargetBuild:
        chosen, made = winner.made.variant, winner.made
        foreseen = () if self.builder.runnable else foreseen_verdicts(self.target, made.graph.placement)
        known = {verdict.gate for verdict in foreseen}
        absent = unmeasured_verdicts(self.target, self.builder.platform, self.builder.runnable)
        unmeasured = (verdict for verdict in absent if verdict.gate not in known)
        verdicts = (*winner.verdicts, *missing_verdicts(self.builder, winner), *unmeasured, *foreseen, *timed)
        selected = Decision(
            variant=chosen.name,
            graph_level=made.level,
            outcome="selected",
            reason=reason,
            bytes=made.graph.bytes,
            p50_ms=None if ranking is None else ranking.milliseconds(chosen.name),
        )
        outcomes = {verdict.outcome for verdict in verdicts}
        code, status = 0, "published"
        if "fail" in outcomes:
            code, status = EXIT_BUDGET, "failed"
        elif outcomes & {"unmeasured", "inconclusive"}:
            allowed = self.target.unmeasured == "allow"
            code, status = (0, "provisional") if allowed else (EXIT_UNMEASURED, "failed")
        report = TargetReport.model_validate(
            {
                "target": self.target.name,
                "status": status,
                "variant": chosen.name,
                "mix": mix_of(chosen),
                "graph_level": made.level,
                "tuning": None if made.tuning is None else made.tuning.name,
                "precision": chosen.precision,
                "model_bytes": made.graph.bytes,
                "operators": made.graph.operators,
                "placement": made.graph.placement,
                "parity": parity(winner.verdicts),
                "numbers": measured,
                "verdicts": verdicts,
                "decisions": (selected, *self.decisions.values()),
                "tied": tuple(name for name, entry in self.decisions.items() if entry.outcome == "tied"),
                "footprint": footprint_of(self.builder, winner, measured),
                "elsewhere": elsewhere,
                "trades": tuple(self.trades),
                "calibration_requests": self.builder.calibrated or None,
                "exit_code": code,
            }
        )
        return TargetBuild(self.target, report, winner, outcome, self.builder.interpreter(chosen))


def _volume(shape: Shape) -> int:
    """Elements along all dynamic axes: what time grows with, at least."""
    product = 1
    for _, size in shape.sizes:
        product *= size
    return product
