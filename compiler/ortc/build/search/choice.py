"""Choice: which of the variants that were raced ships, by times, their intervals, and what variants cost besides."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ortc.build.tried import Tried
from ortc.common.statistics import CONFIDENCE, Interval, median, ratio_of_rounds
from ortc.evaluation.report import Race
from ortc.plan.plan import TargetPlan

MUST_PAY = 1.03
"""How many times faster a variant must be than one that costs less: in error, or in the size of its runtime."""
SURE = 1.25
"""A ratio this many times beyond the one that decides needs no confirmation by other processes."""
LEAST_ROUNDS = 6
"""Rounds of a race that has an interval; a shorter one only leaves out what is far behind."""
SETTLING_ROUNDS = (8, 12, 14)
"""Races in processes of their own, one after the other until they tell. No two races are of as many rounds, because
a finished race is not run again."""
SETTLING_RUNS = 5
RESAMPLES = 400

Rounds = Sequence[Sequence[float]]
Racer = Callable[[Sequence[Tried], int, int], Race]
Bytes = Callable[[Tried], int]


@dataclass
class Ranking:
    """Variants from the best to the worst by the target's objective, with what is known of their speed."""

    order: list[Tried]
    races: list[Race] = field(default_factory=list)
    _known: dict[tuple[str, str, int], Interval] = field(default_factory=dict, repr=False, compare=False)

    def ratio(self, slow: str, fast: str) -> Interval | None:
        """How many times faster one variant is than another, by every race of both that has an interval.

        Where no race has one, the last race that had both decides.
        """
        if not (found := self.pairs(slow, fast)):
            return None
        if (key := (slow, fast, len(self.races))) not in self._known:
            long = [pair for pair in found if len(pair[0]) >= LEAST_ROUNDS]
            self._known[key] = ratio_of_races(long) if long else ratio_of_rounds(*found[-1])
        return self._known[key]

    def pairs(self, slow: str, fast: str) -> list[tuple[Rounds, Rounds]]:
        """Rounds of both, of each race that had both."""
        found: list[tuple[Rounds, Rounds]] = []
        for race in self.races:
            rounds = {contender.name: contender.rounds for contender in race.contenders}
            if slow in rounds and fast in rounds:
                found.append((rounds[slow], rounds[fast]))
        return found

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


def ratio_of_races(races: Sequence[tuple[Rounds, Rounds]]) -> Interval:
    """How many times faster, from several races, each in processes of its own: the median over all of their rounds.

    A process keeps its layout in memory as long as it lives, so that rounds of one race share an error that no number
    of them shows. The interval is a seeded bootstrap over races, then over the rounds of each (Davison and Hinkley,
    Bootstrap Methods and their Application, section 3.8).

    Args:
        races: rounds of the slow and of the fast one, for each race.
    """
    if len(races) == 1:
        return ratio_of_rounds(*races[0])
    ratios = [[median(a) / median(b) for a, b in zip(slow, fast, strict=True)] for slow, fast in races]
    generator = random.Random(0)  # noqa: S311  # resampling, not secrecy
    drawn = sorted(
        median([value for race in generator.choices(ratios, k=len(ratios)) for value in _resampled(race, generator)])
        for _ in range(RESAMPLES)
    )
    every = [value for race in ratios for value in race]
    tail = round(RESAMPLES * (1 - CONFIDENCE) / 2)
    return Interval(value=median(every), low=drawn[tail], high=drawn[-tail - 1], samples=len(every))


def _resampled(values: Sequence[float], generator: random.Random) -> list[float]:
    return generator.choices(values, k=len(values))


@dataclass(frozen=True)
class Choice:
    """The variant that is looked at next, and how it stands to the others.

    `tied` are as fast, as far as races tell. `turned_down` costs too much for what it saves, with the reason. `behind`
    says whether another one is faster.
    """

    entry: Tried
    tied: tuple[Tried, ...] = ()
    turned_down: tuple[tuple[Tried, str], ...] = ()
    behind: bool = False


@dataclass(frozen=True)
class Chooser:
    """Chooses between raced variants.

    Attributes:
        target: whose objective and budgets decide.
        settle: races variants in processes of their own.
        environment: bytes of a variant's runtime environment, 0 where it is unknown.
    """

    target: TargetPlan
    settle: Racer
    environment: Bytes

    def choose(self, queue: Sequence[Tried], ranking: Ranking) -> Choice:
        """The variant to look at next, of those that are left, in the order of their ranking.

        The fastest; where that and others are tied, the one of the smallest price. Under `balanced` a variant has to
        save a share of the latency budget over each one that is simpler, or it is turned down.

        Args:
            queue: at least one variant.
            ranking: what is known of their speed; races that are needed are added to it.
        """
        if self.target.objective == "size" or not ranking.races:
            return Choice(queue[0])
        alive, turned_down = list(queue), list[tuple[Tried, str]]()
        while self.target.objective == "balanced":
            fastest = alive[0]
            simpler = [other for other in alive[1:] if is_simpler(other, fastest, self.target)]
            better = self._undefeated(fastest, self._within_budget(fastest, simpler, ranking), ranking)
            if not better:
                break
            turned_down.append((fastest, self._too_little(fastest, better[0], ranking)))
            alive.remove(fastest)
        fastest = alive[0]
        cheaper = [other for other in alive[1:] if self.price(other) < self.price(fastest)]
        tied = self._undefeated(fastest, self._within_budget(fastest, cheaper, ranking), ranking, MUST_PAY)
        entry = min([fastest, *tied], key=self.price)
        others = [other for other in alive if other is not entry and self._is_tied(entry, other, ranking)]
        return Choice(entry, tuple(others), tuple(turned_down), behind=entry is not queue[0])

    def price(self, entry: Tried) -> tuple[int, bool, int, int]:
        """What a variant costs besides time: its runtime's bytes, lower precision, its model's bytes, then its place.

        Precision comes after the runtime: of two on one runtime, the exact one is worth more than a smaller model.
        """
        variant, names = entry.made.variant, [variant.name for variant in self.target.variants]
        place = names.index(variant.name) if variant.name in names else len(names)
        return self.environment(entry), variant.precision != "fp32", entry.made.graph.bytes, place

    def required(self, simpler: Tried, ranking: Ranking) -> float:
        """How many times faster than a simpler variant one must be to be worth its price."""
        milliseconds = ranking.milliseconds(name_of(simpler))
        if self.target.objective != "balanced" or milliseconds is None:
            return MUST_PAY
        saving = self.must_save(milliseconds)
        return max(MUST_PAY, milliseconds / (milliseconds - saving)) if saving < milliseconds else math.inf

    def must_save(self, milliseconds: float) -> float:
        """Milliseconds to save over a variant that takes so many: a share of the budget, or of its own time."""
        limit = tightest(self.target)
        return self.target.must_save * (milliseconds if limit is None else limit)

    def _within_budget(self, fastest: Tried, others: Sequence[Tried], ranking: Ranking) -> list[Tried]:
        """Those whose median does not break a latency budget that the fastest one may keep."""
        limit = tightest(self.target)
        first = ranking.milliseconds(name_of(fastest))
        if limit is None or first is None or first > limit:
            return list(others)
        return [other for other in others if (ranking.milliseconds(name_of(other)) or 0) <= limit]

    def _undefeated(
        self, fastest: Tried, others: Sequence[Tried], ranking: Ranking, required: float | None = None
    ) -> list[Tried]:
        """Those that the fastest one is not clearly faster than, by as much as is asked; races settle what is open."""

        def needed(other: Tried) -> float:
            return self.required(other, ranking) if required is None else required

        for rounds in SETTLING_ROUNDS:
            unsettled = [other for other in others if not self._is_settled(fastest, other, ranking, needed(other))]
            if not unsettled:
                break
            ranking.races.append(self.settle([fastest, *unsettled], rounds, SETTLING_RUNS))
        return [other for other in others if not self._beats(fastest, other, ranking, needed(other))]

    @staticmethod
    def _beats(fast: Tried, slow: Tried, ranking: Ranking, required: float) -> bool:
        gain = ranking.ratio(name_of(slow), name_of(fast))
        if gain is None:
            return True
        return gain.value > required if gain.low is None else gain.low > required

    @staticmethod
    def _is_settled(fast: Tried, slow: Tried, ranking: Ranking, required: float) -> bool:
        """Whether no more races are needed: the interval is on one side, in more than one pair of processes."""
        gain = ranking.ratio(name_of(slow), name_of(fast))
        if gain is None or math.isinf(required):
            return True
        if gain.low is None or gain.high is None:
            return gain.value > SURE * required
        confirmed = len([pair for pair in ranking.pairs(name_of(slow), name_of(fast)) if len(pair[0]) >= LEAST_ROUNDS])
        if gain.low > required:
            return confirmed > 1 or gain.low > SURE * required
        return gain.high < required and (confirmed > 1 or gain.high * SURE < required)

    @staticmethod
    def _is_tied(entry: Tried, other: Tried, ranking: Ranking) -> bool:
        """Whether neither is clearly faster than the other."""
        gain = ranking.ratio(name_of(other), name_of(entry))
        if gain is None or gain.low is None or gain.high is None:
            return False
        return gain.low <= MUST_PAY and gain.high >= 1 / MUST_PAY

    def _too_little(self, fastest: Tried, simpler: Tried, ranking: Ranking) -> str:
        times = [ranking.milliseconds(name_of(entry)) or 0 for entry in (simpler, fastest)]
        saved = times[0] - times[1]
        limit = tightest(self.target)
        of = f"{self.target.must_save:.3g} of " + ("its median" if limit is None else f"the budget of {limit:.4g} ms")
        return (
            f"does not pay: saves {saved:.3g} ms over {name_of(simpler)}, must save {self.must_save(times[0]):.3g} ms "
            f"({of})"
        )


def tightest(target: TargetPlan) -> float | None:
    """Milliseconds of the target's smallest latency limit; None without a latency budget."""
    latency = target.budgets.latency
    return 1000 * min(latency.values()) if latency else None


def is_simpler(one: Tried, other: Tried, target: TargetPlan) -> bool:
    """Whether a variant costs less in another way than time: in accuracy, or by the profile's own runtime.

    The first variant of a profile is on its own runtime. Another one adds its packages to image, start and memory.
    """
    own = target.variants[0].runtime.package

    def price(entry: Tried) -> tuple[bool, bool]:
        variant = entry.made.variant
        return variant.precision != "fp32", variant.runtime.package != own

    return price(one) != price(other) and all(a <= b for a, b in zip(price(one), price(other), strict=True))


def pays(ranking: Ranking, entry: Tried, simpler: Tried, required: float = MUST_PAY) -> bool:
    """Whether a variant is clearly faster than a simpler one."""
    gain = ranking.ratio(name_of(simpler), name_of(entry))
    return gain is not None and (gain.value if gain.low is None else gain.low) > required
