"""How activations are smoothed before they are rounded."""

from __future__ import annotations

import numpy as np
import pytest

from ortc.common.arrays import Array
from ortc.passes.quantization.calibration import Range
from ortc.passes.quantization.editor import round_channels
from ortc.passes.quantization.smoothquant import factors_of, noise

RANDOM = np.random.default_rng(7)
CHANNELS, OUTPUTS = 64, 48


def activation(spread: float) -> Array:
    """Rows of channels whose widths differ by up to e ** (3 * spread)."""
    widths = np.exp(spread * RANDOM.standard_normal(CHANNELS))
    return (RANDOM.standard_normal((2000, CHANNELS)) * widths).astype(np.float32)


def weight() -> Array:
    return RANDOM.standard_normal((CHANNELS, OUTPUTS)).astype(np.float32)


def range_of(values: Array) -> Range:
    return Range(values.min(axis=0), values.max(axis=0), np.square(values).mean(axis=0))


def measured(values: Array, matrix: Array, factors: Array | None) -> float:
    """Mean square error over mean square of the product of rounded numbers."""
    divided, scaled = (values, matrix) if factors is None else (values / factors, matrix * factors[:, None])
    step = (divided.max() - divided.min()) / 255
    integers, scales = round_channels("w", scaled, axis=1)
    exact = values.astype(np.float64) @ matrix
    error = (np.rint(divided / step) * step) @ (integers * scales) - exact
    return float(np.square(error).mean() / np.square(exact).mean())


@pytest.mark.parametrize("spread", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("alpha", [None, 0.3, 0.5, 0.8])
def test_the_error_that_is_expected_is_the_one_that_comes(spread: float, alpha: float | None) -> None:
    values, matrix = activation(spread), weight()
    found = range_of(values)
    factors = None if alpha is None else factors_of(found, [matrix], alpha)
    assert noise(found, [matrix], factors) == pytest.approx(measured(values, matrix, factors), rel=0.35)


@pytest.mark.parametrize("spread", [0.5, 1.0, 2.0])
def test_auto_is_as_good_as_any_one_alpha(spread: float) -> None:
    values, matrix = activation(spread), weight()
    found = range_of(values)
    errors = [measured(values, matrix, factors_of(found, [matrix], alpha)) for alpha in (0.3, 0.5, 0.75, 0.95)]
    chosen = measured(values, matrix, factors_of(found, [matrix], "auto"))
    assert chosen <= 1.1 * min(*errors, measured(values, matrix, None))


def test_a_channel_that_was_hardly_seen_keeps_room() -> None:
    """Its root mean square, times three, counts for more than the few values that were seen."""
    power = np.ones(CHANNELS, np.float32)
    seen = np.full(CHANNELS, 4.0, np.float32)
    seen[0] = 0.01
    matrix = weight()
    factors = factors_of(Range(-seen, seen, power), [matrix], "auto")
    assert factors is None or factors[0] > 0.3
    assert factors_of(Range(-seen, seen, power), [matrix], 0.9)[0] < 0.1  # type: ignore[index]
