"""Turns: every contender has as many, for as long, whatever one of its runs takes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from pathlib import Path

import pytest

from ortc.evaluation import turns
from ortc.evaluation.turns import KEPT_RUNS, TURN_SECONDS, Turn, counted_runs, joined, take_turns, thinned, turn_seconds
from ortc.execution.worker import Timed, Worker

NO_INPUTS = Path("inputs.npz")


def nothing() -> None:
    """Before a turn."""


class Clockwork(Worker):
    """A worker whose runs take what is listed, in milliseconds; it keeps what it was asked for."""

    def __init__(self, durations: Iterator[float]) -> None:
        super().__init__("clockwork", [])
        self._scratch.cleanup()
        self.durations = durations
        self.asked: list[tuple[int, int]] = []

    def turn(self, inputs: Path, *, runs: int, warmup: int, clients: int | None = None) -> Timed:
        self.asked.append((runs, warmup))
        taken = tuple(next(self.durations) for _ in range(runs + warmup))[warmup:]
        return Timed(taken, sum(taken) / 1000, sum(taken) / 1000)


@pytest.fixture(autouse=True)
def _no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "REST_SECONDS", 0.0)


@pytest.mark.parametrize(("bundle", "eager"), [(0.02, 0.07), (0.5, 2.0), (30.0, 90.0), (2.0, 1.0)])
def test_both_sides_have_as_many_turns_of_the_same_minimum_time(bundle: float, eager: float) -> None:
    runs = 21
    entries = [Turn("bundle", Clockwork(repeat(bundle)), runs), Turn("eager", Clockwork(repeat(eager)), 3)]
    found = {entry.name: entry for entry in take_turns(entries, NO_INPUTS, 6, nothing, nothing)}
    minimum = max(TURN_SECONDS, runs * min(bundle, eager) / 1000)
    for name, once in (("bundle", bundle), ("eager", eager)):
        assert len(found[name].wall_seconds) == len(found[name].cpu_seconds) == len(found[name].rounds) == 6
        for seconds in found[name].wall_seconds:
            assert minimum * 0.999 <= seconds <= minimum + max(runs if name == "bundle" else 3, 1) * once / 1000
    warmups = [[warmup for _, warmup in entry.worker.asked if warmup] for entry in entries]  # type: ignore[attr-defined]
    for counted, once in zip(warmups, (bundle, eager), strict=True):
        # After the probe: as long for both, and at least one run.
        assert counted[-1] == max(1, -(-int(turns.WARM_SECONDS * 1e6) // int(once * 1e3)))


def test_a_duration_of_a_bad_moment_does_not_shorten_turns() -> None:
    def slow_at_first() -> Iterator[float]:
        # Until after the first turn.
        yield from repeat(112.6, 17)
        yield from repeat(0.07)

    worker = Clockwork(slow_at_first())
    (found,) = take_turns([Turn("eager", worker, 1)], NO_INPUTS, 4, nothing, nothing)
    assert min(found.wall_seconds) >= TURN_SECONDS * 0.999
    assert found.rounds[-1] == (0.07,) * KEPT_RUNS
    assert worker.asked[-1][0] == counted_runs(0.07e-3, 0.1126, 1)


def test_the_number_of_runs_follows_from_the_duration_of_one() -> None:
    assert counted_runs(0.00007, 0.1, 21) == 1429
    assert counted_runs(0.05, 0.1, 21) == 21
    assert counted_runs(0.05, 0.1, 1) == 2
    assert counted_runs(1e-9, 0.1, 1) == turns.MAX_RUNS


def test_the_fastest_contender_says_how_long_turns_are() -> None:
    worker = Clockwork(repeat(1.0))
    entries = [Turn("bundle", worker, 21), Turn("eager", worker, 3)]
    assert turn_seconds(entries, (0.05, 0.2), TURN_SECONDS) == pytest.approx(1.05)
    assert turn_seconds(entries, (0.001, 0.2), TURN_SECONDS) == TURN_SECONDS


def test_samples_are_thinned_evenly() -> None:
    assert thinned(range(KEPT_RUNS)) == tuple(range(KEPT_RUNS))
    assert thinned([0.0] * 900 + [1.0] * 100, kept=100) == (0.0,) * 90 + (1.0,) * 10


def test_parts_of_a_turn_add_up_and_an_unknown_clock_stays_unknown() -> None:
    assert joined([Timed((1.0,), 2.0, 3.0), Timed((4.0,), 5.0, 6.0)]) == Timed((1.0, 4.0), 7.0, 9.0)
    assert joined([Timed((1.0,), 2.0, 3.0), Timed((4.0,), 5.0, None)]).cpu_seconds is None
    old = [Turn("old", Clockwork(repeat(1.0)))]
    old[0].worker.turn = lambda *_, runs, **__: Timed((50.0,) * runs, runs / 20, None)  # type: ignore[method-assign]
    (found,) = take_turns(old, NO_INPUTS, 2, nothing, nothing)
    assert (found.cpu_seconds, found.wall_seconds) == ((), (0.1, 0.1))


def test_a_race_ends_early_where_time_is_over() -> None:
    (found,) = take_turns([Turn("a", Clockwork(repeat(1.0)))], NO_INPUTS, 9, nothing, nothing, least=2, seconds=0.0)
    assert len(found.rounds) == 2


def test_the_control_runs_before_every_turn() -> None:
    told: list[str] = []
    entries = [Turn("a", Clockwork(repeat(50.0))), Turn("b", Clockwork(repeat(50.0)))]
    take_turns(entries, NO_INPUTS, 3, lambda: told.append("look"), lambda: told.append("control"))
    assert told == ["look", "control"] * 6


def test_runs_that_wait_for_a_core_do_not_multiply_the_time_of_a_turn() -> None:
    def busy() -> Iterator[float]:
        # One run of ten is quick, as beside other work.
        while True:
            yield 0.1
            yield from repeat(40.0, 9)

    (found,) = take_turns([Turn("eager", Clockwork(busy()), 3)], NO_INPUTS, 6, nothing, nothing)
    assert max(found.wall_seconds) <= 3 * TURN_SECONDS
