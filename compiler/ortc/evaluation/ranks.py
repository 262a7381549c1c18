"""Rank correlation."""

from __future__ import annotations

import numpy as np

from ortc.common.arrays import Array


def spearman(left: Array, right: Array) -> float:
    """Spearman's rank correlation of two samples of one length; ties share the mean of their ranks. -1 to 1.

    Two constants are equal, 1; a constant tells nothing about what varies, 0.
    """
    one, other = _ranks(left), _ranks(right)
    one, other = one - one.mean(), other - other.mean()
    norm = float(np.sqrt((one**2).sum() * (other**2).sum()))
    if norm == 0:
        return float(not one.any() and not other.any())
    return float((one * other).sum() / norm)


def _ranks(values: Array) -> Array:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2)[places.reshape(-1)])
