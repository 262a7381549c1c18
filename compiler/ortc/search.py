"""Search: which variants are raced, in which order they are verified, and what became of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ortc.plan import TargetPlan, VariantPlan
from ortc.report import Contender, Decision, Race
from ortc.statistics import Interval, median, ratio_of_rounds
from ortc.target_bundle import Tried
from ortc.verdicts import describe

FIRST_ROUNDS, FIRST_RUNS = 4, 2
SECOND_ROUNDS, SECOND_RUNS = 10, 5
QUICK_ROUNDS = 6
"""Instead of SECOND_ROUNDS in a quick search."""
DUEL_ROUNDS = (8, 12)
"""Of a variant that seems faster than a simpler one, and is not clearly so; the second where the first do not tell."""
KEPT = 1.35
"""A variant that took this many times as long as the fastest in the first, cheap rounds is not raced again."""
EXACT_KEPT = 2.0
"""The fastest fp32 variant is raced again up to here; what is so much faster pays by the first rounds alone."""
MUST_PAY = 1.03
"""How many times faster a reduced precision must be than fp32 to be worth its error, and another runtime than the
profile's own to be worth its size, start and memory."""

Racer = Callable[[Sequence[Tried], int, int], Race]
Verifier = Callable[[Tried], Tried]
Rejecter = Callable[[Tried, str, "Ranking"], None]


@dataclass
class Ranking:
    """Variants from the best to the worst by the target's objective, with what is known of their speed."""

    order: list[Tried]
    races: list[Race] = field(default_factory=list)

    def ratio(self, slow: str, fast: str) -> Interval | None:
        """How many times faster one variant is than another, by the last race that had both."""
        for race in reversed(self.races):
            found = {contender.name: contender for contender in race.contenders}
            if slow in found and fast in found:
                return ratio_of_rounds(found[slow].rounds, found[fast].rounds)
        return None

    def milliseconds(self, name: str) -> float | None:
        """Median of a variant in the last race that it was in."""
        for race in reversed(self.races):
            for contender in race.contenders:
                if contender.name == name:
                    return median(contender.samples())
        return None


def name_of(entry: Tried) -> str:
    """The variant's name, by which races and decisions know it."""
    return entry.made.variant.name


def make_all(
    variants: Sequence[VariantPlan], make: Callable[[Sequence[VariantPlan]], list[Tried]]
) -> tuple[list[Tried], list[Decision]]:
    """Make variants; those that stand in for another only where that one cannot be made.

    Args:
        variants: of a target's plan.
        make: makes several.

    Returns:
        What was made, failures among it, and decisions about what was not.
    """
    made = make([variant for variant in variants if variant.stands_in_for is None])
    failed = {name_of(entry) for entry in made if entry.failed is not None}
    made += make([variant for variant in variants if variant.stands_in_for in failed])
    tried = {name_of(entry) for entry in made}
    return made, [
        Decision(
            variant=variant.name,
            graph_level=None,
            outcome="left out",
            reason=f"a full search tries it beside {variant.stands_in_for}",
        )
        for variant in variants
        if variant.name not in tried
    ]


def rank(entries: Sequence[Tried], target: TargetPlan, race: Racer, rounds: int = SECOND_ROUNDS) -> Ranking:
    """Order variants by the objective: one sort by size, or races that become longer for the ones that matter.

    Successive halving (Jamieson and Talwalkar, 2016) in two steps: a few rounds of all, then more of those that may be
    within 35 % of the fastest. The fastest fp32 variant stays in up to twice that time: a reduced precision has to
    beat it.
    """
    if target.objective == "size":
        return Ranking(sorted(entries, key=lambda entry: entry.made.graph.bytes))
    if len(entries) == 1:
        return Ranking(list(entries))
    first = race(entries, FIRST_ROUNDS, FIRST_RUNS)
    slowness = _slowness(first.contenders)
    exact = [name_of(entry) for entry in entries if entry.made.variant.precision == "fp32"]
    baseline = min(exact, key=lambda name: slowness[name], default=None)
    limits = {name: EXACT_KEPT if name == baseline else KEPT for name in slowness}
    least = _least_slowness(first.contenders)
    kept = [entry for entry in entries if least[name_of(entry)] <= limits[name_of(entry)]]
    rest = [entry for entry in entries if entry not in kept]
    rest.sort(key=lambda entry: slowness[name_of(entry)])
    if len(kept) == 1:
        return Ranking([*kept, *rest], [first])
    second = race(kept, rounds, SECOND_RUNS)
    order = _slowness(second.contenders)
    kept.sort(key=lambda entry: order[name_of(entry)])
    return Ranking([*kept, *rest], [first, second])


def _slowness(contenders: Sequence[Contender]) -> dict[str, float]:
    """How many times as long as the fastest each took, by rounds: a machine that slows down slows all of a round."""
    fastest = min(contenders, key=lambda contender: median(contender.samples()))
    found = {entry.name: ratio_of_rounds(entry.rounds, fastest.rounds).value for entry in contenders}
    best = min(found.values())
    return {name: value / best for name, value in found.items()}


def _least_slowness(contenders: Sequence[Contender]) -> dict[str, float]:
    """The same of each one's best round: of few rounds, a neighbour on the machine can spoil most for one contender."""
    count = len(contenders[0].rounds)
    rounds = [{entry.name: median(entry.rounds[index]) for entry in contenders} for index in range(count)]
    return {entry.name: min(times[entry.name] / min(times.values()) for times in rounds) for entry in contenders}


class Survivor(NamedTuple):
    """A variant that is right and worth its error, the ranking it was found by, and whether it is the last one left."""

    entry: Tried
    ranking: Ranking
    last: bool


def survivors(
    entries: Sequence[Tried],
    target: TargetPlan,
    race: Racer,
    verify: Verifier,
    reject: Rejecter,
    rounds: int = SECOND_ROUNDS,
) -> Iterator[Survivor]:
    """Variants that pass, from the best on; verifying is what costs most, so no more are verified than are asked for.

    Args:
        entries: made variants.
        target: whose objective ranks them.
        race: times variants against each other.
        verify: judges a variant at every case, and may lower its graph level.
        reject: told of each that does not pass, with the reason.
        rounds: of the race between those that came close.
    """
    if not entries:
        return
    ranking = rank(entries, target, race, rounds)
    queue = list(ranking.order)
    while queue:
        made = queue.pop(0)
        entry = verify(made)
        if entry.failed is not None:
            reject(entry, describe(entry.failed), ranking)
            continue
        if _is_lowered(made, entry) and queue and target.objective != "size":
            # At another level it is another graph: its place has to be found again, once.
            ranking = rank([entry, *queue], target, race, rounds)
            if name_of(ranking.order[0]) != name_of(entry):
                queue = list(ranking.order)
                continue
        if target.objective != "size":
            simpler = [other for other in queue if is_simpler(other, entry, target)]
            if (better := _not_worth_it(entry, simpler, queue, ranking, race, verify)) is not None:
                reject(entry, f"does not pay: not clearly faster than {name_of(better)}", ranking)
                continue
        yield Survivor(entry, ranking, last=not queue)


def _is_lowered(made: Tried, verified: Tried) -> bool:
    """Whether verifying, and not an earlier look, lowered the graph level."""
    return verified.lowered is not None and made.lowered is None


def is_simpler(one: Tried, other: Tried, target: TargetPlan) -> bool:
    """Whether a variant costs less in another way than time: in accuracy, or by the profile's own runtime.

    The first variant of a profile is on its own runtime. Another one adds its packages to image, start and memory.
    """
    own = target.variants[0].runtime.package

    def price(entry: Tried) -> tuple[bool, bool]:
        variant = entry.made.variant
        return variant.precision != "fp32", variant.runtime.package != own

    return price(one) != price(other) and all(a <= b for a, b in zip(price(one), price(other), strict=True))


def _not_worth_it(
    entry: Tried, simpler: list[Tried], queue: list[Tried], ranking: Ranking, race: Racer, verify: Verifier
) -> Tried | None:
    """The simpler variant that is right and about as fast; None when the entry pays.

    Variants that had to be verified for that are replaced in the queue.
    """
    beaten = False
    for other in simpler:
        if pays(ranking, entry, other):
            continue
        if (gain := ranking.ratio(name_of(other), name_of(entry))) is not None and gain.value >= MUST_PAY:
            if beaten:
                # It comes behind the one that lost the duel.
                continue
            # Faster, it seems, in too few rounds to be sure: a duel settles it.
            if pays(_duel(entry, other, race), entry, other):
                beaten = True
                continue
        checked = queue[queue.index(other)] = verify(other)
        if checked.failed is not None:
            continue
        if _is_lowered(other, checked):
            # What was raced is not what is right.
            again = Ranking([entry, checked], [race([entry, checked], SECOND_ROUNDS, SECOND_RUNS)])
            if pays(again, entry, checked):
                continue
        return checked
    return None


def _duel(entry: Tried, simpler: Tried, race: Racer) -> Ranking:
    """More rounds of two variants, until they tell whether one pays or there were enough."""
    rounds: dict[str, tuple[tuple[float, ...], ...]] = {name_of(entry): (), name_of(simpler): ()}
    for more in DUEL_ROUNDS:
        latest = race([entry, simpler], more, SECOND_RUNS)
        rounds = {contender.name: rounds[contender.name] + contender.rounds for contender in latest.contenders}
        contenders = tuple(Contender(name=name, rounds=values) for name, values in rounds.items())
        duel = Ranking([entry, simpler], [latest.model_copy(update={"contenders": contenders})])
        gain = duel.ratio(name_of(simpler), name_of(entry))
        if pays(duel, entry, simpler) or (gain is not None and gain.high is not None and gain.high < MUST_PAY):
            break
    return duel


def pays(ranking: Ranking, entry: Tried, simpler: Tried) -> bool:
    """Whether a variant is clearly faster than a simpler one."""
    gain = ranking.ratio(name_of(simpler), name_of(entry))
    return gain is not None and gain.value >= MUST_PAY and (gain.low is None or gain.low > 1)


def leads(one: Tried, other: Tried, ranking: Ranking, objective: str) -> bool:
    """Whether a variant that is not right would have been better than one that is; True where nobody knows."""
    if objective == "size":
        return one.made.graph.bytes < other.made.graph.bytes
    names = [name_of(entry) for entry in ranking.order]
    slower = ranking.ratio(name_of(other), name_of(one))
    return slower is None or name_of(one) not in names or slower.value > 1


def better_of(ranking: Ranking, one: Tried, other: Tried, target: TargetPlan) -> bool:
    """Whether, of two that are right, the first is clearly better: smaller, or so much faster that it pays."""
    if target.objective == "size":
        return one.made.graph.bytes < other.made.graph.bytes
    return pays(ranking, one, other)


def lost(ranking: Ranking, entry: Tried, winner: Tried, objective: str) -> Decision:
    """Why a variant that was not looked at further lost to the one that ships."""
    reason = f"larger than {name_of(winner)}" if objective == "size" else f"slower than {name_of(winner)}"
    return rejected(entry, reason, ranking, name_of(winner))


def rejected(entry: Tried, reason: str, ranking: Ranking | None = None, winner: str | None = None) -> Decision:
    """A decision against a variant, with its times where it was raced."""
    name = name_of(entry)
    return Decision(
        variant=name,
        graph_level=entry.made.level,
        outcome="rejected",
        reason=reason,
        bytes=entry.made.graph.bytes or None,
        p50_ms=None if ranking is None else ranking.milliseconds(name),
        slower=None if ranking is None or winner is None else ranking.ratio(name, winner),
    )
