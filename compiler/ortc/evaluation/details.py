"""What a report keeps of measurements that are too many to list: bounded, and worst first."""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import Field

from ortc.common.values import Count, Frozen
from ortc.evaluation.compare import Difference

BINS = 48
"""Of a histogram."""
MOST_CASES = 240
"""Comparisons of single cases that a report lists."""
MOST_OPERATORS = 24
"""Operators whose time a report lists."""
_MOST_TEXT = 600
_MOST_ANSWER = 1200
_SHOWN_NUMBERS = 8


class Counted(Frozen):
    """How many of one contender's samples are in each bin."""

    name: str
    counts: tuple[Count, ...]
    samples: Count


class Histogram(Frozen):
    """Latencies of contenders of one race, in bins of equal ratio; `edges_ms` are one more than the bins."""

    edges_ms: tuple[float, ...]
    contenders: tuple[Counted, ...]


class CaseDifference(Frozen):
    """One output at one case: see `ortc.evaluation.compare.Difference`. None where it does not apply or is not finite;
    `problem` says why the output cannot be compared."""

    case: str
    output: str
    max_abs: float | None = None
    cosine: float | None = None
    relative_error: float | None = None
    top1: float | None = None
    problem: str | None = None


class CaseDifferences(Frozen):
    """The outputs of the variant that ships at every case; `left_out` are comparisons beyond those that are listed."""

    listed: tuple[CaseDifference, ...] = Field(default=(), description="In the order of the cases.")
    left_out: Count = 0


class SampleAnswer(Frozen):
    """One request and both answers to it, as texts that may be shortened; how close they are.

    `agreement` is 1 where both name the same; None of kinds that name nothing.
    """

    request: str
    expected: str
    found: str
    cosine: float
    agreement: float | None = None


class OperatorTime(Frozen):
    """The nodes of one operator on one provider, and the microseconds that all of them took together."""

    operator: str
    provider: str
    nodes: Count
    microseconds: Count


class OperatorTimes(Frozen):
    """Where the time of one profiled run at a case goes, most first; `left_out` are microseconds beyond those listed.

    A profiler slows every node down a little: shares tell more than times.
    """

    case: str
    listed: tuple[OperatorTime, ...]
    left_out: Count = 0


def operator_times(case: str, found: Sequence[Mapping[str, Any]]) -> OperatorTimes | None:
    """The operators that take the most time, from those that a worker lists; None where nothing was recorded."""
    times = [OperatorTime.model_validate(entry) for entry in found]
    if not times:
        return None
    rest = sum(entry.microseconds for entry in times[MOST_OPERATORS:])
    return OperatorTimes(case=case, listed=tuple(times[:MOST_OPERATORS]), left_out=rest)


def histogram(samples: Mapping[str, Sequence[float]]) -> Histogram | None:
    """Count the latencies of each contender in bins that all share; None where there is no sample.

    Args:
        samples: milliseconds by contender, each greater than 0.
    """
    every = [value for values in samples.values() for value in values if value > 0]
    if not every:
        return None
    low, high = min(every), max(every)
    step = math.log(high / low) / BINS if high > low else 0.01
    inner = tuple(low * math.exp(step * index) for index in range(1, BINS))
    counted = []
    for name, values in samples.items():
        counts = [0] * BINS
        for value in values:
            counts[bisect_right(inner, value)] += 1
        counted.append(Counted(name=name, counts=tuple(counts), samples=len(values)))
    top = high if high > low else low * math.exp(step * BINS)
    return Histogram(edges_ms=(low, *inner, top), contenders=tuple(counted))


def case_differences(cases: Iterable[tuple[str, Sequence[Difference]]]) -> CaseDifferences:
    """List how far each output is off at each case: all of them, or the worst where there are very many."""
    rows = [_row(case, entry) for case, differences in cases for entry in differences]
    if len(rows) <= MOST_CASES:
        return CaseDifferences(listed=tuple(rows))
    worst = sorted(range(len(rows)), key=lambda index: _badness(rows[index]), reverse=True)[:MOST_CASES]
    return CaseDifferences(listed=tuple(rows[index] for index in sorted(worst)), left_out=len(rows) - MOST_CASES)


def shown_request(request: str) -> str:
    """A request, shortened."""
    return _cut(request, _MOST_TEXT)


def shown_answer(answer: Any) -> str:
    """An answer as JSON: of long lists of numbers the first ones and how many there are."""
    return _cut(json.dumps(_shortened(answer), ensure_ascii=False), _MOST_ANSWER)


def _row(case: str, entry: Difference) -> CaseDifference:
    return CaseDifference(
        case=case,
        output=entry.output,
        max_abs=_finite(entry.max_abs),
        cosine=None if entry.problem else _finite(entry.cosine),
        relative_error=_finite(entry.relative_error),
        top1=None if entry.problem else _finite(entry.top1),
        problem=entry.problem,
    )


def _badness(row: CaseDifference) -> tuple[bool, float, float]:
    return row.problem is not None, -(row.cosine if row.cosine is not None else row.top1 or 0.0), row.max_abs or 0.0


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}… ({len(text)} characters)"


def _shortened(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _shortened(item) for name, item in value.items()}
    if not isinstance(value, list):
        return float(f"{value:.6g}") if isinstance(value, float) else value
    shown = [_shortened(item) for item in value[:_SHOWN_NUMBERS]]
    if len(value) <= _SHOWN_NUMBERS:
        return shown
    return [*shown, f"… {len(value) - _SHOWN_NUMBERS} more"]
