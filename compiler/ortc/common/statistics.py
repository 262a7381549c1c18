"""Order statistics of latencies: percentiles and intervals without assuming a distribution."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from ortc.common.values import Count, Frozen, Measured

CONFIDENCE = 0.95
_RESAMPLES = 400


class Interval(Frozen):
    """An estimate with its 95 % confidence interval; a bound is None where too few samples were taken for one."""

    value: Measured
    low: Measured | None
    high: Measured | None
    samples: Count


def percentile(values: Sequence[float], share: float) -> Interval:
    """A percentile with the interval that order statistics give.

    The number of samples below the true percentile is binomial, so two ranks of the sorted values enclose it with the
    wanted confidence (Conover, Practical Nonparametric Statistics, section 3.2). The 99th needs 368 samples for an
    upper bound.

    Args:
        values: at least one sample.
        share: 0.5 for the median, 0.99 for p99.
    """
    ordered = sorted(values)
    count = len(ordered)
    tail = (1 - CONFIDENCE) / 2
    low_rank = high_rank = None
    total = 0.0
    for below in range(count + 1):
        # total is P(at most `below` samples lie under the percentile)
        total += _binomial(below, count, share)
        if total <= tail:
            low_rank = below
        if high_rank is None and total >= 1 - tail and below < count:
            high_rank = below
    return Interval(
        value=ordered[min(count - 1, max(0, math.ceil(share * count) - 1))],
        low=None if low_rank is None else ordered[low_rank],
        high=None if high_rank is None else ordered[high_rank],
        samples=count,
    )


def _binomial(successes: int, count: int, share: float) -> float:
    logarithm = math.lgamma(count + 1) - math.lgamma(successes + 1) - math.lgamma(count - successes + 1)
    return math.exp(logarithm + successes * math.log(share) + (count - successes) * math.log1p(-share))


def median(values: Sequence[float]) -> float:
    """The middle value, or the mean of the two middle ones."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def ratios_of_rounds(slow: Sequence[Sequence[float]], fast: Sequence[Sequence[float]]) -> list[float]:
    """How many times faster in each round, by the medians of the round."""
    return [median(a) / median(b) for a, b in zip(slow, fast, strict=True)]


def ratio_of_rounds(slow: Sequence[Sequence[float]], fast: Sequence[Sequence[float]]) -> Interval:
    """How many times faster, from interleaved rounds: the median over rounds of the ratio of the rounds' medians.

    A machine that slows down slows both contenders of a round, and cancels. The interval is a seeded bootstrap over
    rounds.

    Args:
        slow, fast: samples of each round, in the same order of rounds.
    """
    ratios = ratios_of_rounds(slow, fast)
    generator = random.Random(0)  # noqa: S311  # resampling, not secrecy
    drawn = sorted(median(generator.choices(ratios, k=len(ratios))) for _ in range(_RESAMPLES))
    tail = round(_RESAMPLES * (1 - CONFIDENCE) / 2)
    enough = len(ratios) >= 6
    return Interval(
        value=median(ratios),
        low=drawn[tail] if enough else None,
        high=drawn[-tail - 1] if enough else None,
        samples=len(ratios),
    )
