"""Select: whether the variant that ships keeps its time budgets."""

from __future__ import annotations

from collections.abc import Callable

from ortc.plan import BudgetPlan, Shape
from ortc.report import Numbers, Outcome, Verdict
from ortc.stages.measure import REFERENCE
from ortc.statistics import Interval, percentile
from ortc.units import format_seconds


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
        verdicts.append(_start(measured.start_seconds, budgets.start, platform))
    if budgets.min_speedup is not None:
        verdicts.append(_speedup(measured.speedup, budgets.min_speedup, at, platform))
    return tuple(verdicts)


def start_verdict(seconds: list[float], limit: float, platform: str) -> Verdict:
    """Judge the time from process start to the first answer, by several starts."""
    return _start(percentile(seconds, 0.5), limit, platform)


def _start(start: Interval, limit: float, platform: str) -> Verdict:
    return Verdict(
        gate="start",
        platform=platform,
        # Five starts have no 95 % interval; the budget is on the median, which they do give.
        outcome="pass" if start.value <= limit else "fail",
        observed=format_seconds(start.value),
        limit=f"<= {format_seconds(limit)}",
        where=f"median of {start.samples} starts",
    )


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
