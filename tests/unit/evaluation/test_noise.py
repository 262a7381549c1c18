"""Which samples are those of a busy machine: synthetic rounds, as they were seen on quiet and busy ones."""

from __future__ import annotations

import random

import pytest
from tests.support.examples import examples

from ortc.evaluation.noise import (
    beside,
    bimodal,
    control_noise,
    control_state,
    descheduled,
    drift,
    race_noise,
    starts_noise,
)
from ortc.evaluation.report import BusyProcess, Contender, Control, Load, Race, Starts
from ortc.execution.host import Host

HOST = Host(platform="linux/amd64", cpu="x", isa=(), cores=2, memory=2**30, gpus=())
ROUNDS = 20


def control(share: float = 0.98, spread: float = 1.05, turns: int = ROUNDS, threads: int = 2) -> Control:
    """Turns of 12 ms, of which the threads computed a share; the slow ones take `spread` times as long."""
    walls = tuple(0.012 * (spread if turn % 3 == 2 else 1.0) for turn in range(turns))
    return Control(
        threads=threads,
        rounds=((0.7,) * 32,) * turns,
        wall_seconds=walls,
        cpu_seconds=tuple(wall * threads * share for wall in walls),
    )


def contender(medians: list[float], *, name: str = "fp32", shares: list[float] | None = None) -> Contender:
    """A contender whose rounds have these medians, in milliseconds, and used these cores."""
    return Contender(
        name=name,
        rounds=tuple((value,) * 3 for value in medians),
        wall_seconds=(0.1,) * len(medians) if shares else (),
        cpu_seconds=tuple(0.1 * share for share in shares) if shares else (),
    )


def race(*contenders: Contender, controlled: Control | None = None, host: Host = HOST) -> Race:
    return Race(
        shape="batch=8", host=host, threads=2, contenders=contenders, control=controlled or control(), load=None
    )


def jittered(level: float, count: int = ROUNDS, seed: int = 0, jitter: float = 0.04) -> list[float]:
    generator = random.Random(seed)  # noqa: S311  # samples, not secrecy
    return [level * (1 + generator.gauss(0, jitter)) for _ in range(count)]


@pytest.mark.parametrize("seed", range(examples(200)))
def test_a_quiet_machine_is_not_noisy(seed: int) -> None:
    shares = [1.02 + 0.01 * (turn % 3) for turn in range(ROUNDS)]
    two = [1.9 + 0.05 * (turn % 3) for turn in range(ROUNDS)]
    found = race(
        contender(jittered(0.05, seed=seed), shares=shares),
        contender(jittered(0.09, seed=seed + 1), name="PyTorch eager", shares=two),
    )
    assert race_noise(found) == ()


def test_a_quiet_machine_with_a_few_disturbed_rounds_is_not_noisy() -> None:
    medians = jittered(0.05)
    medians[3], medians[11] = 0.2, 0.09
    assert race_noise(race(contender(medians, shares=[1.0] * ROUNDS))) == ()


def test_a_control_that_does_not_get_its_cores() -> None:
    # Four busy loops beside two threads on two cores.
    (line,) = control_noise(control(share=0.33))
    assert line == "the control workload got 33% of its 2 cores, below 90%"
    assert control_noise(control(share=0.91)) == ()
    assert control_noise(control(share=0.5, threads=1))[0].startswith("the control workload got 50% of its core,")


def test_a_control_that_varies() -> None:
    # Nobody took its cores, and they are not always as fast: heat, or a neighbour on the same hardware.
    (line,) = control_noise(control(spread=1.4))
    assert line == "turns of the control workload vary by 1.40x, above 1.25x"
    assert control_noise(control(spread=1.2)) == ()


@pytest.mark.parametrize(("turns", "interrupted"), [(6, 1), (8, 2), (20, 5)])
def test_a_quarter_of_the_turns_may_be_interrupted(turns: int, interrupted: int) -> None:
    """As on an idle virtual machine. The medians that a race claims do not move with a quarter of its rounds."""
    walls = (0.037,) * (turns - interrupted) + (0.09,) * interrupted
    found = control(turns=turns).model_copy(
        update={"wall_seconds": walls, "cpu_seconds": tuple(2 * 0.98 * min(wall, 0.037) for wall in walls)}
    )
    assert control_noise(found) == ()
    more = found.model_copy(
        update={
            "wall_seconds": (0.09,) * (turns // 3 + 1) + walls[: turns - turns // 3 - 1],
        }
    )
    assert control_noise(more) != ()


def test_without_a_control_nothing_is_known_of_the_machine() -> None:
    assert control_noise(None) == ()
    assert control_state(None) == "none"
    assert control_state(control(), None) == "none"
    assert control_state(control(), control()) == "quiet"
    assert control_state(control(), control(share=0.5)) == "noisy"
    assert control_state(control(turns=0)) == "none"


def test_a_contender_that_did_not_compute_was_descheduled() -> None:
    line = descheduled(contender([112.6] * ROUNDS, name="PyTorch eager", shares=[0.33] * ROUNDS))
    assert line == "PyTorch eager computed 33% of its time, below 85%"
    assert descheduled(contender([1.0] * ROUNDS, shares=[0.95] * ROUNDS)) is None
    # Of an older bundle nobody knows.
    assert descheduled(contender([1.0] * ROUNDS)) is None


def test_a_contender_that_lost_a_core_in_some_rounds() -> None:
    shares = [1.95] * 13 + [1.1] * 7
    line = descheduled(contender([1.0] * ROUNDS, shares=shares))
    assert line == "fp32 got less than 75% of 1.9 cores in 7 of 20 rounds"
    assert descheduled(contender([1.0] * ROUNDS, shares=[1.95] * 16 + [1.1] * 4)) is None


def test_a_contender_on_a_gpu_waits_for_it() -> None:
    waiting = contender(jittered(5.0), shares=[0.2] * ROUNDS)
    assert race_noise(race(waiting, host=HOST.model_copy(update={"gpus": ("H200",)}))) == ()
    assert race_noise(race(waiting)) != ()


@pytest.mark.parametrize("share", [4, 8, 10, 16])
def test_two_modes(share: int) -> None:
    medians = [*jittered(0.07, ROUNDS - share), *jittered(42.3, share, seed=1)]
    random.Random(2).shuffle(medians)  # noqa: S311
    modes = bimodal(medians)
    assert modes is not None
    assert modes == (pytest.approx(0.07, rel=0.05), pytest.approx(42.3, rel=0.05))
    (line,) = race_noise(race(contender(medians)))
    assert line.startswith("fp32 has two modes, 0.0")


@pytest.mark.parametrize("seed", range(examples(200)))
def test_one_wide_mode_is_one(seed: int) -> None:
    assert bimodal(jittered(1.0, seed=seed, jitter=0.1)) is None


def test_few_rounds_have_neither_modes_nor_drift() -> None:
    assert bimodal([1.0, 1.0, 9.0, 9.0]) is None
    assert drift([1.0, 2.0, 3.0, 4.0]) is None


@pytest.mark.parametrize("slope", [0.02, -0.02])
def test_drift(slope: float) -> None:
    medians = [value * (1 + slope * turn) for turn, value in enumerate(jittered(1.0))]
    ratio = drift(medians)
    assert ratio is not None
    assert (ratio > 1) == (slope > 0)
    (line,) = race_noise(race(contender(medians)))
    assert line.startswith("fp32 drifts: the last rounds take ")


@pytest.mark.parametrize("seed", range(examples(100)))
def test_chance_is_no_drift(seed: int) -> None:
    assert drift(jittered(1.0, seed=seed)) is None


def test_noise_is_of_the_contenders_whose_times_are_claimed() -> None:
    modes = [0.1, 9.0] * 10
    found = race(contender(jittered(0.05)), contender(modes, name="PyTorch eager"))
    assert race_noise(found, "fp32") == ()
    assert len(race_noise(found, "fp32", "PyTorch eager")) == len(race_noise(found)) == 1


def test_starts_that_are_far_apart() -> None:
    steady = Starts(seconds=(0.30, 0.31, 0.33, 0.32, 0.30), peak_rss_bytes=1, control=control(turns=6))
    assert starts_noise(steady) == ()
    apart = steady.model_copy(update={"seconds": (0.30, 0.5, 0.6, 0.7, 0.9)})
    assert starts_noise(apart) == ("the median start takes 2.00x the fastest, above 1.5x",)
    busy = steady.model_copy(update={"control": control(share=0.4, turns=6)})
    assert len(starts_noise(busy)) == 1


def test_what_ran_beside_it() -> None:
    load = Load(
        average=6.21,
        stolen=0.5,
        processes=(BusyProcess(name="python", cores=1.88), BusyProcess(name="cc1plus", cores=0.4)),
    )
    assert beside(load) == (
        "beside it ran python (1.88 cores), cc1plus (0.40 cores), other machines on the same hardware (0.50 cores); "
        "load average 6.21"
    )
    assert beside(Load()) == "beside it ran no process that is seen from here"
    assert beside(None) == "nothing is known of what ran beside it"
