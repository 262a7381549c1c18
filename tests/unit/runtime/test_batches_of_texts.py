"""Texts of different lengths that share a run: which are taken together, and what their inputs become."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support import answering_bundles
from tests.support.bundles import runtime_module

batching, answers = (runtime_module(name) for name in ("serving.batching", "processing.answers"))


@dataclass(frozen=True)
class Request:
    """A request with rows of one width."""

    width: int
    rows: int = 1


def processing(side: str = "right") -> Any:
    """What makes inputs of texts."""
    document = answering_bundles.settings("embedding", padding={"side": side, "token": 1, "type": 1})
    shapes = {name: (("batch", "sequence"), np.dtype(np.int64)) for name in answering_bundles.INPUTS}
    stored = answering_bundles.tokenizer().to_str().encode()
    return answers.Processing(document, stored, shapes, {"batch": (1, 4, 1), "sequence": (1, 12, 1)}, together=True)


@given(st.lists(st.tuples(st.integers(1, 512), st.integers(1, 8)), min_size=1, max_size=40), st.integers(1, 4096))
def test_a_batch_keeps_its_bounds_and_has_the_first_one(sizes: list[tuple[int, int]], tokens: int) -> None:
    first, *others = (Request(width, rows) for width, rows in sizes)
    bounds = batching.Batching(rows=1, delay=0.0, tokens=tokens, most_rows=16)
    jobs, full = batching.nearest(first, others, bounds)
    assert jobs[0] is first
    rows, widest = sum(job.rows for job in jobs), max(job.width for job in jobs)
    if len(jobs) > 1:
        assert rows <= 16
        assert rows * widest <= tokens
    assert full or len(jobs) == len(others) + 1


def test_the_nearest_lengths_are_taken() -> None:
    bounds = batching.Batching(rows=1, delay=0.0, tokens=200, most_rows=16)
    jobs, full = batching.nearest(
        Request(30), [Request(500), Request(5), Request(33), Request(31), Request(90)], bounds
    )
    assert [job.width for job in jobs] == [30, 31, 33, 5]
    assert full
    jobs, full = batching.nearest(Request(30), [Request(31)], bounds)
    assert (len(jobs), full) == (2, False)
    jobs, full = batching.nearest(Request(300), [Request(31)], bounds)
    assert (len(jobs), full) == (1, True)


@pytest.mark.parametrize("side", ["left", "right"])
def test_inputs_of_several_runs_are_those_of_one(side: str) -> None:
    made = processing(side)
    rows = made.rows(["a", "a b c d e", "zürich 😀", ""])
    runs = [made.inputs([row]) for row in rows]
    joined, whole = made.texts.padding.joined(runs), made.inputs(rows)
    assert joined.keys() == whole.keys()
    for name, array in joined.items():
        assert array.dtype == whole[name].dtype
        assert np.array_equal(array, whole[name]), name


@given(
    st.lists(st.sampled_from(["", "a", "a b", "a b c d", "a b c d e f g h a b c d e"]), max_size=30), st.integers(1, 60)
)
def test_runs_of_a_request_are_sorted_by_length_within_the_bound(texts: list[str], tokens: int) -> None:
    made = processing()
    rows = made.rows(texts)
    runs = list(made.runs(rows, tokens))
    assert sorted(place for run in runs for place in run) == list(range(len(rows)))
    lengths = [len(rows[place].ids) for run in runs for place in run]
    assert lengths == sorted(lengths, reverse=True)
    for run in runs:
        longest = max(len(rows[place].ids) for place in run)
        assert len(run) == 1 or len(run) * longest <= tokens
        assert len(run) <= 4
