"""Percentiles, their intervals and ratios, against exact and simulated numbers."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ortc.common.statistics import median, percentile, ratio_of_rounds

SHARES = {0.5: Fraction(1, 2), 0.9: Fraction(9, 10), 0.99: Fraction(99, 100)}
TAIL = Fraction(25, 1000)


def exact_ranks(count: int, share: Fraction) -> tuple[int | None, int | None]:
    """The tightest ranks (from 0) whose samples enclose the percentile, by binomial sums without rounding."""
    total, low, high = Fraction(0), None, None
    for below in range(count):
        total += math.comb(count, below) * share**below * (1 - share) ** (count - below)
        if total <= TAIL:
            low = below
        if total >= 1 - TAIL and high is None:
            high = below
    return low, high


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("count", [1, 2, 5, 6, 20, 29, 100, 367, 368, 420])
def test_interval_is_that_of_order_statistics(count: int, share: float) -> None:
    low, high = exact_ranks(count, SHARES[share])
    values = np.random.default_rng(count).permutation(count).astype(float).tolist()
    found = percentile(values, share)
    assert (found.low, found.high) == (low, high)
    assert found.value == math.ceil(SHARES[share] * count) - 1
    assert found.samples == count


def test_p99_needs_368_samples() -> None:
    # 0.99 ** n <= 0.025 first holds at 368.
    assert percentile([1.0] * 367, 0.99).high is None
    assert percentile([1.0] * 368, 0.99).high == 1.0
    assert percentile([1.0] * 5, 0.5).high is None
    assert percentile([1.0] * 6, 0.5).high == 1.0


@pytest.mark.parametrize(("share", "count"), [(0.5, 40), (0.9, 120), (0.99, 420)])
def test_interval_encloses_the_true_percentile(share: float, count: int) -> None:
    generator = np.random.default_rng(7)
    truth = -math.log1p(-share)  # of the exponential distribution
    enclosed = 0
    for _ in range(400):
        found = percentile(generator.exponential(size=count).tolist(), share)
        assert found.low is not None
        assert found.high is not None
        enclosed += found.low <= truth <= found.high
    # At least 95 % by construction; four standard deviations of 400 draws are 4.4 %.
    assert enclosed / 400 >= 0.95 - 0.044


@given(st.lists(st.floats(0.001, 1e6), min_size=1, max_size=60), st.sampled_from(sorted(SHARES)))
def test_bounds_are_around_the_value(values: list[float], share: float) -> None:
    found = percentile(values, share)
    assert found.value in values
    assert found.low is None or found.low <= found.value
    assert found.high is None or found.high >= found.value
    assert percentile(sorted(values, reverse=True), share) == found


def test_median() -> None:
    assert median([3.0, 1.0, 2.0]) == 2.0
    assert median([4.0, 1.0, 2.0, 3.0]) == 2.5
    assert median([5.0]) == 5.0


def test_ratio_cancels_what_slows_a_whole_round() -> None:
    # The machine is three times slower in every other round; the contender is always twice as fast.
    slow = [[20.0 * factor, 21.0 * factor, 19.0 * factor] for factor in (1, 3) * 5]
    fast = [[10.0 * factor, 10.5 * factor, 9.5 * factor] for factor in (1, 3) * 5]
    found = ratio_of_rounds(slow, fast)
    assert (found.value, found.low, found.high) == (2.0, 2.0, 2.0)
    assert ratio_of_rounds(fast, slow).value == 0.5


def test_ratio_of_few_rounds_has_no_interval() -> None:
    rounds = [[2.0], [3.0], [4.0], [5.0], [6.0]]
    found = ratio_of_rounds(rounds, [[1.0]] * 5)
    assert (found.value, found.low, found.high, found.samples) == (4.0, None, None, 5)
    assert ratio_of_rounds([*rounds, [7.0]], [[1.0]] * 6).low is not None


def test_ratio_interval_is_seeded_and_covers_the_truth() -> None:
    generator = np.random.default_rng(3)
    covered = 0
    for _ in range(100):
        slow = [[1.5 * generator.lognormal(0, 0.1)] for _ in range(20)]
        fast = [[generator.lognormal(0, 0.1)] for _ in range(20)]
        found = ratio_of_rounds(slow, fast)
        assert ratio_of_rounds(slow, fast) == found
        assert found.low is not None
        assert found.high is not None
        assert found.low <= found.value <= found.high
        covered += found.low <= 1.5 <= found.high
    assert covered >= 85


def test_rounds_must_be_paired() -> None:
    with pytest.raises(ValueError, match="zip"):
        ratio_of_rounds([[1.0], [1.0]], [[1.0]])
