"""Search: which variants are raced, in which order they are verified, and what became of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ortc.build.search.choice import Choice, Chooser, Racer, Ranking, name_of, pays
from ortc.build.tried import Tried
from ortc.common.statistics import median, ratio_of_rounds
from ortc.common.units import format_bytes
from ortc.evaluation.gates import answers_of, describe
from ortc.evaluation.report import Contender, Decision
from ortc.plan.plan import TargetPlan, VariantPlan

FIRST_ROUNDS, FIRST_RUNS = 4, 2
SECOND_ROUNDS, SECOND_RUNS = 10, 5
QUICK_ROUNDS = 6
"""Instead of SECOND_ROUNDS in a quick search."""
KEPT = 1.35
"""A variant that took this many times as long as the fastest in the first, cheap rounds is not raced again."""
EXACT_KEPT = 2.0
"""The fastest fp32 variant is raced again up to here; what is so much faster pays by the first rounds alone."""

Verifier = Callable[[Tried], Tried]
Rejecter = Callable[[Tried, str, Ranking], None]


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
    """A variant that is right, and how it was chosen.

    Attributes:
        entry: the variant.
        ranking: what is known of the speed of those that were raced.
        choice: what it was chosen from: those that are as fast, those that do not pay, whether another is faster.
        last: whether none is left behind it.
    """

    entry: Tried
    ranking: Ranking
    choice: Choice
    last: bool


def survivors(
    entries: Sequence[Tried],
    chooser: Chooser,
    race: Racer,
    verify: Verifier,
    reject: Rejecter,
    rounds: int = SECOND_ROUNDS,
) -> Iterator[Survivor]:
    """Variants that pass, from the best on; verifying is what costs most, so no more are verified than are asked for.

    Args:
        entries: made variants.
        chooser: of the target whose objective ranks them.
        race: times variants against each other.
        verify: judges a variant at every case, and may lower its graph level.
        reject: told of each that does not pass, with the reason.
        rounds: of the race between those that came close.
    """
    if not entries:
        return
    target = chooser.target
    ranking = rank(entries, target, race, rounds)
    queue = list(ranking.order)
    while queue:
        choice = chooser.choose(queue, ranking)
        made = choice.entry
        queue.remove(made)
        entry = verify(made)
        if entry.failed is not None:
            reject(entry, describe(entry.failed), ranking)
            continue
        if _is_lowered(made, entry) and queue and target.objective != "size":
            # At another level it is another graph: its place has to be found again, once.
            ranking = rank([entry, *queue], target, race, rounds)
            queue = list(ranking.order)
            continue
        yield Survivor(entry, ranking, choice, last=not queue)


def _is_lowered(made: Tried, verified: Tried) -> bool:
    """Whether verifying, and not an earlier look, lowered the graph level."""
    return verified.lowered is not None and made.lowered is None


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


def drawn(ranking: Ranking, entry: Tried, winner: Tried, chooser: Chooser) -> Decision:
    """Why a variant that is as fast as the one that ships does not: it costs more besides."""
    price, least = chooser.price(entry), chooser.price(winner)
    what = (
        f"its runtime takes {format_bytes(price[0])} beside {format_bytes(least[0])}",
        f"{entry.made.variant.precision} is less exact than {winner.made.variant.precision}",
        f"its model takes {format_bytes(price[2])} beside {format_bytes(least[2])}",
        "it comes later in the profile",
    )
    why = next((text for text, one, other in zip(what, price, least, strict=True) if one > other), "it was not faster")
    decision = rejected(entry, f"as fast as {name_of(winner)}, and {why}", ranking, name_of(winner))
    return decision.model_copy(update={"outcome": "tied"})


def decisions_of(survivor: Survivor, chooser: Chooser, known: Mapping[str, Decision]) -> dict[str, Decision]:
    """Decide on every variant that was raced and does not ship, but for those that are decided on already."""
    entry, ranking, choice, _ = survivor
    found = {name_of(other): rejected(other, reason, ranking) for other, reason in choice.turned_down}
    tied = {name_of(other) for other in choice.tied}
    for other in ranking.order:
        if (name := name_of(other)) not in known and name not in found and name != name_of(entry):
            found[name] = (
                drawn(ranking, other, entry, chooser)
                if name in tied
                else lost(ranking, other, entry, chooser.target.objective)
            )
    return {name: decision for name, decision in found.items() if name not in known}


def reason_of(choice: Choice, target: TargetPlan) -> str:
    """Say why the variant that ships does."""
    if len(target.variants) == 1:
        return "the only variant that was tried"
    best = {
        "size": "smallest that passes",
        "latency": "fastest that passes",
        "balanced": "fastest that passes and pays",
        "throughput": "most requests per second that passes",
    }
    reason = best[target.objective]
    if choice.tied:
        reason += f", tied with {', '.join(name_of(other) for other in choice.tied)}"
    return f"{reason}, and costs less" if choice.tied and choice.behind else reason


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
        accuracy=answers_of(entry.verdicts),
    )
