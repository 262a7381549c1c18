"""Whether B is better than A: only where what was measured tells."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.diff_values import interval, numerics, race, target, timed

from ortc.diff.judgement import Judgement, judgements
from ortc.diff.report import TargetDiff


def judged(found: TargetDiff) -> dict[str, str]:
    return {entry.quantity: entry.judged for entry in judgements(found)}


@pytest.mark.parametrize(("after", "word"), [(80, "better"), (100, "same"), (101, "worse")])
def test_sizes_are_exact(after: int, word: str) -> None:
    found = target()
    sizes = found.sizes.model_copy(update={"model_before": 100, "model_after": after})
    assert judged(found.model_copy(update={"sizes": sizes}))["size"] == word


@pytest.mark.parametrize(
    ("before", "after", "word"),
    [
        ((2.0, 1.9, 2.1), (1.0, 0.9, 1.1), "better"),
        ((1.0, 0.9, 1.1), (2.0, 1.9, 2.1), "worse"),
        ((1.0, 0.9, 1.1), (1.2, 1.05, 1.3), "cannot tell"),
        ((1.0, 0.9, 1.1), (1.0, 0.9, 1.1), "cannot tell"),
        ((1.0, 0.9, None), (2.0, 1.9, 2.1), "cannot tell"),
    ],
)
def test_measurements_apart_are_clear_where_their_intervals_are(before: Any, after: Any, word: str) -> None:
    found = judged(target(timings=timed(interval(*before), interval(*after))))
    assert (found["p50 latency"], found["p99 latency"]) == (word, word)


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"speedup": interval(1.2, 1.1, 1.3)}, "better"),
        ({"speedup": interval(0.8, 0.7, 0.9)}, "worse"),
        ({"speedup": interval(1.1, 0.9, 1.3)}, "cannot tell"),
        ({"speedup": interval(1.2, None, None)}, "cannot tell"),
        ({"speedup": interval(1.2, 1.1, 1.3), "noise": ("busy",)}, "cannot tell"),
        ({"speedup": None, "skipped": "not here"}, "cannot tell"),
    ],
)
def test_a_race_decides_in_the_place_of_measurements(values: dict[str, Any], word: str) -> None:
    found = judgements(target(race=race(**values), timings=timed(interval(1, 1, 1), interval(9, 9, 9))))
    assert [entry.judged for entry in found if "latency" in entry.quantity] == [word]


def test_bundles_without_measurements_cannot_be_told_apart() -> None:
    assert Judgement(
        "latency", "cannot tell", "neither bundle has a measurement; `--measure` races both on this host"
    ) in judgements(target(timings=()))


@pytest.mark.parametrize(
    ("before", "after", "word"), [(0.99, 0.999, "better"), (0.999, 0.99, "worse"), (0.99, 0.99 + 1e-9, "same")]
)
def test_accuracy_is_that_of_the_worst_golden_case(before: float, after: float, word: str) -> None:
    assert judged(target(numerics=numerics(before, after)))["accuracy"] == word


@pytest.mark.parametrize(
    "values", [{"skipped": "not asked for"}, {"failed": ("B does not load",)}, {"golden_after": ()}]
)
def test_accuracy_that_was_not_seen_cannot_be_told(values: dict[str, Any]) -> None:
    assert judged(target(numerics=numerics(0.9, 0.99).model_copy(update=values)))["accuracy"] == "cannot tell"
