"""Which promises of time a variant keeps."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.plans import target

from ortc.common.statistics import Interval
from ortc.evaluation.budget_gates import budget_verdicts, outcome_of, under_noise
from ortc.evaluation.evidence import Evidence
from ortc.evaluation.gate_table import Observation, gate_of
from ortc.evaluation.latency import REFERENCE, ROUNDS, RUNS, numbers
from ortc.evaluation.report import Contender, Control, Numbers, Race, Starts, Verdict
from ortc.execution.host import Host
from ortc.plan.plan import Shape

HOST = Host(platform="linux/amd64", cpu="x", isa=(), cores=2, memory=2**30, gpus=())
AT = Shape(sizes=(("batch", 1),))


def race(rounds: int = 8, **milliseconds: float | list[float]) -> Race:
    """A race in which each contender takes as long in every round, or as long as listed for each."""
    return Race(
        shape=str(AT),
        host=HOST,
        threads=2,
        contenders=tuple(
            Contender(
                name=name.replace("_", "-"),
                rounds=tuple((time,) * 3 for time in (value if isinstance(value, list) else [value] * rounds)),
            )
            for name, value in milliseconds.items()
        ),
    )


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [
        (1.0, 5.0, "pass"),
        (1.0, 5.01, "inconclusive"),
        (5.0, 9.0, "inconclusive"),
        (5.01, 9.0, "fail"),
        (1.0, None, "inconclusive"),
        (None, 5.0, "pass"),
        (None, 9.0, "inconclusive"),
        (6.0, None, "fail"),
        (None, None, "inconclusive"),
    ],
)
def test_an_interval_against_a_limit(low: float | None, high: float | None, outcome: str) -> None:
    assert outcome_of(gate_of("latency p99"), Observation(3.0, (low, high)), 5.0) == outcome
    # The other way round for a quantity that must not be less.
    turned = (None if high is None else -high, None if low is None else -low)
    assert outcome_of(gate_of("speed-up"), Observation(-3.0, turned), -5.0) == outcome


def exactly(value: float) -> Interval:
    return Interval(value=value, low=value, high=value, samples=420)


def measured(**changes: Any) -> Numbers:
    fields: dict[str, Any] = {
        "p50_ms": exactly(10),
        "p90_ms": exactly(20),
        "p99_ms": exactly(30),
        "eager_p50_ms": exactly(40),
        "speedup": Interval(value=4.0, low=3.5, high=4.5, samples=20),
        "start_seconds": Interval(value=0.5, low=None, high=None, samples=5),
        "peak_rss_bytes": 1,
    }
    return Numbers(**(fields | changes))


def judge(found: Numbers, **budgets: Any) -> dict[str, Verdict]:
    verdicts = budget_verdicts(Evidence(numbers=found, at=AT), target(**budgets).budgets, "linux/amd64")
    assert {verdict.platform for verdict in verdicts} <= {"linux/amd64"}
    return {verdict.gate: verdict for verdict in verdicts}


def outcomes(found: Numbers, **budgets: Any) -> dict[str, str]:
    return {gate: verdict.outcome for gate, verdict in judge(found, **budgets).items()}


def test_nothing_promised_nothing_judged() -> None:
    assert judge(measured()) == {}


def test_each_percentile_has_its_own_limit() -> None:
    # Budgets in seconds, measurements in milliseconds.
    found = outcomes(measured(), latency={"p50": 0.010, "p90": 0.0199, "p99": 0.031})
    assert found == {"latency p50": "pass", "latency p90": "fail", "latency p99": "pass"}


def test_too_few_samples_are_inconclusive() -> None:
    few = Interval(value=1.0, low=0.9, high=None, samples=367)
    verdict = judge(measured(p99_ms=few), latency={"p99": 1.0})["latency p99"]
    assert (verdict.outcome, verdict.observed, verdict.limit) == ("inconclusive", "1 ms [900 µs, ?]", "<= 1 s")
    assert verdict.where == "batch=1, 367 samples"


def test_start_is_judged_by_its_median() -> None:
    assert outcomes(measured(), start=0.5) == {"start": "pass"}
    assert outcomes(measured(), start=0.49) == {"start": "fail"}


@pytest.mark.parametrize(
    ("least", "outcome"), [(3.5, "pass"), (3.6, "inconclusive"), (4.5, "inconclusive"), (4.6, "fail")]
)
def test_speedup(least: float, outcome: str) -> None:
    assert outcomes(measured(), min_speedup=least) == {"speed-up": outcome}


def test_observations_are_in_the_units_of_people() -> None:
    slow = Interval(value=2384.0, low=2370.0, high=2402.0, samples=420)
    found = judge(measured(p50_ms=slow), latency={"p50": 3.0}, min_speedup=1.0)
    assert found["latency p50"].observed == "2.38 s [2.37 s, 2.4 s]"
    assert found["speed-up"].observed == "4.00x [3.50x, 4.50x]"


def test_speedup_without_a_reference_is_unmeasured() -> None:
    assert outcomes(measured(speedup=None, eager_p50_ms=None), min_speedup=1.0) == {"speed-up": "unmeasured"}
    few = Interval(value=9.0, low=None, high=None, samples=5)
    assert outcomes(measured(speedup=few), min_speedup=1.0) == {"speed-up": "inconclusive"}


def test_numbers_of_a_race() -> None:
    outcome = race(20, fp32=10.0).model_copy(
        update={
            "contenders": (
                Contender(name="fp32", rounds=((10.0,) * RUNS,) * ROUNDS),
                Contender(name=REFERENCE, rounds=((40.0, 41.0, 39.0),) * ROUNDS),
            )
        }
    )
    found = numbers(outcome, "fp32", Starts(seconds=(0.3, 0.1, 0.2), peak_rss_bytes=70), 77)
    assert (found.p50_ms.value, found.p99_ms.high, found.p99_ms.samples) == (10.0, 10.0, ROUNDS * RUNS)
    assert found.speedup is not None
    assert found.speedup.value == 4.0
    assert found.eager_p50_ms is not None
    assert found.eager_p50_ms.value == 40.0
    assert (found.start_seconds.value, found.peak_rss_bytes) == (0.2, 77)
    assert (found.eager_start_seconds, found.eager_peak_rss_bytes) == (None, None)
    assert (found.fastest_ms, found.fastest_start_seconds, found.best_ratio) == (10.0, 0.1, 4.0)
    # Nothing was said of a control workload.
    assert (found.control, found.noise, found.speedup_noise) == ("none", (), ())
    assert found.start_noise == ("the median start takes 2.00x the fastest, above 1.5x",)
    eager = Starts(seconds=(4.5,), peak_rss_bytes=700)
    compared = numbers(outcome, "fp32", Starts(seconds=(0.2,), peak_rss_bytes=70), 77, eager_start=eager)
    assert (compared.eager_start_seconds, compared.eager_peak_rss_bytes) == (4.5, 700)
    alone = numbers(race(fp32=10.0), "fp32", Starts(seconds=(0.1,), peak_rss_bytes=1), 1)
    assert (alone.speedup, alone.eager_p50_ms) == (None, None)


def test_a_full_race_is_long_enough_for_p99() -> None:
    assert ROUNDS * RUNS >= 400


NOISE = ("the control workload got 22% of its 2 cores, below 90%",)
BUDGETS: dict[str, Any] = {"latency": {"p50": 1.0, "p90": 1.0, "p99": 1.0}, "start": 9.0, "min_speedup": 1.0}


def test_nothing_about_time_passes_on_a_busy_machine() -> None:
    assert set(outcomes(measured(control="quiet"), **BUDGETS).values()) == {"pass"}
    noisy = measured(control="noisy", noise=NOISE, speedup_noise=NOISE, start_noise=NOISE, fastest_ms=1.0)
    verdicts = judge(noisy, **BUDGETS)
    assert {verdict.outcome for verdict in verdicts.values()} == {"inconclusive"}
    assert len(verdicts) == 5
    for verdict in verdicts.values():
        assert verdict.where.endswith(f"; too busy to measure: {NOISE[0]}")


def test_noise_of_pytorch_says_nothing_against_latencies() -> None:
    found = outcomes(measured(control="quiet", speedup_noise=("PyTorch eager has two modes",)), **BUDGETS)
    assert found.pop("speed-up") == "inconclusive"
    assert set(found.values()) == {"pass"}


@pytest.mark.parametrize(
    ("control", "fastest", "outcome"),
    [
        ("quiet", 9.0, "fail"),
        ("quiet", 7.0, "inconclusive"),
        ("noisy", 9.0, "inconclusive"),
        ("none", 9.0, "inconclusive"),
    ],
)
def test_a_failure_needs_a_quiet_control_and_no_sample_within_the_budget(
    control: str, fastest: float, outcome: str
) -> None:
    noisy = measured(control=control, noise=("fp32 has two modes",), fastest_ms=fastest)
    assert outcomes(noisy, latency={"p50": 0.008}) == {"latency p50": outcome}
    slow = measured(control=control, start_noise=("the median start",), fastest_start_seconds=fastest)
    assert outcomes(slow, start=0.1 if outcome == "fail" else 8.0)["start"] == outcome
    ratio = measured(control=control, speedup_noise=("two modes",), best_ratio=4.7 if fastest < 9 else 4.55)
    assert outcomes(ratio, min_speedup=4.6)["speed-up"] == outcome


def test_without_noise_a_failure_stays_one() -> None:
    assert under_noise("fail", (), is_sure=False) == "fail"
    assert under_noise("unmeasured", NOISE, is_sure=False) == "unmeasured"


def test_what_was_measured_without_a_control_says_so() -> None:
    verdict = judge(measured(control="none"), latency={"p50": 1.0})["latency p50"]
    assert (verdict.outcome, verdict.where) == ("pass", "batch=1, 420 samples, no control")


def judged_start(starts: Starts, limit: float) -> str:
    (verdict,) = budget_verdicts(Evidence(starts=starts), target(start=limit).budgets, "linux/amd64")
    return verdict.outcome


def test_starts_beside_other_load_neither_pass_nor_fail() -> None:
    busy = Control(threads=2, rounds=((1.0,),), wall_seconds=(0.06,), cpu_seconds=(0.024,))
    starts = Starts(seconds=(0.3, 0.31, 0.32), peak_rss_bytes=1, control=busy)
    for limit in (0.1, 9.0):
        assert judged_start(starts, limit) == "inconclusive"
    quiet = starts.model_copy(update={"control": busy.model_copy(update={"cpu_seconds": (0.118,)})})
    assert judged_start(quiet, 0.1) == "fail"
    assert judged_start(quiet, 9.0) == "pass"
