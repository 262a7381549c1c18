"""Select: which of the variants that passed every gate ships, and whether it keeps its time budgets."""

from __future__ import annotations

from collections.abc import Callable

from ortc.plan import BudgetPlan, Shape, TargetPlan
from ortc.report import Numbers, Outcome, Race, Verdict
from ortc.stages.measure import REFERENCE
from ortc.statistics import Interval, ratio_of_rounds
from ortc.units import format_seconds

MUST_PAY = 1.03
"""How many times faster a reduced precision must be than fp32 to be worth its error."""


class Candidate:
    """A variant that passed its gates."""

    def __init__(self, name: str, precision: str, model_bytes: int) -> None:
        self.name = name
        self.precision = precision
        self.model_bytes = model_bytes


def choose(candidates: list[Candidate], outcome: Race, target: TargetPlan) -> tuple[str, dict[str, str]]:
    """The winner, and why each of the others lost.

    Args:
        candidates: at least one.
        outcome: a race among all of them.
        target: the objective and the precision asked for.
    """
    rounds = {contender.name: contender.rounds for contender in outcome.contenders}

    def faster(one: Candidate, other: Candidate) -> Interval:
        return ratio_of_rounds(rounds[other.name], rounds[one.name])

    reasons: dict[str, str] = {}
    if target.objective == "size":
        winner = min(candidates, key=lambda candidate: candidate.model_bytes)
        for candidate in candidates:
            if candidate is not winner:
                reasons[candidate.name] = f"larger than {winner.name}"
        return winner.name, reasons
    winner = candidates[0]
    for candidate in candidates[1:]:
        if faster(candidate, winner).value > 1:
            winner = candidate
    exact = [candidate for candidate in candidates if candidate.precision == "fp32"]
    if winner.precision != "fp32" and exact:
        best = max(exact, key=lambda candidate: faster(candidate, winner).value)
        gain = faster(winner, best)
        if gain.value < MUST_PAY or (gain.low is not None and gain.low <= 1):
            reasons[winner.name] = f"does not pay: not clearly faster than {best.name}"
            winner = best
    for candidate in candidates:
        if candidate is not winner:
            reasons.setdefault(candidate.name, f"slower than {winner.name}")
    return winner.name, reasons


def time_verdicts(measured: Numbers, budgets: BudgetPlan, at: Shape, platform: str) -> tuple[Verdict, ...]:
    """Judge latency percentiles, speed-up and start, by their confidence intervals."""
    verdicts: list[Verdict] = []
    intervals = {"p50": measured.p50_ms, "p90": measured.p90_ms, "p99": measured.p99_ms}
    for name, limit in budgets.latency.percentiles if budgets.latency else ():
        interval = intervals[name]
        verdicts.append(
            Verdict(
                gate=f"latency {name}",
                platform=platform,
                outcome=judge_upper(interval, limit * 1000),
                observed=_milliseconds(interval),
                limit=f"<= {format_seconds(limit)}",
                where=f"{at}, {interval.samples} samples",
            )
        )
    if budgets.start is not None:
        start = measured.start_seconds
        verdicts.append(
            Verdict(
                gate="start",
                platform=platform,
                # Five starts have no 95 % interval; the budget is on the median, which they do give.
                outcome="pass" if start.value <= budgets.start else "fail",
                observed=format_seconds(start.value),
                limit=f"<= {format_seconds(budgets.start)}",
                where=f"median of {start.samples} starts",
            )
        )
    if budgets.min_speedup is not None:
        verdicts.append(_speedup(measured.speedup, budgets.min_speedup, at, platform))
    return tuple(verdicts)


def _speedup(speedup: Interval | None, least: float, at: Shape, platform: str) -> Verdict:
    outcome: Outcome = "unmeasured"
    if speedup is not None:
        if speedup.low is not None and speedup.low >= least:
            outcome = "pass"
        else:
            outcome = "fail" if speedup.high is not None and speedup.high < least else "inconclusive"
    return Verdict(
        gate="speed-up",
        platform=platform,
        outcome=outcome,
        observed="no PyTorch reference" if speedup is None else _with_range(speedup, lambda value: f"{value:.2f}x"),
        limit=f">= {least:g}x",
        where=f"over {REFERENCE}, {at}",
    )


def judge_upper(interval: Interval, limit: float) -> Outcome:
    """Pass when the whole interval is within the limit, fail when it is beyond, inconclusive when it straddles."""
    if interval.high is not None and interval.high <= limit:
        return "pass"
    if interval.low is not None and interval.low > limit:
        return "fail"
    return "inconclusive"


def _milliseconds(interval: Interval) -> str:
    return _with_range(interval, lambda value: format_seconds(value / 1000))


def _with_range(interval: Interval, text: Callable[[float], str]) -> str:
    low, high = ("?" if bound is None else text(bound) for bound in (interval.low, interval.high))
    return f"{text(interval.value)} [{low}, {high}]"
