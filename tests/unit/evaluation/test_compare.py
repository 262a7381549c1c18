"""How far outputs are apart; the compiler's numbers and those of the loader that ships are the same."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tests.support.bundles import runtime_module

from ortc.common.arrays import Array
from ortc.evaluation.compare import compare, worst_cosine, worst_relative_error

loader: Any = runtime_module("loader")
golden_module = runtime_module("loading.golden")
FLOATS = st.floats(-1e3, 1e3, width=32) | st.sampled_from([0.0, np.inf, -np.inf, np.nan, 1e-30, 1e30])


def floats(*rows: list[float]) -> Array:
    return np.array(rows, dtype=np.float32)


def test_equal_outputs() -> None:
    found = compare("y", floats([1, 2], [3, 1]), floats([1, 2], [3, 1]), None)
    assert (found.output, found.max_abs, found.top1, found.problem) == ("y", 0.0, 1.0, None)
    assert found.cosine == pytest.approx(1.0)


def test_numbers_of_a_difference() -> None:
    found = compare("y", floats([1, 0], [3, 4]), floats([1, 1], [3, 4]), None)
    assert found.max_abs == 1.0
    # The worst row, [1, 0] against [1, 1], and not the mean over rows.
    assert found.cosine == pytest.approx(1 / np.sqrt(2))
    assert found.top1 == 1.0
    assert compare("y", floats([1, 0], [3, 4]), floats([0, 1], [3, 4]), None).top1 == 0.5


def test_shape_and_kind_must_be_the_same() -> None:
    assert compare("y", floats([1, 2]), floats([1], [2]), None).problem == "shape [2, 1] instead of [1, 2]"
    assert compare("y", floats([1]), np.array([[1]]), None).problem == "dtype int64 instead of float32"
    other = compare("y", floats([1]), np.array([[1.0]], dtype=np.float16), None)
    assert other.problem is None


def test_a_problem_fails_every_gate() -> None:
    found = compare("y", floats([1]), floats([1, 1]), None)
    assert (found.max_abs, found.cosine, found.top1) == (float("inf"), -1.0, 0.0)


def test_integers_are_equal_or_not() -> None:
    same = compare("label", np.array([1, 2]), np.array([1, 2]), None)
    assert (same.max_abs, same.cosine, same.top1, same.problem) == (0.0, None, 1.0, None)
    other = compare("label", np.array([1, 2]), np.array([1, 5]), None)
    assert (other.max_abs, other.top1, other.labels, other.problem) == (3.0, 0.5, 2, None)
    far = compare("label", np.array([-(2**63)]), np.array([2**63 - 1]), None)
    assert (far.max_abs, far.top1) == (2.0**64, 0.0)
    assert compare("text", np.array(["a"]), np.array(["b"]), None).top1 == 0.0
    assert compare("label", np.zeros((0, 3), int), np.zeros((0, 3), int), None).top1 == 1.0
    assert compare("label", np.array([True]), np.array([True]), None).problem is None
    # The reference's int64 against a variant's int32 is a matter of kind, not of width.
    assert compare("label", np.array([1]), np.array([1], dtype=np.int32), None).problem is None


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_odd_values_must_be_where_pytorch_has_them(odd: float) -> None:
    assert compare("y", floats([1, odd]), floats([1, odd]), None).problem is None
    assert compare("y", floats([1, odd]), floats([1, odd]), None).max_abs == 0.0
    for expected, actual in (([1, odd], [1, 2]), ([1, 2], [1, odd]), ([odd, 1], [1, odd])):
        found = compare("y", floats(expected), floats(actual), None)
        assert found.problem == "NaN or infinity at other places than expected"


def test_infinities_have_a_sign() -> None:
    assert compare("y", floats([np.inf]), floats([-np.inf]), None).problem is not None
    assert compare("y", floats([np.inf]), floats([np.nan]), None).problem is not None


def test_masked_positions_are_not_compared() -> None:
    expected = np.ones((2, 3, 4), dtype=np.float32)
    actual = expected.copy()
    actual[0, 2] = -9
    actual[1, 1:] = np.nan
    mask = np.array([[1, 1, 0], [1, 0, 0]])
    found = compare("y", expected, actual, mask)
    assert (found.max_abs, found.problem) == (0.0, None)
    assert found.cosine == pytest.approx(1.0)
    assert compare("y", expected, actual, None).problem is not None
    actual[0, 0, 0] = 2
    assert compare("y", expected, actual, mask).max_abs == 1.0


def test_masks_count_where_dimensions_are_the_masks() -> None:
    pooled = floats([1, 2, 3, 4], [1, 2, 3, 4])
    changed = floats([1, 2, 3, 5], [1, 2, 3, 4])
    assert compare("pooled", pooled, changed, np.array([[1, 1, 0], [1, 0, 0]])).max_abs == 1.0
    assert not compare("y", floats([1]), floats([2]), np.array([[0]])).proves


@pytest.mark.parametrize("kind", [np.float32, np.int64, bool])
def test_what_was_compared_is_counted(kind: type) -> None:
    ones, mask = np.ones((2, 3, 4), kind), np.array([[1, 1, 0], [0, 0, 0]])
    found = compare("y", ones, ones, mask)
    assert (found.compared, found.is_whole, found.proves) == (8, False, True)
    assert (compare("y", ones, ones, None).compared, compare("y", ones, ones, np.ones((2, 3))).is_whole) == (24, True)
    empty = compare("y", ones[:0], ones[:0], None)
    assert (empty.compared, empty.proves) == (0, False)
    assert not compare("y", ones, ones, np.zeros((2, 3))).proves


def test_zeros_and_nothing_finite_are_no_evidence() -> None:
    for nothing in ([0.0, 0.0], [np.nan, -np.inf]):
        found = compare("y", floats(nothing), floats(nothing), None)
        assert (found.problem, found.proves) == (None, False)
    assert compare("y", floats([0.0, np.nan, 1e-30]), floats([0.0, np.nan, 1e-30]), None).proves
    masked = compare("y", floats([0, 5]), floats([0, 6]), np.array([[1, 0]]))
    assert (masked.is_zero, masked.proves) == (True, False)


def test_top1_of_log_probabilities_does_not_rank_infinities() -> None:
    expected = floats([-1, -2, -np.inf], [-np.inf, -1, -2])
    assert compare("y", expected, floats([-2, -1, -np.inf], [-np.inf, -2, -1]), None).top1 == 0.0
    assert compare("y", expected, expected, None).top1 == 1.0
    nothing = floats([np.nan, -np.inf])
    assert compare("y", nothing, nothing, None).top1 is None


def test_labels_at_masked_positions_are_nobodys_answer() -> None:
    expected, actual = np.array([[1, 2, 3, 4]]), np.array([[1, 9, 3, 4]])
    assert compare("label", expected, actual, None).top1 == 0.75
    assert compare("label", expected, actual, np.array([[1, 1, 0, 0]])).top1 == 0.5


def test_top1_counts_unmasked_rows_alone() -> None:
    expected = np.zeros((1, 4, 2), dtype=np.float32)
    actual = expected.copy()
    actual[0, 0, 1] = 1
    assert compare("y", expected, actual, np.array([[1, 1, 0, 0]])).top1 == 0.5


def test_top1_over_positions_never_ranks_a_masked_one() -> None:
    # Start of an answer: all scores are negative, and zeros at padding would win in both.
    expected, actual = floats([-1, -2, -3, -4]), floats([-2, -1, -3, -4])
    assert compare("start", expected, actual, np.array([[1, 1, 1, 0]])).top1 == 0.0


@pytest.mark.parametrize("shape", [(5,), (), (3, 1)])
def test_top1_needs_something_to_rank(shape: tuple[int, ...]) -> None:
    assert compare("y", np.ones(shape), np.ones(shape), None).top1 is None


def test_rows_of_zeros() -> None:
    assert worst_cosine(np.zeros((2, 3)), np.zeros((2, 3))) == 1.0
    assert worst_cosine(np.zeros((1, 3)), np.ones((1, 3))) == 0.0
    assert worst_cosine(np.zeros((1, 3)), np.array([[1.0, 0, 0]])) == 0.0
    assert worst_cosine(np.array([[1.0, 0, 0]]), np.zeros((1, 3))) == 0.0


def test_cosine_neither_overflows_nor_vanishes() -> None:
    assert worst_cosine(np.full((1, 2), 1e-200), np.full((1, 2), 1e200)) == pytest.approx(1.0)
    assert worst_cosine(np.array([[1e200, 0.0]]), np.array([[0.0, 1e-200]])) == 0.0


def test_empty_outputs_are_equal() -> None:
    found = compare("boxes", np.ones((0, 4)), np.ones((0, 4)), None)
    assert (found.max_abs, found.cosine, found.top1, found.problem) == (0.0, 1.0, None, None)


@st.composite
def outputs(draw: st.DrawFn) -> tuple[Array, Array, Array | None]:
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=3, max_side=4))
    expected = draw(hnp.arrays(np.float32, shape, elements=FLOATS))
    noise = draw(hnp.arrays(np.float32, shape, elements=st.floats(-1, 1, width=32)))
    with np.errstate(all="ignore"):
        actual = draw(st.sampled_from([expected, expected + noise, noise, -expected]))
    mask = None
    if len(shape) >= 2 and draw(st.booleans()):
        mask = draw(hnp.arrays(np.int64, shape[:2], elements=st.integers(0, 1)))
    return expected, actual, mask


@given(outputs())
def test_the_loader_finds_the_same(case: tuple[Array, Array, Array | None]) -> None:
    expected, actual, mask = case
    mine = compare("y", expected, actual, mask)
    theirs, problem = golden_module.compare(expected, actual, {"max_abs": np.inf, "cosine": None}, mask)
    if mask is not None and not mask.any():
        assert (mine.compared, problem) == (0, "the mask leaves nothing to compare")
        return
    assert (mine.problem is None) == (problem is None), (mine, problem)
    if problem is None:
        assert mine.max_abs == pytest.approx(theirs["max_abs"], rel=1e-12)
        assert mine.cosine == pytest.approx(theirs["cosine"], abs=1e-9)


@given(outputs(), st.integers(0, 2**32 - 1))
def test_what_stands_at_masked_positions_changes_nothing(case: tuple[Array, Array, Array | None], seed: int) -> None:
    expected, actual, mask = case
    if mask is None:
        return
    hidden = np.broadcast_to((mask == 0).reshape(*mask.shape, *[1] * (expected.ndim - 2)), expected.shape)
    garbage = np.random.default_rng(seed).standard_normal(expected.shape).astype(np.float32)
    changed = np.where(hidden, garbage, actual)
    assert compare("y", expected, changed, mask) == compare("y", expected, actual, mask)


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_the_relative_error_tells_the_scale(scale: float) -> None:
    x = np.array([[3.0, 4.0], [1.0, 0.0]]) * scale
    assert worst_relative_error(x, x) == 0.0
    assert worst_relative_error(x, x * 0.33) == pytest.approx(0.67)
    assert worst_relative_error(x, x * 3) == pytest.approx(2.0)
    assert worst_relative_error(x * 0, x) == np.inf
    assert worst_relative_error(x * 0, x * 0) == 0.0
    assert golden_module.worst_relative_error(x, x * 3) == pytest.approx(2.0)
