"""Race the winner at other shapes of the matrix, against the variants that came close."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from ortc.build.search.choice import Ranking, name_of
from ortc.build.tried import Tried
from ortc.common.statistics import Interval, ratio_of_rounds
from ortc.evaluation.report import Elsewhere, Race
from ortc.plan.plan import CasePlan, Shape

ROUNDS, RUNS = 6, 2
SECONDS = 12.0
"""Most that a race at another shape may be expected to take."""
SHAPES = 4
"""Most shapes that are raced at, from the smallest to the largest that can be afforded, evenly."""


class RaceAt(Protocol):
    """Races variants at a shape."""

    def __call__(self, entries: Sequence[Tried], rounds: int, runs: int, *, shape: Shape) -> Race: ...


def race_elsewhere(
    entry: Tried,
    rivals: Sequence[Tried],
    shapes: Sequence[Shape],
    race: RaceAt,
    verify: Callable[[Tried], Tried],
) -> tuple[Elsewhere, ...]:
    """The fastest right variant at each of some shapes, and how many times as fast as the winner it is.

    Args:
        entry: the winner.
        rivals: the variants that came close.
        shapes: to race at, see `affordable`.
        race: races variants at a shape.
        verify: judges a rival that nobody looked at yet.
    """
    found = []
    for shape in shapes:
        outcome = race([entry, *rivals], ROUNDS, RUNS, shape=shape)
        rounds = {contender.name: contender.rounds for contender in outcome.contenders}
        gains = {name: ratio_of_rounds(rounds[name_of(entry)], values) for name, values in rounds.items()}
        fastest = _fastest_right(entry, rivals, gains, verify)
        found.append(Elsewhere(shape=str(shape), fastest=fastest, gain=gains[fastest]))
    return tuple(found)


def close_rivals(entry: Tried, ranking: Ranking, failed: Sequence[Tried]) -> list[Tried]:
    """The variants of a ranking's last race that are not known to be wrong, without the winner."""
    if not ranking.races:
        return []
    close = {contender.name for contender in ranking.races[-1].contenders} - {name_of(entry)}
    wrong = {name_of(other) for other in failed}
    return [other for other in ranking.order if name_of(other) in close - wrong]


def affordable(cases: Sequence[CasePlan], at: Shape, milliseconds: float, contenders: int) -> list[Shape]:
    """Some shapes of the matrix, evenly from the smallest to the largest whose race takes at most SECONDS.

    Args:
        cases: the shape matrix.
        at: the shape of the budget, which was raced at already.
        milliseconds: of the winner there; time is taken to grow with the number of elements.
        contenders: of the race.
    """
    shapes = list(dict.fromkeys(case.shape for case in cases if case.shape != at))
    turns = ROUNDS * (RUNS + 1) * contenders
    found = [shape for shape in shapes if milliseconds / 1000 * _volume(shape) / _volume(at) * turns <= SECONDS]
    found.sort(key=_volume)
    step = max(1, -(-len(found) // SHAPES))
    return found[::-1][::step][::-1]


def _fastest_right(
    entry: Tried, rivals: Sequence[Tried], gains: Mapping[str, Interval], verify: Callable[[Tried], Tried]
) -> str:
    """The fastest of a race that passes every gate; rivals that nobody looked at yet are verified for that."""
    known = {name_of(entry): entry, **{name_of(other): other for other in rivals}}
    for name in sorted(gains, key=lambda name: gains[name].value, reverse=True):
        if name == name_of(entry):
            return name
        checked = verify(known[name])
        # A variant that passes at a lower graph level only is not the one that was raced.
        if checked.failed is None and checked.lowered == known[name].lowered:
            return name
    raise AssertionError("the winner is in its own race")


def _volume(shape: Shape) -> int:
    """Elements along all dynamic axes: what time grows with, at least."""
    product = 1
    for _, size in shape.sizes:
        product *= size
    return product
