"""What a difference is in a few words; the same on a terminal and in a pull request."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from ortc.bundle.manifest import promise_of
from ortc.common.statistics import Interval
from ortc.common.units import count, format_bytes, format_seconds
from ortc.diff.report import HostTimings, Numerics, OutputDistance, RaceResult, SpecDiff, TargetDiff, Timing
from ortc.diff.values import Change
from ortc.evaluation.gate_table import BUDGETS
from ortc.spec.diagnostics.excerpt import printable

ARROW = "→"
NOTHING = "\u2013"
"""An en dash, where there is no value."""
_LONGEST = 100
_DIGEST = re.compile(r"[0-9a-f]{40,}")
_UNITS = {key.rpartition(".")[2]: gate.unit for gate in BUDGETS for key in (gate.key, promise_of(gate.key))}
"""The unit of a budget, by its name in specs, plans and manifests."""


def values(change: Change) -> tuple[str, str]:
    """Both values of a change, for people."""
    before = NOTHING if change.kind == "added" else _value(change.path, change.before)
    after = NOTHING if change.kind == "removed" else _value(change.path, change.after)
    return before, after


def _value(path: tuple[str, ...], value: Any) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    unit = _UNITS.get(path[-1].removeprefix("latency_budget."), "") if number else ""
    if unit == "seconds":
        return format_seconds(value)
    if unit == "bytes":
        return format_bytes(value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if _DIGEST.fullmatch(text):
        return f"{text[:12]}…"
    text = printable(text)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def moved(before: str, after: str) -> str:
    """`a → b`, or the one value that both are."""
    return before if before == after else f"{before} {ARROW} {after}"


def variant(target: TargetDiff) -> str:
    """The variants that were chosen."""
    return moved(*(printable(f"{side.variant} ({side.graph_level})") for side in (target.before, target.after)))


def size(target: TargetDiff) -> str:
    """The models' sizes and their ratio."""
    sizes = target.sizes
    text = moved(format_bytes(sizes.model_before), format_bytes(sizes.model_after))
    changed = sizes.model_before != sizes.model_after and sizes.ratio is not None
    return f"{text} ({sizes.ratio:.2f}x)" if changed else text


def graph(target: TargetDiff) -> str:
    """Nodes that came and went."""
    more = sum(max(0, entry.after - entry.before) for entry in target.operators)
    fewer = sum(max(0, entry.before - entry.after) for entry in target.operators)
    return f"+{more} -{fewer} nodes" if more or fewer else "same operators"


def distance(outputs: Iterable[OutputDistance]) -> str:
    """The worst of some distances."""
    found = tuple(outputs)
    problems = [f"{printable(entry.output)}: {printable(entry.problem)}" for entry in found if entry.problem]
    if problems:
        return "; ".join(problems)
    largest = max((entry.max_abs for entry in found if entry.max_abs is not None), default=None)
    if largest is None:
        return "no common output"
    cosine = min((entry.cosine for entry in found if entry.cosine is not None), default=None)
    if largest == 0:
        return "equal"
    return f"max_abs {largest:.3g}" + ("" if cosine is None else f", cosine {cosine:.6f}")


def outputs(found: Numerics) -> str:
    """How far the two are apart, over every case that both take."""
    if found.failed:
        return "failed"
    if found.skipped is not None:
        return "not run"
    both = [case for case in found.cases if case.problem is None]
    if not both:
        return "no common inputs"
    return distance(entry for case in both for entry in case.outputs)


def interval(found: Interval, unit: str = "ms") -> str:
    """An estimate with its interval: milliseconds, or a ratio."""

    def text(value: float | None) -> str:
        return "?" if value is None else f"{value:.2f}x" if unit == "x" else format_seconds(value / 1000)

    return f"{text(found.value)} [{text(found.low)}, {text(found.high)}]"


def faster(found: RaceResult) -> str:
    """What a race says of B."""
    if found.speedup is None:
        return f"not measured: {found.skipped}"
    ratio = found.speedup
    if found.noise:
        return f"inconclusive, too busy to measure: {found.noise[0]}; it read {interval(ratio, 'x')}"
    clear = ratio.low is not None and ratio.high is not None and not ratio.low <= 1 <= ratio.high
    verdict = "" if clear else ", no clear difference"
    return f"B is {interval(ratio, 'x')} as fast as A{verdict}"


def latency(target: TargetDiff) -> str:
    """The race where there was one, else the measurements of the first hardware that both know."""
    if target.race is not None and target.race.speedup is not None:
        return faster(target.race)
    known = next((entry for entry in target.timings if entry.comparable is None), None)
    if known is None or known.before is None or known.after is None:
        return "not on the same hardware" if target.timings else "not measured"
    pair = (known.before.p50_ms.value, known.after.p50_ms.value)
    return f"p50 {moved(*(format_seconds(value / 1000) for value in pair))}, measured apart"


def machine(entry: HostTimings) -> str:
    """Hardware in words."""
    gpus = f", {', '.join(entry.gpus)}" if entry.gpus else ""
    return printable(f"{entry.cpu}, {entry.cores} cores{gpus} ({entry.fingerprint})")


def spec_summary(diff: SpecDiff) -> str:
    """What became of a spec, in one line."""
    if diff.same:
        return "no difference"
    found = {section.name: len(section.changes) for section in diff.sections}
    parts = [f"{count(found['spec'], 'field')} changed" if "spec" in found else "the spec says the same"]
    if "spec" not in found and "plan" in found:
        parts.append(f"{count(found['plan'], 'value')} of the plan changed")
    if "files" in found:
        parts.append(f"{count(found['files'], 'file')} that it names changed")
    if diff.stages_unknown is None:
        anew = sum(stage.anew for stage in diff.stages)
        parts.append(f"{anew} of {count(len(diff.stages), 'stage')} would run anew")
    return ", ".join(parts)


def timing_rows(before: Timing, after: Timing) -> Iterator[tuple[str, str, str]]:
    """Two measurements, number by number."""
    yield "p50", interval(before.p50_ms), interval(after.p50_ms)
    yield "p90", interval(before.p90_ms), interval(after.p90_ms)
    yield "p99", interval(before.p99_ms), interval(after.p99_ms)
    rates = (before.requests_per_second, after.requests_per_second)
    if any(rates):
        one, other = (NOTHING if rate is None else f"{rate.value:.0f}" for rate in rates)
        yield "requests/s", one, other
    yield "start", format_seconds(before.start_seconds), format_seconds(after.start_seconds)
    yield "peak memory", format_bytes(before.peak_rss_bytes), format_bytes(after.peak_rss_bytes)


def race_rows(found: RaceResult) -> Iterator[tuple[str, str, str]]:
    """The percentiles of a race; none where there was none."""
    pairs = (("p50", found.before_p50_ms, found.after_p50_ms), ("p99", found.before_p99_ms, found.after_p99_ms))
    for name, before, after in pairs:
        if before is not None and after is not None:
            yield name, interval(before), interval(after)
