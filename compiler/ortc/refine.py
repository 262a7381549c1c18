"""Refine: a variant that is too inexact as a whole, with its worst nodes in higher precision."""

from __future__ import annotations

from dataclasses import dataclass

from ortc.mix import mixed
from ortc.report import Trade, TradeNode, TradePoint, Verdict
from ortc.sensitivity import Ladder, Sensitivity, find_sensitivity
from ortc.target_bundle import Tried
from ortc.variant_build import VariantBuilder
from ortc.verdicts import ACCURACY_GATES, describe

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
    return (
        entry.failed is not None
        and entry.failed.gate in ACCURACY_GATES
        and entry.check is not None
        and bool(entry.made.variant.fallback)
    )


def closeness(entry: Tried) -> float:
    """How close to right a variant is: the cosine of its worst sample, -1 to 1."""
    cases = () if entry.check is None else entry.check.cases
    return min((d.cosine for case in cases for d in case.differences if d.cosine is not None), default=-1.0)


def refine(builder: VariantBuilder, entry: Tried) -> Refined:
    """Keep the worst nodes of a variant in higher precision, more and more, until it passes or breaks a budget.

    Where to begin is found on calibration samples; what passes is judged as every variant is.

    Raises:
        StageError: the nodes cannot be measured.
    """
    found, ladder = find_sensitivity(builder, entry)
    rejected: list[Tried] = []
    passed: Tried | None = None
    step = found.first_step()
    reached = ladder.top if step is None else max(1, step)
    reason = "no mix of precisions that leaves half of the nodes on integers is right on the calibration samples"
    for _ in range(0 if step is None else ATTEMPTS):
        attempt = builder.judge(builder.make(mixed(entry.made.variant, ladder.mix(reached)), entry.made.level))
        if attempt.failed is None:
            passed = attempt
            break
        rejected.append(attempt)
        reason = f"{_count(ladder, reached)}: {describe(attempt.failed)}"
        if attempt.failed.gate not in ACCURACY_GATES or reached >= ladder.top:
            break
        reached = min(ladder.top, max(reached + 2, round(reached * GROWTH)))
    if passed is not None:
        note = f"{entry.made.variant.name}: {describe(entry.failed)}, so {_count(ladder, reached)}"
        passed = Tried(passed.made, passed.key, passed.check, passed.verdicts, note)
        reason = note
    judged = [entry, *rejected, *([passed] if passed is not None else [])]
    return Refined(passed, tuple(rejected), _trade(found, ladder, judged, entry), reason)


def _count(ladder: Ladder, step: int) -> str:
    """How many nodes are not on integers, in words."""
    mix = ladder.mix(step)
    kinds = {"with integer weights alone": len(mix.blocks), "in floating point": len(mix.exclude)}
    kept = " and ".join(f"{count} {kind}" for kind, count in kinds.items() if count) or "none in higher precision"
    return f"of {len(ladder.nodes)} nodes {kept}"


def _trade(found: Sensitivity, ladder: Ladder, judged: list[Tried], base: Tried) -> Trade:
    nodes = {node.name: node for node in found.nodes}
    points = [
        TradePoint(
            name=_label(ladder.mix(step.step).blocks, ladder.mix(step.step).exclude),
            data="calibration",
            integers=_integers(len(nodes), ladder.mix(step.step).blocks, ladder.mix(step.step).exclude),
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
                name=_label(variant.blocks, excluded),
                data="held out",
                integers=_integers(len(nodes), variant.blocks, excluded),
                bytes=entry.made.graph.bytes,
                p50_ms=None,
                accuracy=_accuracy(entry.verdicts),
                passes=entry.failed is None,
            )
        )
    return Trade(
        variant=base.made.variant.name,
        limits={v.gate: float(v.limit.removeprefix(">= ")) for v in base.verdicts if v.gate in _accuracy((v,))},
        nodes=tuple(
            TradeNode(name=node.name, operator=node.operator, elements=node.elements, error=node.error)
            for node in found.nodes
        ),
        points=tuple(points),
    )


def _integers(count: int, blocks: tuple[str, ...], exclude: tuple[str, ...]) -> int:
    """Nodes of whom weights and activations are integers."""
    return count - len(blocks) - len(exclude)


def _label(blocks: tuple[str, ...], exclude: tuple[str, ...]) -> str:
    parts = [f"{len(blocks)} weights alone"] if blocks else []
    parts += [f"{len(exclude)} fp32"] if exclude else []
    return ", ".join(parts) or "all on integers"


def _accuracy(verdicts: tuple[Verdict, ...]) -> dict[str, float]:
    """What the gates of accuracy saw, those that are numbers with a least value."""
    found = {}
    for verdict in verdicts:
        if verdict.gate in ACCURACY_GATES and verdict.limit.startswith(">= "):
            try:
                found[verdict.gate] = float(verdict.observed)
            except ValueError:
                continue
    return found
