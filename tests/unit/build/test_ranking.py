"""The order in which variants are looked at, and when a reduced precision is worth its error."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from tests.support.plans import target, variant

from ortc.build.search.choice import MUST_PAY, SETTLING_ROUNDS, Chooser, Ranking, is_simpler, name_of, pays
from ortc.build.search.ranking import (
    FIRST_ROUNDS,
    KEPT,
    SECOND_ROUNDS,
    Survivor,
    decisions_of,
    lost,
    make_all,
    rank,
    reason_of,
    survivors,
)
from ortc.build.tried import Tried
from ortc.bundle.assemble import Made
from ortc.evaluation.report import Contender, Race, Verdict
from ortc.execution.host import Host
from ortc.passes.variant_graph import VariantGraph

HOST = Host(platform="linux/amd64", cpu="x", isa=(), cores=2, memory=2**30, gpus=())


def tried(name: str, precision: str, size: int = 100) -> Tried:
    made = Made(variant(name, precision), "all", dict, VariantGraph(bytes=size, domains={}, operators={}))
    return Tried(made=made, key=name, check=None, verdicts=(), lowered=None)


NOTHING_TO_MERGE = Verdict(gate="applies", platform="linux/amd64", outcome="fail", observed="0", limit="1")
FP32, INT8, OTHER = tried("fp32", "fp32"), tried("int8", "int8", 25), tried("int8-smooth", "int8", 26)


class Races:
    """Races in which each contender takes as long in every round, or as long as listed for each."""

    def __init__(self, **milliseconds: float | list[float]) -> None:
        self.milliseconds = {name.replace("_", "-"): value for name, value in milliseconds.items()}
        self.run: list[tuple[set[str], int]] = []

    def __call__(self, entries: Sequence[Tried], rounds: int, runs: int) -> Race:
        self.run.append(({name_of(entry) for entry in entries}, rounds))
        contenders = []
        for entry in entries:
            times = self.milliseconds[name_of(entry)]
            listed = list(itertools.islice(itertools.cycle(times if isinstance(times, list) else [times]), rounds))
            contenders.append(Contender(name=name_of(entry), rounds=tuple((time,) * runs for time in listed)))
        return Race(shape="batch=1", host=HOST, threads=2, contenders=tuple(contenders))


def names(ranking: Ranking) -> list[str]:
    return [name_of(entry) for entry in ranking.order]


@pytest.mark.parametrize("order", list(itertools.permutations([FP32, INT8, OTHER])))
def test_the_fastest_comes_first_whatever_the_order(order: tuple[Tried, ...]) -> None:
    ranking = rank(order, target(), Races(fp32=30, int8=12, int8_smooth=10))
    assert names(ranking) == ["int8-smooth", "int8", "fp32"]


def test_what_is_far_behind_is_not_raced_again_unless_it_is_a_close_baseline() -> None:
    slow, exact = tried("int8-slow", "int8"), tried("fp32-slow", "fp32")
    races = Races(fp32=19, fp32_slow=19.5, int8=10, int8_smooth=10 * KEPT * 0.99, int8_slow=10 * KEPT * 1.01)
    ranking = rank([slow, exact, FP32, OTHER, INT8], target(), races)
    assert races.run == [
        ({"int8-slow", "fp32-slow", "fp32", "int8-smooth", "int8"}, FIRST_ROUNDS),
        ({"fp32", "int8-smooth", "int8"}, SECOND_ROUNDS),
    ]
    assert names(ranking) == ["int8", "int8-smooth", "fp32", "int8-slow", "fp32-slow"]
    races = Races(fp32=21, int8=10, int8_smooth=11)
    ranking = rank([FP32, OTHER, INT8], target(), races)
    assert races.run[1:] == [({"int8-smooth", "int8"}, SECOND_ROUNDS)]
    # What the first rounds say of it is enough.
    assert pays(ranking, INT8, FP32)


def test_one_good_round_is_enough_to_be_raced_again() -> None:
    """Someone else on the machine slows what runs meanwhile, now and then most rounds of one contender."""
    unlucky = [16.0, 16.5, 13.0, 18.0]
    ranking = rank([INT8, OTHER], target(), Races(int8=10, int8_smooth=unlucky))
    assert [contender.name for contender in ranking.races[-1].contenders] == ["int8", "int8-smooth"]
    assert len(ranking.races) == 2
    unlucky[2] = 13.6
    assert len(rank([INT8, OTHER], target(), Races(int8=10, int8_smooth=unlucky)).races) == 1


def test_a_single_variant_is_not_raced() -> None:
    races = Races()
    assert names(rank([INT8], target(), races)) == ["int8"]
    assert races.run == []


def test_the_smallest_comes_first_where_size_is_the_objective() -> None:
    races = Races()
    assert names(rank([FP32, OTHER, INT8], target(objective="size"), races)) == ["int8", "int8-smooth", "fp32"]
    assert races.run == []


@pytest.mark.parametrize(("speedup", "worth"), [(0.5, False), (1.0, False), (1.02, False), (1.04, True), (2, True)])
def test_reduced_precision_must_pay(speedup: float, worth: bool) -> None:
    assert 1.02 < MUST_PAY < 1.04
    ranking = rank([FP32, INT8], target(), Races(fp32=10 * speedup, int8=10))
    assert pays(ranking, INT8, FP32) is worth


@pytest.mark.parametrize("possible", [True, False])
def test_what_stands_in_for_another_is_made_where_that_cannot_be(possible: bool) -> None:
    merged = replace(INT8, verdicts=() if possible else (NOTHING_TO_MERGE,))
    made = {"fp32": FP32, "int8": merged, "int8-smooth": OTHER}
    stand_in = OTHER.made.variant.model_copy(update={"stands_in_for": "int8"})
    variants = [FP32.made.variant, stand_in, INT8.made.variant]
    found, spared = make_all(variants, lambda some: [made[variant.name] for variant in some])
    assert [name_of(entry) for entry in found] == ["fp32", "int8", *([] if possible else ["int8-smooth"])]
    left_out = [("int8-smooth", "left out", "a full search tries it beside int8")] if possible else []
    assert [(entry.variant, entry.outcome, entry.reason) for entry in spared] == left_out


def on_another_runtime(entry: Tried, name: str) -> Tried:
    runtime = entry.made.variant.runtime.model_copy(update={"package": "onnxruntime-openvino"})
    changed = entry.made.variant.model_copy(update={"name": name, "runtime": runtime})
    return replace(entry, made=replace(entry.made, variant=changed), key=name)


@pytest.mark.parametrize(("speedup", "wins"), [(1.02, False), (1.04, True)])
@pytest.mark.parametrize("own", [FP32, INT8], ids=["fp32", "int8"])
def test_another_runtime_must_pay(own: Tried, speedup: float, wins: bool) -> None:
    other = on_another_runtime(own, "elsewhere")
    found = next(search(Judge(), Races(**{name_of(own): 10 * speedup, "elsewhere": 10.0}), own, other))
    assert name_of(found.entry) == ("elsewhere" if wins else name_of(own))
    assert [name_of(entry) for entry in found.choice.tied] == ([] if wins else ["elsewhere"])
    decision = decisions_of(found, chooser(), {})[name_of(own) if wins else "elsewhere"]
    assert decision.outcome == ("rejected" if wins else "tied")
    if not wins:
        assert decision.reason == f"as fast as {name_of(own)}, and its runtime takes 355.0 MB beside 128.0 MB"
        assert reason_of(found.choice, target()) == "fastest that passes, tied with elsewhere, and costs less"


def test_what_is_cheaper_in_one_way_and_dearer_in_another_is_not_simpler() -> None:
    exact_elsewhere = on_another_runtime(FP32, "fp32-elsewhere")
    assert is_simpler(FP32, exact_elsewhere, target())
    assert is_simpler(FP32, on_another_runtime(INT8, "int8-elsewhere"), target())
    assert not is_simpler(INT8, exact_elsewhere, target())
    assert not is_simpler(exact_elsewhere, INT8, target())
    assert not is_simpler(INT8, OTHER, target())
    # Wrong where it is cheaper: what is right takes its place.
    judge = Judge(wrong=["fp32"])
    found = next(search(judge, Races(fp32=10.0, fp32_elsewhere=9.9), FP32, exact_elsewhere))
    assert name_of(found.entry) == "fp32-elsewhere"
    assert judge.rejected.keys() == {"fp32"}


def test_a_gain_within_the_noise_does_not_pay() -> None:
    # Twice as fast in most rounds, half as fast in the others: the median is 2, the interval reaches below 1.
    ranking = rank([FP32, INT8], target(), Races(fp32=[20.0, 20.0, 20.0, 5.0, 5.0], int8=10))
    gain = ranking.ratio("fp32", "int8")
    assert gain is not None
    assert gain.value == 2
    assert not pays(ranking, INT8, FP32)


def test_a_machine_that_slows_down_for_a_round_changes_nothing() -> None:
    weather = [1.0, 3.0, 1.5, 2.0]
    races = Races(fp32=[11 * factor for factor in weather], int8=[10 * factor for factor in weather])
    ranking = rank([FP32, INT8], target(), races)
    gain = ranking.ratio("fp32", "int8")
    assert gain is not None
    assert gain.value == pytest.approx(1.1)
    assert pays(ranking, INT8, FP32)


def test_a_loser_is_told_with_its_numbers() -> None:
    ranking = rank([FP32, INT8], target(), Races(fp32=30, int8=10))
    decision = lost(ranking, FP32, INT8, "latency")
    assert (decision.outcome, decision.reason) == ("rejected", "slower than int8")
    assert (decision.bytes, decision.p50_ms) == (100, 30)
    assert decision.slower is not None
    assert decision.slower.value == 3
    assert lost(Ranking([INT8, FP32]), FP32, INT8, "size").reason == "larger than int8"


class Judge:
    """Verdicts by name: what fails, and what is right at a lower graph level only."""

    def __init__(self, wrong: Sequence[str] = (), lowered: Sequence[str] = ()) -> None:
        self.wrong, self.lowered = wrong, lowered
        self.verified: list[str] = []
        self.rejected: dict[str, str] = {}

    def verify(self, entry: Tried) -> Tried:
        name = name_of(entry)
        if entry.verdicts:
            return entry
        self.verified.append(name)
        verdict = Verdict(
            gate="cosine",
            platform="linux/amd64",
            outcome="fail" if name in self.wrong else "pass",
            observed="0.9",
            limit=">= 0.98",
        )
        return replace(entry, verdicts=(verdict,), lowered="all is wrong" if name in self.lowered else None)

    def reject(self, entry: Tried, reason: str, ranking: Ranking) -> None:
        self.rejected[name_of(entry)] = reason
        assert ranking.order


RUNTIMES = {"onnxruntime": 128_000_000, "onnxruntime-openvino": 355_000_000}


def chooser(settle: Races | None = None, **changes: object) -> Chooser:
    return Chooser(target(**changes), settle or Races(), lambda entry: RUNTIMES[entry.made.variant.runtime.package])


def search(judge: Judge, races: Races, *entries: Tried, **changes: object) -> Iterator[Survivor]:
    return survivors(entries, chooser(races, **changes), races, judge.verify, judge.reject)


def test_no_more_is_verified_than_is_asked_for() -> None:
    judge = Judge()
    found = search(judge, Races(fp32=30, int8=12, int8_smooth=10), FP32, INT8, OTHER)
    assert name_of(next(found).entry) == "int8-smooth"
    assert judge.verified == ["int8-smooth"]
    assert [(name_of(one.entry), one.last) for one in found] == [("int8", False), ("fp32", True)]


def test_what_is_wrong_gives_way_to_the_next_with_its_verdict() -> None:
    judge = Judge(wrong=["int8-smooth"])
    found = next(search(judge, Races(fp32=30, int8=12, int8_smooth=10), FP32, INT8, OTHER))
    assert name_of(found.entry) == "int8"
    assert judge.rejected == {"int8-smooth": "cosine is 0.9, must be >= 0.98"}
    everything = Judge(wrong=["int8-smooth", "int8", "fp32"])
    assert list(search(everything, Races(fp32=30, int8=12, int8_smooth=10), FP32, INT8, OTHER)) == []
    assert everything.rejected.keys() == {"int8-smooth", "int8", "fp32"}


def test_a_reduced_precision_that_does_not_pay_gives_way_to_an_exact_one_that_is_right() -> None:
    races = Races(fp32=10.1, fp32_other=10.2, int8=10)
    other = tried("fp32-other", "fp32", 101)
    found = next(search(Judge(), races, INT8, FP32, other))
    assert name_of(found.entry) == "fp32"
    assert {name_of(entry) for entry in found.choice.tied} == {"int8", "fp32-other"}
    # An exact variant that is wrong is nothing to be as fast as.
    assert name_of(next(search(Judge(wrong=["fp32"]), races, INT8, FP32, other)).entry) == "fp32-other"
    judge = Judge(wrong=["fp32", "fp32-other"])
    assert name_of(next(search(judge, races, INT8, FP32, other)).entry) == "int8"
    # Where size is the objective, bytes are the gain.
    assert name_of(next(search(Judge(), races, INT8, FP32, objective="size")).entry) == "int8"


@pytest.mark.parametrize(("settled", "winner"), [(9.0, "int8"), (12.0, "fp32")])
def test_a_gain_that_is_not_clear_is_settled_by_more_rounds(settled: float, winner: str) -> None:
    class Disturbed(Races):
        """Something else takes the processor now and then, until the last race."""

        def __call__(self, entries: Sequence[Tried], rounds: int, runs: int) -> Race:
            if rounds in SETTLING_ROUNDS[1:]:
                self.milliseconds["int8"] = settled
            return super().__call__(entries, rounds, runs)

    races = Disturbed(fp32=10.0, int8=[8.0, 8.0, 8.0, 14.0, 14.0])
    assert name_of(next(search(Judge(), races, FP32, INT8)).entry) == winner
    assert ({"fp32", "int8"}, SETTLING_ROUNDS[1]) in races.run


@pytest.mark.parametrize(("speedup", "confirmed"), [(1.1, True), (1.5, False)])
def test_a_small_gain_is_confirmed_by_other_processes(speedup: float, confirmed: bool) -> None:
    races = Races(fp32=10.0 * speedup, int8=10.0)
    assert name_of(next(search(Judge(), races, FP32, INT8)).entry) == "int8"
    assert [rounds for _, rounds in races.run if rounds in SETTLING_ROUNDS] == ([8] if confirmed else [])


class Slowed(Races):
    """Races in which a variant takes longer once its graph level was lowered."""

    def __init__(self, factor: float, **milliseconds: float | list[float]) -> None:
        super().__init__(**milliseconds)
        self.factor = factor

    def __call__(self, entries: Sequence[Tried], rounds: int, runs: int) -> Race:
        known = self.milliseconds
        lowered = {name_of(entry) for entry in entries if entry.lowered is not None}
        self.milliseconds = {
            name: value * self.factor if name in lowered and isinstance(value, float) else value
            for name, value in known.items()
        }
        try:
            return super().__call__(entries, rounds, runs)
        finally:
            self.milliseconds = known


def test_a_lowered_graph_finds_its_place_again() -> None:
    judge = Judge(lowered=["int8-smooth"])
    found = search(judge, Slowed(1.5, fp32=30.0, int8=12.0, int8_smooth=10.0), FP32, INT8, OTHER)
    assert name_of(next(found).entry) == "int8"
    judge = Judge(lowered=["int8-smooth"])
    found = search(judge, Slowed(1.1, fp32=30.0, int8=12.0, int8_smooth=10.0), FP32, INT8, OTHER)
    assert name_of(next(found).entry) == "int8-smooth"


def test_the_gain_over_an_exact_variant_is_that_over_what_is_right() -> None:
    """As raced, fp32 is as fast as INT8; at the level where it is right, it is not."""
    judge = Judge(lowered=["fp32"])
    found = search(judge, Slowed(1.5, fp32=10.1, int8=10.0), FP32, INT8)
    assert name_of(next(found).entry) == "int8"
    judge = Judge(lowered=["fp32"])
    assert name_of(next(search(judge, Slowed(1.01, fp32=10.1, int8=10.0), FP32, INT8)).entry) == "fp32"


def test_races_that_contradict_each_other_end() -> None:
    """Of two variants that are equally fast, each may win a race; both were lowered, so each asks for another."""

    class Flipping(Races):
        def __call__(self, entries: Sequence[Tried], rounds: int, runs: int) -> Race:
            # Whoever is named first loses.
            self.milliseconds = {name_of(entry): 10.0 - index for index, entry in enumerate(entries)}
            return super().__call__(entries, rounds, runs)

    judge, races = Judge(lowered=["int8", "int8-smooth"]), Flipping()
    assert {name_of(found.entry) for found in search(judge, races, INT8, OTHER)} == {"int8", "int8-smooth"}
    assert len(races.run) <= 12
