"""The error over the reference's spread sees what a cosine does not, and takes nothing right for wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ortc.evaluation import spread
from ortc.evaluation.spread import MIN_RANKED, OutputError, Spread, Spreads

RANDOM = np.random.default_rng(7)


def errors(*pairs: Any, mask: Any = None) -> OutputError:
    """Of runs, each what was expected and what was found."""
    collected = Spread("y")
    for expected, actual in pairs:
        collected.add(np.asarray(expected), np.asarray(actual), mask)
    found = collected.result()
    assert found is not None
    return found


def normal(*shape: int) -> Any:
    return RANDOM.standard_normal(shape)


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e5, -1e5])
@pytest.mark.parametrize("shape", [(64,), (64, 1), (64, 2), (64, 10), (4, 16, 32), (4, 8, 6, 6)])
def test_a_common_offset_changes_nothing(shape: tuple[int, ...], offset: float) -> None:
    x, noise = normal(*shape), normal(*shape)
    found = errors((x + offset, x + offset + 0.1 * noise))
    assert found.nrmse == pytest.approx(0.1, rel=0.35)
    assert found.scale == pytest.approx(1, rel=0.35)
    assert errors((x + offset, offset + noise)).nrmse > 1


def test_a_model_that_always_gives_the_mean_has_an_error_of_one() -> None:
    x = normal(500, 10) + 40
    assert errors((x, np.broadcast_to(x.mean(axis=0), x.shape))).nrmse == pytest.approx(1, rel=0.01)


def test_the_margin_of_two_logits_counts_and_what_both_share_does_not() -> None:
    common, margin = 10 * normal(64, 1), 0.1 * normal(64, 1)
    logits = np.hstack([common + margin, common - margin])
    swapped = logits[:, ::-1]
    assert errors((logits, swapped)).nrmse > 1
    shifted = logits + np.array([0.01, 0.01])
    assert errors((logits, shifted)).nrmse < 0.01


def test_values_of_different_units_are_judged_one_by_one() -> None:
    metres, share = 1000 * normal(64), normal(64)
    found = errors((np.stack([metres, share], 1), np.stack([metres, normal(64)], 1)))
    assert found.nrmse > 1
    assert found.spearman is not None
    assert found.spearman < 0.5


def test_cases_count_together_though_each_has_one_row() -> None:
    rows = normal(20, 1) + 9
    assert errors(*((row[None], row[None] * 1.001) for row in rows)).rows == 20
    assert errors(*((row[None], 2 * rows.mean() - row[None]) for row in rows)).nrmse > 1


def test_constant_answers_are_judged_by_their_magnitude() -> None:
    five = np.full((8, 1), 5.0)
    assert errors((five, five)).nrmse == 0
    assert errors((five, five * 1.01)).nrmse == pytest.approx(0.01)
    assert errors((five, five * 3)).nrmse == pytest.approx(2)
    # The last bits of float32 are no spread.
    assert errors((five + 1e-7 * normal(8, 1), five * 1.01)).nrmse == pytest.approx(0.01, rel=1e-3)
    assert errors((np.zeros((8, 1)), np.zeros((8, 1)))).nrmse == 0
    assert errors((np.zeros((8, 1)), np.full((8, 1), 1e-3))).nrmse == np.inf


def test_one_row_is_judged_by_its_magnitude() -> None:
    assert errors(([[2.0]], [[3.0]])).nrmse == pytest.approx(0.5)
    assert errors((5.0, 5.5)).nrmse == pytest.approx(0.1)


def test_masked_and_infinite_values_do_not_count() -> None:
    x = normal(4, 6, 8) + 3
    mask = np.ones((4, 6), np.int64)
    mask[:, 4:] = 0
    y = x.copy()
    y[:, 4:] = 99
    assert errors((x, y), mask=mask) == errors((x[:, :4], x[:, :4]))
    x[0, 0, 0] = y[0, 0, 0] = -np.inf
    assert errors((x, y), mask=mask).nrmse == 0


def test_positions_under_a_mask_are_rows_of_one_value() -> None:
    x = normal(4, 6)
    found = errors((x, x), mask=np.ones((4, 6), np.int64))
    assert (found.rows, found.values) == (24, 1)


def test_rows_of_several_widths_have_no_columns() -> None:
    wide, narrow = normal(4, 12), normal(4, 3)
    found = errors((wide, wide * 3), (narrow, narrow * 3))
    assert (found.values, found.spearman) == (1, None)
    assert found.nrmse > 1.9


def test_saturated_scores_have_no_order_to_lose() -> None:
    """Probabilities near 0 and 1 that are reordered in their last digits are right."""
    sides = np.repeat([0.0, 1.0], 32)
    expected, actual = (np.abs(sides - 1e-3 * np.abs(normal(64))) for _ in range(2))
    found = errors((expected, actual))
    assert found.spearman is not None
    assert found.spearman > 0.999
    assert errors((expected, 1 - actual)).spearman == pytest.approx(-0.75, abs=0.3)


def test_few_rows_have_no_ranks_and_many_are_bounded() -> None:
    few = normal(MIN_RANKED - 1, 1)
    assert errors((few, few)).spearman is None
    many = normal(10_000, 1)
    assert errors((many, many)).spearman == 1.0


def test_large_outputs_are_added_sample_by_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    x = normal(4, 6, 8)
    y = x + 0.1 * normal(4, 6, 8)
    mask = np.ones((4, 6), np.int64)
    mask[1, 3:] = 0
    whole = errors((x, y), mask=mask)
    monkeypatch.setattr(spread, "AT_ONCE", 10)
    parts = errors((x, y), mask=mask)
    assert parts.rows == whole.rows == 21
    assert parts.nrmse == pytest.approx(whole.nrmse)
    assert parts.scale == pytest.approx(whole.scale)


def test_half_precision_answers() -> None:
    x = normal(64, 1).astype(np.float32)
    assert errors((x, x.astype(np.float16))).nrmse < 1e-3


def test_real_samples_are_judged_without_random_numbers() -> None:
    spreads = Spreads()
    wild = 100 * normal(64, 1)
    spreads.add("y", wild, wild, None, is_sample=False)
    real = normal(8, 1)
    spreads.add("y", real, real[::-1], None, is_sample=True)
    (found,) = spreads.errors()
    assert found.rows == 8
    assert found.nrmse > 0.5


def test_few_samples_are_judged_with_the_other_cases() -> None:
    spreads = Spreads()
    for is_sample, rows in ((False, 64), (True, 2)):
        values = normal(rows, 1)
        spreads.add("y", values, values, None, is_sample=is_sample)
    assert [entry.rows for entry in spreads.errors()] == [66]


@given(st.integers(1, 5), st.integers(1, 12), st.floats(-1e4, 1e4), st.floats(1e-3, 1e3))
def test_the_error_does_not_depend_on_offset_and_unit(rows: int, values: int, offset: float, unit: float) -> None:
    x = np.random.default_rng(rows * values).standard_normal((rows + 3, values))
    noisy = x + 0.1 * np.random.default_rng(1).standard_normal(x.shape)
    plain = errors((x, noisy)).nrmse
    assert errors((unit * (x + offset), unit * (noisy + offset))).nrmse == pytest.approx(plain, rel=1e-3)
