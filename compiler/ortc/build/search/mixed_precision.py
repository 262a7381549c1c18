"""Refine: a variant that is too inexact as a whole, with its worst nodes in higher precision."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from ortc.build.search.precision_ladder import Ladder, Sensitivity
from ortc.build.search.workbench import Workbench
from ortc.build.tried import Tried
from ortc.evaluation.gate_table import ACCURACY_GATES, plain_gate
from ortc.evaluation.gates import describe
from ortc.evaluation.report import Verdict
from ortc.evaluation.trade import Trade, TradeNode, TradePoint
from ortc.plan.precision_mix import IN, mixed

ATTEMPTS = 6
"""Mixes that are judged, at most."""
GROWTH = 1.6
"""How many times as many nodes the next attempt keeps in higher precision."""


@dataclass(frozen=True)
class Refined:
    """What refining gave: the mix that passes, or None; mixes that do not; the trade; and a line for people."""

    entry: Tried | None
    rejected: tuple[Tried, ...]
    trade: Trade
    summary: str


def can_be_refined(entry: Tried) -> bool:
    """Whether a variant fails for its accuracy, and its profile allows another precision for some of its nodes."""
    return entry.failed is not None and _is_inexact(entry.failed) and bool(entry.made.variant.fallback)


def _is_inexact(verdict: Verdict) -> bool:
    """Of a verdict that failed; of any other, whether it is about accuracy."""
    return plain_gate(verdict.gate) in ACCURACY_GATES


def closeness(entry: Tried) -> float:
    """How close to right a variant is: the cosine of its worst sample, or what its error leaves of 1; -1 to 1."""
    if entry.check is None:
        return -1.0
    found = [d.cosine for case in entry.check.cases for d in case.differences if d.cosine is not None]
    left = [max(-1.0, 1 - output.nrmse) for output in entry.check.outputs]
    return min((*found, *left), default=-1.0)


def refine(workbench: Workbench, entry: Tried) -> Refined:
    """Keep the worst nodes of a variant in higher precision, more and more, until it passes or breaks a budget.

    Where to begin is found on calibration samples; what passes is judged as every variant is.

    Args:
        workbench: makes, measures and judges variants.
        entry: a variant that `can_be_refined`.

    Raises:
        StageError: the nodes cannot be measured.
    """
    found = workbench.sensitivity(entry)
    ladder = Ladder(entry.made.variant, found.nodes)
    rejected: list[Tried] = []
    passed: Tried | None = None
    step = found.first_step()
    reached = ladder.top if step is None else max(1, step)
    lower = IN[entry.made.variant.precision]
    reason = f"no mix of precisions that leaves half of the nodes {lower} is right on the calibration samples"
    for _ in range(0 if step is None else ATTEMPTS):
        attempt = workbench.judge(workbench.make(mixed(entry.made.variant, ladder.mix(reached)), entry.made.level))
        if attempt.failed is None:
            passed = attempt
            break
        rejected.append(attempt)
        reason = f"{_count(entry, ladder, reached)}: {describe(attempt.failed)}"
        if not _is_inexact(attempt.failed) or reached >= ladder.top:
            break
        reached = min(ladder.top, max(reached + 2, round(reached * GROWTH)))
    if passed is not None:
        note = f"{entry.made.variant.name}: {describe(entry.failed)}, so {_count(entry, ladder, reached)}"
        passed = replace(passed, lowered=note)
        reason = note
    judged = [entry, *rejected, *([passed] if passed is not None else [])]
    return Refined(passed, tuple(rejected), _trade(found, ladder, judged, entry), reason)


def _count(entry: Tried, ladder: Ladder, step: int) -> str:
    """How many nodes are in higher precision, in words."""
    mix = ladder.mix(step)
    higher = "in floating point" if entry.made.variant.precision == "int8" else "in float32"
    kinds = {"with integer weights alone": len(mix.blocks), higher: len(mix.exclude)}
    kept = " and ".join(f"{count} {kind}" for kind, count in kinds.items() if count) or "none in higher precision"
    return f"of {len(ladder.nodes)} nodes {kept}"


def _trade(found: Sensitivity, ladder: Ladder, judged: list[Tried], base: Tried) -> Trade:
    nodes = {node.name: node for node in found.nodes}
    points = [
        TradePoint(
            name=_label(base, ladder.mix(step.step).blocks, ladder.mix(step.step).exclude),
            data="calibration",
            reduced=_reduced(len(nodes), ladder.mix(step.step).blocks, ladder.mix(step.step).exclude),
            bytes=step.bytes,
            p50_ms=step.p50_ms,
            accuracy=_accuracy(step.verdicts),
            passes=step.passes,
        )
        for step in found.steps
    ]
    for entry in judged:
        variant = entry.made.variant
        excluded = tuple(name for name in variant.exclude if name in nodes)
        points.append(
            TradePoint(
                name=_label(base, variant.blocks, excluded),
                data="held out",
                reduced=_reduced(len(nodes), variant.blocks, excluded),
                bytes=entry.made.graph.bytes,
                p50_ms=None,
                accuracy=_accuracy(entry.verdicts),
                passes=entry.failed is None,
            )
        )
    return Trade(
        variant=base.made.variant.name,
        precision=base.made.variant.precision,
        limits=_limits([*(entry.verdicts for entry in judged), *(step.verdicts for step in found.steps)]),
        nodes=tuple(
            TradeNode(name=node.name, operator=node.operator, elements=node.elements, error=node.error)
            for node in found.nodes
        ),
        points=tuple(points),
    )


def _reduced(count: int, blocks: tuple[str, ...], exclude: tuple[str, ...]) -> int:
    """Nodes that compute in the variant's precision, weights and activations."""
    return count - len(blocks) - len(exclude)


def _label(base: Tried, blocks: tuple[str, ...], exclude: tuple[str, ...]) -> str:
    parts = [f"{len(blocks)} weights alone"] if blocks else []
    parts += [f"{len(exclude)} fp32"] if exclude else []
    return ", ".join(parts) or f"all {IN[base.made.variant.precision]}"


def _limits(judged: Iterable[tuple[Verdict, ...]]) -> dict[str, float]:
    """Of each gate that has a least value; what is no number has no cosine, and others of its kind say the limit."""
    return {
        plain_gate(verdict.gate): verdict.bound
        for verdicts in judged
        for verdict in verdicts
        if _is_inexact(verdict) and verdict.comparison == ">=" and verdict.bound is not None
    }


def _accuracy(verdicts: tuple[Verdict, ...]) -> dict[str, float]:
    """What the gates of accuracy saw, those that are numbers with a least value."""
    return {
        plain_gate(verdict.gate): verdict.value
        for verdict in verdicts
        if _is_inexact(verdict) and verdict.comparison == ">=" and verdict.value is not None
    }
