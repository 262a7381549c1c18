"""Whether B is better than A, quantity by quantity: better, worse, same, or not to be told from what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from ortc.common.statistics import Interval
from ortc.diff.report import GoldenDistance, HostTimings, RaceResult, TargetDiff

Judged = Literal["better", "worse", "same", "cannot tell"]
RESOLUTION = 1e-6
"""Cosines of float32 outputs that differ by less are the same."""


class Judgement(NamedTuple):
    """What becomes of a quantity from A to B, and why that is so or cannot be told."""

    quantity: str
    judged: Judged
    why: str


def judgements(target: TargetDiff) -> list[Judgement]:
    """Judge accuracy, latency, throughput and size of two bundles of one target."""
    return [_accuracy(target), *_times(target), _size(target)]


def _size(target: TargetDiff) -> Judgement:
    before, after = target.sizes.model_before, target.sizes.model_after
    judged: Judged = "same" if before == after else "better" if after < before else "worse"
    return Judgement("size", judged, "bytes of the model's files")


def _accuracy(target: TargetDiff) -> Judgement:
    """By the least cosine of any golden case to PyTorch's outputs, on the cases that both bundles have."""
    name, found = "accuracy", target.numerics
    if found.failed:
        return Judgement(name, "cannot tell", "; ".join(found.failed))
    if found.skipped is not None:
        return Judgement(name, "cannot tell", f"the bundles were not run: {found.skipped}")
    common = {case.case for case in found.golden_before} & {case.case for case in found.golden_after}
    before, after = (_least_cosine(cases, common) for cases in (found.golden_before, found.golden_after))
    if before is None or after is None:
        return Judgement(name, "cannot tell", "the bundles have no golden case in common that has a cosine")
    change = after - before
    judged: Judged = "same" if abs(change) <= RESOLUTION else "better" if change > 0 else "worse"
    return Judgement(name, judged, "least cosine similarity to PyTorch's outputs over the golden cases of both")


def _least_cosine(cases: Sequence[GoldenDistance], names: set[str]) -> float | None:
    found = [case.outputs for case in cases if case.case in names]
    if any(output.problem is not None for outputs in found for output in outputs):
        return -1.0
    return min((output.cosine for outputs in found for output in outputs if output.cosine is not None), default=None)


def _times(target: TargetDiff) -> Iterator[Judgement]:
    if target.race is not None:
        yield _raced(target.race)
        return
    entry = next((entry for entry in target.timings if entry.comparable is None), None)
    if entry is None or entry.before is None or entry.after is None:
        yield Judgement("latency", "cannot tell", _why_not(target.timings))
        return
    for name, one, other in (
        ("p50 latency", entry.before.p50_ms, entry.after.p50_ms),
        ("p99 latency", entry.before.p99_ms, entry.after.p99_ms),
    ):
        yield _apart(name, one, other)
    before, after = entry.before.requests_per_second, entry.after.requests_per_second
    if before is not None and after is not None:
        # More of them are better.
        yield _apart("requests per second", after, before)


def _raced(race: RaceResult) -> Judgement:
    name, ratio = "latency", race.speedup
    if ratio is None:
        return Judgement(name, "cannot tell", f"there was no race: {race.skipped}")
    if race.noise:
        return Judgement(name, "cannot tell", f"this machine is too busy to measure: {race.noise[0]}")
    if ratio.low is None or ratio.high is None:
        return Judgement(name, "cannot tell", "there were too few rounds for an interval")
    if ratio.low <= 1 <= ratio.high:
        return Judgement(name, "cannot tell", "the interval of the ratio contains 1")
    return Judgement(name, "better" if ratio.low > 1 else "worse", "both in turns on this host")


def _apart(name: str, before: Interval, after: Interval) -> Judgement:
    """Two measurements that were made apart: clear where their intervals do not overlap."""
    if before.low is None or before.high is None or after.low is None or after.high is None:
        return Judgement(name, "cannot tell", "there were too few samples for an interval")
    if after.high < before.low:
        return Judgement(name, "better", "the intervals do not overlap; both were measured apart")
    if after.low > before.high:
        return Judgement(name, "worse", "the intervals do not overlap; both were measured apart")
    return Judgement(name, "cannot tell", "the intervals overlap; `--measure` races both on this host")


def _why_not(timings: Sequence[HostTimings]) -> str:
    reasons = list(dict.fromkeys(entry.comparable for entry in timings if entry.comparable is not None))
    return "; ".join(reasons) or "neither bundle has a measurement; `--measure` races both on this host"
