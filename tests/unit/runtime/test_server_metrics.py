"""The moving statistics of outputs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tests.support import bundles

metrics = bundles.runtime_module("serving.metrics")


@given(arrays.arrays(np.float32, st.integers(1, 50), elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_moments_are_those_of_the_values_also_where_their_squares_overflow(array: np.ndarray) -> None:
    found = metrics.Moments.of(array)
    wide = array.astype(np.float64)
    assert found.mean == pytest.approx(wide.mean(), rel=1e-5, abs=1e-6 * float(np.abs(wide).max()) + 1e-30)
    assert math.sqrt(found.variance) == pytest.approx(
        wide.std(), rel=1e-2, abs=1e-5 * float(np.abs(wide).max()) + 1e-20
    )


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e308, -1e308, 1e200])
def test_no_answer_makes_the_statistics_infinite_for_good(value: float) -> None:
    kept = metrics.Moments()
    kept.add(metrics.Moments.of(np.array([1.0, 3.0])))
    kept.add(metrics.Moments.of(np.full(4, value)))
    kept.add(metrics.Moments.of(np.array([1e308, -1e308, value])))
    kept.add(metrics.Moments.of(np.array([1.0, 3.0])))
    assert math.isfinite(kept.mean)
    assert math.isfinite(kept.variance)
    assert kept.nan == (5 if math.isnan(value) else 0)
