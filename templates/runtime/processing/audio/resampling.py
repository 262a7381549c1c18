"""Sound at another number of samples per second, by a windowed sinc.

A sample is the sum of its neighbours, weighted with sinc(t) cos(pi t / 12)^2 for |t| <= 6, where t counts periods of
0.99 of the lower of both rates. Method and constants are those of `torchaudio.functional.resample` with its defaults
(`sinc_interp_hann`), by which transformers' pipelines resample. Weights and sums are float64 here.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

ZEROS = 6
"""Zero crossings of the sinc on either side."""
BLOCK = 2**18  # neighbours that are multiplied at once
ROLLOFF = 0.99
"""The cutoff frequency as a share of the lower rate."""


def resampled(values: NDArray[np.float32], rate: int, wanted: int) -> NDArray[np.float32]:
    """The same sound with `wanted` samples per second instead of `rate`; zeros are before and after it."""
    divisor = math.gcd(rate, wanted)
    old, new = rate // divisor, wanted // divisor
    if old == new:
        return values
    count, width = length_of(len(values), rate, wanted), _width(old, new)
    weights, firsts = _weights(old, new, min(new, count))
    # The last neighbour of the last sample may be that far beyond the end.
    padded = np.pad(values.astype(np.float64), (width, width + old + 2))
    windows = sliding_window_view(padded, weights.shape[1])
    made = np.empty(count, np.float32)
    for phase, first in enumerate(firsts):
        of_phase, step = made[phase::new], max(1, BLOCK // weights.shape[1])
        neighbours = windows[first::old]
        for start in range(0, len(of_phase), step):
            part = of_phase[start : start + step]
            part[:] = neighbours[start : start + len(part)] @ weights[phase]
    return made


def length_of(count: int, rate: int, wanted: int) -> int:
    """How many samples so many become."""
    return -(-count * wanted // rate)


def needed(count: int, rate: int, wanted: int) -> int:
    """How many samples decide the first `count` of the result."""
    divisor = math.gcd(rate, wanted)
    old, new = rate // divisor, wanted // divisor
    return count if old == new else -(-count * old // new) + _width(old, new) + 2


def table_bytes(count: int, rate: int, wanted: int) -> int:
    """The bytes that are taken to make the weights for so many samples of the result."""
    divisor = math.gcd(rate, wanted)
    old, new = rate // divisor, wanted // divisor
    return 0 if old == new else 5 * 8 * min(new, count) * (2 * _width(old, new) + 2)


def _width(old: int, new: int) -> int:
    return math.ceil(ZEROS * old / (min(old, new) * ROLLOFF))


@functools.lru_cache(maxsize=1)
def _weights(old: int, new: int, phases: int) -> tuple[NDArray[np.float64], tuple[int, ...]]:
    """For every place between two samples that a result may have, the weights and the first neighbour."""
    width, cutoff = _width(old, new), min(old, new) * ROLLOFF
    firsts = np.arange(phases) * old // new
    neighbours = firsts[:, None] + np.arange(-width, width + 2)
    times = (neighbours / old - np.arange(phases)[:, None] / new) * cutoff
    within = np.abs(times) < ZEROS
    weights = np.where(within, np.sinc(times) * np.cos(times * (np.pi / ZEROS / 2)) ** 2, 0.0) * (cutoff / old)
    return weights, tuple(firsts.tolist())
