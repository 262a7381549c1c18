"""The shape matrix: which combinations of axis sizes a model is checked at."""

import itertools
import math
from collections.abc import Set

from ortc.plan.plan import AxisPlan, CasePlan, Shape, SkippedCase, settled

MAX_COMBINATIONS = 64
"""Above this, axes are taken one at a time: four sizes of three axes still fit."""


def sizes(axis: AxisPlan) -> tuple[int, ...]:
    """The sizes to check: min, typical, max and an odd value in between, ascending, without repeats.

    The odd value is the one nearest to the geometric mean of the bounds, so that no power of two, and no size that a
    kernel is tiled for, stands for all the others.
    """
    step = axis.multiple_of
    first, last = -(-axis.min // step), (axis.max - 1) // step
    middle = math.sqrt(axis.min * axis.max)
    chosen = {axis.min, axis.typical, axis.max}
    # Two of the sizes near the middle may be chosen already; more than these cannot be needed.
    near = range(max(first, int(middle) // step - 7), min(last, int(middle) // step + 7) + 1)
    odd = [count * step for count in near if count % 2 == 1 and count * step not in {axis.min, axis.typical}]
    if odd:
        chosen.add(min(odd, key=lambda size: (abs(math.log(size / middle)), size)))
    return tuple(sorted(chosen))


def shape_matrix(
    axes: tuple[AxisPlan, ...], padded_axis: str | None
) -> tuple[tuple[CasePlan, ...], tuple[SkippedCase, ...]]:
    """All cases to check and the combinations left out, each with its reason.

    Every combination is taken while there are at most 64. Above that each axis goes through its sizes with the others
    at typical, plus (min, ..., min) and (max, ..., max). Axes whose size follows from others go with those.

    Args:
        axes: the declared dynamic axes.
        padded_axis: the axis that an attention mask pads, or None: where it is longer than one, a case with rows of
            different lengths is added to the one without padding.
    """
    free = [axis for axis in axes if axis.equals is None]
    names = [axis.name for axis in free]
    combinations = list(itertools.product(*(sizes(axis) for axis in free)))
    kept = set(combinations)
    if len(combinations) > MAX_COMBINATIONS:
        typical = tuple(axis.typical for axis in free)
        kept = {tuple(axis.min for axis in free), typical, tuple(axis.max for axis in free)}
        for index, axis in enumerate(free):
            kept |= {(*typical[:index], size, *typical[index + 1 :]) for size in sizes(axis)}
    cases: list[CasePlan] = []
    skipped: list[SkippedCase] = []
    for combination in combinations:
        shape = Shape(sizes=tuple(settled(axes, dict(zip(names, combination, strict=True))).items()))
        if combination not in kept:
            reason = f"{len(combinations)} combinations exceed {MAX_COMBINATIONS}: axes are taken one at a time"
            skipped.append(SkippedCase(shape=shape, reason=reason))
            continue
        cases.append(CasePlan(shape=shape, padded=False))
        if padded_axis is not None and shape.as_dict().get(padded_axis, 1) > 1:
            cases.append(CasePlan(shape=shape, padded=True))
    return tuple(cases), tuple(skipped)


def corners(
    axes: tuple[AxisPlan, ...],
    cases: tuple[CasePlan, ...],
    skipped: tuple[SkippedCase, ...],
    measured: Set[Shape],
) -> tuple[tuple[CasePlan, ...], tuple[SkippedCase, ...]]:
    """The cases of a quick search, every axis at a bound, and the shapes that are measured; the others are skipped.

    Where a corner is there with padding and without, the padded case stands for both.

    Args:
        axes: the declared dynamic axes.
        cases, skipped: the whole shape matrix.
        measured: shapes that a budget is about.
    """
    bounds = {axis.name: {axis.min, axis.max} for axis in axes if axis.equals is None}
    kept: list[CasePlan] = []
    left: dict[Shape, None] = {}
    padded = {case.shape for case in cases if case.padded}
    for case in cases:
        if case.shape in measured:
            kept.append(case)
        elif any(size not in bounds.get(name, {size}) for name, size in case.shape.sizes):
            left[case.shape] = None
        elif case.padded or case.shape not in padded:
            kept.append(case)
    reason = "a quick search looks at the corners of the shape matrix"
    return tuple(kept), (*skipped, *(SkippedCase(shape=shape, reason=reason) for shape in left))


def without_largest(axes: tuple[AxisPlan, ...], cases: tuple[CasePlan, ...]) -> tuple[CasePlan, ...]:
    """Cases but for those where every axis is at its greatest size, which take longer than all others together.

    All of them, where some axis would not be looked at at its greatest size any more.

    Args:
        axes: the declared dynamic axes.
        cases: of the shape matrix.
    """
    greatest = {axis.name: axis.max for axis in axes}
    kept = tuple(case for case in cases if case.shape.as_dict() != greatest)
    reached = {name for case in kept for name, size in case.shape.sizes if size == greatest[name]}
    return kept if kept and reached == greatest.keys() else cases
