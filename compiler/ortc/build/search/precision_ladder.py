"""Mixes of precisions of one variant: nodes by what they cost in accuracy, and the search for the least mix."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ortc.common.values import Frozen
from ortc.evaluation.report import Verdict
from ortc.passes.quantization.data_free import bits_of
from ortc.plan.plan import VariantPlan
from ortc.plan.precision_mix import Mix

LEAST_REDUCED = 0.5
"""Share of the nodes that stay in less precision (of integers, by their weights), or it is not that variant any
more."""


class NodeError(Frozen):
    """A node, the elements of its weight, and its share in the error: the mean square difference that it alone makes
    in less precision, over the mean square of the outputs."""

    name: str
    operator: str
    shape: tuple[int, ...]
    elements: int
    in_blocks: bool
    error: float


class Step(Frozen):
    """So many of the worst nodes in higher precision: bytes of the weights, milliseconds at the budget's shape (None
    where it was not timed), and how it does on the calibration samples."""

    step: int
    bytes: int
    p50_ms: float | None
    verdicts: tuple[Verdict, ...]

    @property
    def passes(self) -> bool:
        """Whether every gate of accuracy holds."""
        return all(verdict.outcome == "pass" for verdict in self.verdicts)


class Sensitivity(Frozen):
    """What was found: nodes from the one that is best kept in higher precision on, and steps in ascending order."""

    nodes: tuple[NodeError, ...]
    steps: tuple[Step, ...]

    def first_step(self) -> int | None:
        """The least step that passes on the calibration samples; None when none does."""
        return next((entry.step for entry in self.steps if entry.passes), None)


class Ladder:
    """Mixes of precisions from all nodes as the variant has them on, the worst nodes first to be kept in higher ones.

    Up to three flights, each from its first step on: the weights alone of more and more nodes as integers; more and
    more nodes in floating point, the others as the variant has them; and the same with the weights alone of all others.
    """

    def __init__(self, variant: VariantPlan, nodes: Sequence[NodeError]) -> None:
        self.floats = "fp32" in variant.fallback
        blocks = "int8-weights" in variant.fallback and bits_of(variant) != 8
        self.nodes = tuple(node for node in nodes if self.floats or (blocks and node.in_blocks))
        most = min(len(self.nodes), int((1 - LEAST_REDUCED) * len(nodes))) if self.floats else 0
        weights = len(self.nodes) if blocks and any(node.in_blocks for node in self.nodes) else 0
        self.ends = (weights, weights + most, weights + (2 * most if weights else most))
        self.top = self.ends[-1]

    def flights(self) -> list[tuple[int, int]]:
        """The step below the first one, and the last one, of each flight."""
        return [(low, high) for low, high in zip((0, *self.ends), self.ends, strict=False) if high > low]

    def mix(self, step: int) -> Mix:
        """What a step does to the nodes."""
        weights, floats, _ = self.ends
        if step > weights:
            kept, others = step - (weights if step <= floats else floats), step > floats
            above = self.nodes[kept:] if others else ()
            excluded = [node.name for node in self.nodes[:kept]]
        else:
            above = self.nodes[:step]
            # What cannot have its weights alone rounded goes to floating point at once.
            excluded = [node.name for node in above if self.floats and not node.in_blocks]
        blocks = [node.name for node in above if node.in_blocks]
        return Mix(blocks=tuple(sorted(blocks)), exclude=tuple(sorted(excluded)))


def search_steps(ladder: Ladder, measure: Callable[[int, Mix], Step]) -> tuple[Step, ...]:
    """The least step that passes, by halving, between what was measured on the way."""
    found: dict[int, Step] = {}

    def look(step: int) -> bool:
        if step not in found:
            found[step] = measure(step, ladder.mix(step))
        return found[step].passes

    if not look(0):
        for low, high in ladder.flights():
            if look(high):
                while high - low > 1:
                    middle = (low + high) // 2
                    low, high = (low, middle) if look(middle) else (middle, high)
                break
    return tuple(found[step] for step in sorted(found))
