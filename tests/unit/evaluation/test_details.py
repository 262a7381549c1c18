"""What a report keeps of measurements that are too many to list."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ortc.evaluation.answers import TextAnswer, compare_answers
from ortc.evaluation.compare import Difference
from ortc.evaluation.details import BINS, MOST_CASES, case_differences, histogram, shown_answer, shown_request

MILLISECONDS = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=40)


@given(MILLISECONDS, MILLISECONDS)
def test_every_sample_is_in_one_bin(own: list[float], eager: list[float]) -> None:
    found = histogram({"own": own, "eager": eager})
    assert found is not None
    assert len(found.edges_ms) == BINS + 1
    assert list(found.edges_ms) == sorted(found.edges_ms)
    for contender, values in zip(found.contenders, (own, eager), strict=True):
        assert len(contender.counts) == BINS
        assert sum(contender.counts) == contender.samples == len(values)


def test_samples_are_counted_where_they_are() -> None:
    found = histogram({"own": [1.0, 1.0, 100.0], "eager": [10.1]})
    assert found is not None
    assert found.edges_ms[0] == 1.0
    assert found.edges_ms[-1] == 100.0
    assert (found.contenders[0].counts[0], found.contenders[0].counts[-1]) == (2, 1)
    assert found.contenders[1].counts.index(1) == BINS // 2
    assert histogram({"own": []}) is None


def difference(cosine: float | None, **values: object) -> Difference:
    return Difference.model_validate({"output": "y", "max_abs": 0.5, "cosine": cosine, "top1": None, **values})


def test_the_worst_cases_are_kept_in_their_order() -> None:
    cases = [(f"case {index}", (difference(1 - index / 1e6),)) for index in range(MOST_CASES + 7)]
    found = case_differences([*cases, ("broken", (difference(-1.0, problem="shape", max_abs=math.inf),))])
    assert found.left_out == 8
    assert [entry.case for entry in found.listed] == [f"case {index}" for index in range(8, MOST_CASES + 7)] + [
        "broken"
    ]
    last = found.listed[-1]
    assert (last.max_abs, last.cosine, last.problem) == (None, None, "shape")
    assert json.loads(found.model_dump_json())["left_out"] == 8


def test_long_requests_and_answers_are_shortened() -> None:
    assert shown_request("a text") == "a text"
    assert shown_request("x" * 1000) == f"{'x' * 600}… (1000 characters)"
    assert shown_answer([{"label": "böse", "score": 0.123456789}]) == '[{"label": "böse", "score": 0.123457}]'
    assert shown_answer([0.5] * 384) == '[0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, "… 376 more"]'


@pytest.mark.parametrize("count", [1, 9])
def test_the_answers_furthest_from_those_of_pytorch_are_kept_worst_first(count: int) -> None:
    expected = [TextAnswer(text=f"text {index}", answer=[1.0, 0.0]) for index in range(count)]
    found = [[1.0, index / 10] for index in range(count)]
    check = compare_answers(expected, found)
    assert [entry.request for entry in check.furthest] == [f"text {index}" for index in range(count - 1, -1, -1)][:5]
    assert check.furthest[0].cosine == check.cosine_min
    assert (check.furthest[0].expected, check.furthest[0].found) == ("[1.0, 0.0]", f"[1.0, {(count - 1) / 10}]")
    assert check.furthest[0].agreement is None
