"""Select: whether the variant that ships keeps its time budgets."""

from __future__ import annotations

from collections.abc import Sequence

from ortc.common.statistics import Interval, percentile
from ortc.evaluation.latency import REFERENCE
from ortc.evaluation.noise import control_state, starts_noise
from ortc.evaluation.report import Numbers, Outcome, Starts, Verdict
from ortc.evaluation.wording import Bounds
from ortc.plan.plan import BudgetPlan, Shape


def time_verdicts(measured: Numbers, budgets: BudgetPlan, at: Shape, platform: str) -> tuple[Verdict, ...]:
    """Judge latency percentiles, speed-up and start, by their confidence intervals.

    What was measured on a busy machine claims nothing and is `inconclusive`. It is `fail` where the control workload
    was undisturbed, and the very best of what was measured breaks the budget all the same.
    """
    verdicts: list[Verdict] = []
    is_quiet = measured.control == "quiet"
    intervals = {"p50": measured.p50_ms, "p90": measured.p90_ms, "p99": measured.p99_ms}
    for name, limit in budgets.latency.percentiles if budgets.latency else ():
        interval = intervals[name]
        verdicts.append(
            Verdict(
                gate=f"latency {name}",
                platform=platform,
                outcome=under_noise(
                    judge_upper(interval, limit * 1000),
                    measured.noise,
                    is_sure=is_quiet and _beyond(measured.fastest_ms, limit * 1000),
                ),
                value=interval.value / 1000,
                interval=_seconds(interval),
                comparison="<=",
                bound=limit,
                unit="seconds",
                where=_where(f"{at}, {interval.samples} samples", measured.noise, measured.control),
            )
        )
    if budgets.start is not None:
        is_sure = is_quiet and _beyond(measured.fastest_start_seconds, budgets.start)
        verdicts.append(_start(measured.start_seconds, budgets.start, platform, measured.start_noise, is_sure))
    if budgets.min_speedup is not None:
        verdicts.append(_speedup(measured, budgets.min_speedup, at, platform, is_quiet=is_quiet))
    return tuple(verdicts)


def start_verdict(starts: Starts, limit: float, platform: str) -> Verdict:
    """Judge the time from process start to the first answer, by several starts."""
    is_sure = control_state(starts.control) == "quiet" and min(starts.seconds) > limit
    return _start(percentile(starts.seconds, 0.5), limit, platform, starts_noise(starts), is_sure)


def under_noise(outcome: Outcome, noise: Sequence[str], *, is_sure: bool) -> Outcome:
    """An outcome where the machine was not quiet: nothing passes, and only a sure failure fails.

    Args:
        outcome: by the interval.
        noise: why the machine was not quiet, if it was not.
        is_sure: the control workload was undisturbed, and the best of all samples breaks the limit.
    """
    if not noise or outcome == "unmeasured":
        return outcome
    return "fail" if outcome == "fail" and is_sure else "inconclusive"


def _beyond(best: float | None, limit: float) -> bool:
    return best is not None and best > limit


def _where(text: str, noise: Sequence[str], control: str | None) -> str:
    if noise:
        return f"{text}; too busy to measure: {noise[0]}"
    return f"{text}, no control" if control == "none" else text


def _start(start: Interval, limit: float, platform: str, noise: Sequence[str], is_sure: bool) -> Verdict:
    return Verdict(
        gate="start",
        platform=platform,
        # Five starts have no 95 % interval; the budget is on the median, which they do give.
        outcome=under_noise("pass" if start.value <= limit else "fail", noise, is_sure=is_sure),
        value=start.value,
        comparison="<=",
        bound=limit,
        unit="seconds",
        where=_where(f"median of {start.samples} starts", noise, None),
    )


def _speedup(measured: Numbers, least: float, at: Shape, platform: str, *, is_quiet: bool) -> Verdict:
    speedup, best = measured.speedup, measured.best_ratio
    outcome: Outcome = "unmeasured"
    if speedup is not None:
        if speedup.low is not None and speedup.low >= least:
            outcome = "pass"
        else:
            outcome = "fail" if speedup.high is not None and speedup.high < least else "inconclusive"
    return Verdict(
        gate="speed-up",
        platform=platform,
        outcome=under_noise(outcome, measured.speedup_noise, is_sure=is_quiet and best is not None and best < least),
        value=None if speedup is None else speedup.value,
        interval=None if speedup is None else (speedup.low, speedup.high),
        comparison=">=",
        bound=least,
        unit="times",
        said="no PyTorch reference" if speedup is None else "",
        where=_where(f"over {REFERENCE}, {at}", measured.speedup_noise, None),
    )


def judge_upper(interval: Interval, limit: float) -> Outcome:
    """Pass when the whole interval is within the limit, fail when it is beyond, inconclusive when it straddles."""
    if interval.high is not None and interval.high <= limit:
        return "pass"
    if interval.low is not None and interval.low > limit:
        return "fail"
    return "inconclusive"


def _seconds(interval: Interval) -> Bounds:
    """The bounds of an interval in milliseconds."""
    low, high = (None if bound is None else bound / 1000 for bound in (interval.low, interval.high))
    return low, high
