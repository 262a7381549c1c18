"""Which of the variants that were raced ships, when rounds are as noisy as on real machines."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from tests.support.examples import examples
from tests.support.plans import target, variant

from ortc.build.search.choice import MUST_PAY, Chooser, Ranking, name_of, ratio_of_races
from ortc.build.search.ranking import Survivor, decisions_of, survivors
from ortc.build.tried import Tried
from ortc.bundle.assemble import Made
from ortc.common.statistics import median
from ortc.evaluation.report import Contender, Race
from ortc.execution.host import Host
from ortc.passes.make_variant import VariantGraph

HOST = Host(platform="linux/amd64", cpu="x", isa=(), cores=2, memory=2**30, gpus=())
RUNTIMES = {"onnxruntime": 128_000_000, "onnxruntime-openvino": 355_000_000}
BUILDS = examples(20)


def tried(name: str, precision: str = "fp32", size: int = 100, package: str = "onnxruntime") -> Tried:
    plain = variant(name, precision)
    chosen = plain.model_copy(update={"runtime": plain.runtime.model_copy(update={"package": package})})
    made = Made(chosen, "all", dict, VariantGraph(bytes=size, domains={}, operators={}))
    return Tried(made=made, key=name, check=None, verdicts=(), lowered=None)


PLAIN, HEAVY = tried("plain"), tried("heavy", package="onnxruntime-openvino")
SHORT = tried("short", "int8", 25)


class Machine:
    """Races on a machine as measured: processes differ by a few per cent as long as they live, rounds by more.

    Every race starts processes of its own, as those that settle do. In some rounds a neighbour takes the processor
    from all contenders, in fewer from one alone.
    """

    def __init__(self, seed: int, milliseconds: dict[str, float], process: float = 0.02, noise: float = 0.04) -> None:
        self.random = random.Random(seed)  # noqa: S311  # a simulation, not secrecy
        self.milliseconds, self.process, self.noise = milliseconds, process, noise
        self.races = 0

    def __call__(self, entries: Sequence[Tried], rounds: int, runs: int) -> Race:
        self.races += 1
        luck = {name_of(entry): self.random.gauss(1, self.process) for entry in entries}
        times: dict[str, list[tuple[float, ...]]] = {name: [] for name in luck}
        for _ in range(rounds):
            weather = self.random.choice([1.0, 1.0, 1.0, 1.4])
            for name in times:
                disturbed = 1.8 if self.random.random() < 0.05 else 1.0
                level = self.milliseconds[name] * luck[name] * weather * disturbed
                level *= max(0.5, self.random.gauss(1, self.noise))
                times[name].append(tuple(level * abs(self.random.gauss(1, 0.01)) for _ in range(runs)))
        contenders = tuple(Contender(name=name, rounds=tuple(values)) for name, values in times.items())
        return Race(shape="batch=1", host=HOST, threads=2, contenders=contenders)


def chooser(settle: Machine, **changes: object) -> Chooser:
    return Chooser(target(**changes), settle, lambda entry: RUNTIMES[entry.made.variant.runtime.package])


def build(seed: int, milliseconds: dict[str, float], *entries: Tried, **changes: object) -> Survivor:
    """The first survivor of a search on a simulated machine, where every variant is right."""
    machine = Machine(seed, milliseconds)
    return next(survivors(entries, chooser(machine, **changes), machine, lambda entry: entry, _never))


def _never(entry: Tried, reason: str, ranking: Ranking) -> None:
    raise AssertionError(f"{name_of(entry)}: {reason}")


@pytest.mark.parametrize("faster", [HEAVY, SHORT], ids=["runtime", "precision"])
def test_a_variant_that_is_clearly_faster_wins_every_build(faster: Tried) -> None:
    times = {"plain": 13.0, name_of(faster): 10.0}
    found = [build(seed, times, PLAIN, faster) for seed in range(BUILDS)]
    assert {name_of(survivor.entry) for survivor in found} == {name_of(faster)}
    assert {survivor.choice.tied for survivor in found} == {()}


@pytest.mark.parametrize("other", [HEAVY, SHORT, tried("larger", size=120)], ids=["runtime", "precision", "model"])
def test_of_variants_that_are_as_fast_the_one_that_costs_less_wins_every_build(other: Tried) -> None:
    times = {"plain": 10.0, name_of(other): 10.0}
    for seed in range(BUILDS):
        found = build(seed, times, other, PLAIN)
        assert name_of(found.entry) == "plain"
        (decision,) = decisions_of(found, chooser(Machine(0, {})), {}).values()
        assert decision.slower is not None
        assert decision.slower.low is not None
        # It is tied, unless the processes of the only race had luck, and then it was the slower one.
        assert (decision.outcome == "tied") == (decision.slower.low <= MUST_PAY)
        assert found.choice.behind <= (decision.outcome == "tied")


@pytest.mark.parametrize("gain", [1.01, 1.02, 1.04, 1.06, 1.1])
def test_a_winner_that_costs_more_is_never_tied_with_one_that_costs_less(gain: float) -> None:
    """Near the border either may ship; the smaller one is tied where it is not the faster one."""
    for seed in range(BUILDS):
        found = build(seed, {"plain": 10.0 * gain, "heavy": 10.0}, PLAIN, HEAVY)
        tied = [name_of(entry) for entry in found.choice.tied]
        assert tied == [] if found.entry.made.variant.name == "heavy" else not found.choice.behind or tied == ["heavy"]


def test_of_several_that_are_as_fast_the_smallest_runtime_wins_before_the_exact_one() -> None:
    times = {"short": 10.0, "heavy": 10.0}
    assert {name_of(build(seed, times, HEAVY, SHORT).entry) for seed in range(BUILDS)} == {"short"}


@pytest.mark.parametrize(
    ("plain", "budget", "share", "winner"),
    [
        (10.05, 0.05, 0.05, "plain"),  # 50 us under 50 ms
        (13.0, 0.05, 0.1, "plain"),  # 3 ms, where 5 ms are asked for
        (13.0, 0.05, 0.02, "heavy"),  # 3 ms, where 1 ms is
        (30.0, 0.05, 0.1, "heavy"),
        (11.0, None, 0.2, "plain"),  # 9 % of its own time, where 20 % are asked for
        (15.0, None, 0.2, "heavy"),
        (4.0, 0.05, 0.1, "plain"),  # it takes less than what would have to be saved
        (40.0, 0.035, 0.9, "heavy"),  # the plain one breaks the budget
    ],
)
def test_balanced_asks_for_a_share_of_the_budget(plain: float, budget: float | None, share: float, winner: str) -> None:
    times = {"plain": plain, "heavy": 10.0 if plain > 10 else 1.0}
    changes = {"objective": "balanced", "must_save": share, "latency": {"p99": budget} if budget else None}
    for seed in range(BUILDS // 3):
        found = build(seed, times, HEAVY, PLAIN, **changes)
        assert name_of(found.entry) == winner
        reasons = {name_of(entry): reason for entry, reason in found.choice.turned_down}
        assert reasons.keys() <= {"heavy"}
        if winner == "plain" and reasons:
            assert "does not pay: saves" in reasons["heavy"]
            assert "over plain, must save" in reasons["heavy"]


def test_balanced_climbs_one_price_at_a_time() -> None:
    """INT8 saves enough over fp32, and another runtime in INT8 too little over that."""
    short_elsewhere = tried("short-elsewhere", "int8", 25, "onnxruntime-openvino")
    times = {"plain": 30.0, "short": 14.0, "short-elsewhere": 10.0, "heavy": 29.0}
    changes = {"objective": "balanced", "must_save": 0.1, "latency": {"p99": 0.06}}
    found = build(1, times, PLAIN, HEAVY, SHORT, short_elsewhere, **changes)
    assert name_of(found.entry) == "short"
    (turned_down, reason), *_ = found.choice.turned_down
    assert name_of(turned_down) == "short-elsewhere"
    assert "over short, must save 6 ms (0.1 of the budget of 60 ms)" in reason
    assert found.choice.behind


def test_a_choice_that_is_not_right_gives_way_to_the_next() -> None:
    machine = Machine(3, {"plain": 10.0, "heavy": 10.0})
    chosen = chooser(machine)
    ranking = Ranking([HEAVY, PLAIN], [machine([HEAVY, PLAIN], 10, 5)])
    assert chosen.choose(ranking.order, ranking).entry is PLAIN
    assert chosen.choose([HEAVY], ranking).entry is HEAVY
    races = machine.races
    # What was settled is not raced again.
    assert chosen.choose(ranking.order, ranking).entry is PLAIN
    assert machine.races <= races + 3


def test_what_breaks_the_latency_budget_is_no_way_out_of_a_tie() -> None:
    machine = Machine(0, {"plain": 10.2, "heavy": 9.9}, process=0, noise=0)
    ranking = Ranking([HEAVY, PLAIN], [machine([HEAVY, PLAIN], 10, 5)])
    machine.random = random.Random(0)  # noqa: S311
    order = sorted(ranking.order, key=lambda entry: ranking.milliseconds(name_of(entry)) or 0)
    limit = sum(ranking.milliseconds(name_of(entry)) or 0 for entry in order) / 2 / 1000
    assert chooser(machine).choose(order, replace(ranking)).entry is PLAIN
    assert chooser(machine, latency={"p50": limit}).choose(order, Ranking(order, ranking.races[:1])).entry is HEAVY


def test_the_interval_of_several_races_covers_what_their_processes_differ_by() -> None:
    slow, fast = [[(10.0,)] * 8, [(11.0,)] * 8], [[(10.0,)] * 8] * 2
    found = ratio_of_races(list(zip(slow, fast, strict=True)))
    assert (found.low, found.value, found.high) == (1.0, 1.05, 1.1)
    assert found.samples == 16
    one = ratio_of_races([(slow[1], fast[0])])
    assert (one.low, one.value, one.high) == (1.1, 1.1, 1.1)


def test_the_simulation_is_as_noisy_as_it_says() -> None:
    """Of two equal variants, single races often show one as clearly faster; that is what settling is for."""
    wrong = 0
    for seed in range(BUILDS):
        machine = Machine(seed, {"plain": 10.0, "heavy": 10.0})
        race = machine([PLAIN, HEAVY], 10, 5)
        plain, heavy = (median(contender.samples()) for contender in race.contenders)
        wrong += abs(plain / heavy - 1) > 0.02
    assert wrong > BUILDS / 4
