"""Golden answers: how far an output may be from what PyTorch gave, by the tolerance of the manifest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

FEW = 8  # values of a sample up to which the norm of its error tells little


def compare(
    expected: NDArray[Any], observed: NDArray[Any], tolerance: Mapping[str, Any], mask: NDArray[Any] | None = None
) -> tuple[dict[str, float], str | None]:
    """Compare one output with what PyTorch gave: ({"max_abs", "cosine"}, what is wrong or None).

    `mask` [batch, sequence] counts where the output's first two dimensions are the mask's.
    """
    result = {"max_abs": 0.0, "cosine": 1.0}
    if observed.shape != expected.shape:
        return result, f"shape is {list(observed.shape)}, expected {list(expected.shape)}"
    keep = np.ones(expected.shape, dtype=bool)
    if mask is not None and mask.ndim == 2 and expected.shape[:2] == mask.shape:
        # What stands at padding is nobody's answer, and there rounding errors grow beyond any useful bound.
        if not mask.any():
            return result, "the mask leaves nothing to compare"
        keep &= (mask != 0).reshape(mask.shape + (1,) * (expected.ndim - 2))
    if expected.dtype.kind != "f" or observed.dtype.kind != "f":
        if observed.dtype.kind != expected.dtype.kind:
            return result, f"dtype is {observed.dtype}, expected {expected.dtype}"
        wrong, size = int((observed != expected)[keep].sum()), int(keep.sum())
        least = tolerance.get("top1_agreement")
        if not wrong or (least is not None and (size - wrong) / size >= least):
            return result, None
        most = "all equal" if least is None else f"{least:.2%} equal"
        return result, f"{wrong} of {size} values differ, expected {most}"
    x, y = (np.where(keep, value, 0).astype(np.float64) for value in (expected, observed))
    finite = np.isfinite(x)
    # assert_array_equal's rule: NaN where NaN is expected, the same infinity where one is.
    odd = int((~np.where(finite, np.isfinite(y), (np.isnan(x) & np.isnan(y)) | (x == y))).sum())
    if odd:
        return result, f"{odd} of {x.size} values are NaN or infinite in one and not so in the other"
    x, y = np.where(finite, x, 0), np.where(finite, y, 0)
    difference = np.abs(x - y)
    result = {"max_abs": float(difference.max(initial=0.0)), "cosine": worst_cosine(x, y)}
    allowed, least = tolerance["max_abs"], tolerance["cosine"]
    if allowed is None and least is None:
        raise ValueError("golden tolerance has neither max_abs nor cosine")
    # Written so that a NaN fails.
    if allowed is not None and not result["max_abs"] <= allowed:
        at = np.unravel_index(int(difference.argmax()), x.shape)
        place = f"at {[int(i) for i in at]}: expected {x[at]:.6g}, found {y[at]:.6g}"
        return result, f"max_abs is {result['max_abs']:.3g}, allowed {allowed:.3g} ({place})"
    if tolerance.get("is_constant"):
        # The direction of a constant is that of any other.
        return result, None
    values = x.size // (x.shape[0] if x.ndim else 1) if x.size else 0
    # Of one value the cosine is its sign, and the difference says more.
    if least is not None and (values > 1 or allowed is None) and not result["cosine"] >= least:
        return result, f"the worst sample's cosine is {result['cosine']:.6f}, allowed {least:.6f}"
    relative = tolerance.get("relative_error")
    if relative is not None and values > FEW and not (far := worst_relative_error(x, y)) <= relative:
        return result, f"the worst sample's relative error is {far:.6f}, allowed {relative:.6f}"
    return result, None


def worst_cosine(expected: NDArray[np.float64], observed: NDArray[np.float64]) -> float:
    """The least cosine similarity of any sample (row of axis 0), of finite values.

    Two samples of zeros are equal: 1; a sample of zeros and another: 0.
    """
    if not expected.size:
        return 1.0
    x, y = (a.reshape(a.shape[0] if a.ndim else 1, -1) for a in (expected, observed))
    # Scaled so that squares of large or tiny values neither overflow nor vanish.
    tops = (np.abs(a).max(axis=1, keepdims=True) for a in (x, y))
    x, y = (a / np.where(top > 0, top, 1) for a, top in zip((x, y), tops, strict=True))
    norms = np.sqrt((x * x).sum(axis=1) * (y * y).sum(axis=1))
    cosine = np.where(norms > 0, (x * y).sum(axis=1) / np.where(norms > 0, norms, 1), (x == y).all(axis=1))
    return float(min(1.0, cosine.min()))


def worst_relative_error(expected: NDArray[np.float64], observed: NDArray[np.float64]) -> float:
    """The greatest L2 norm of the error of any sample (row of axis 0), over the norm of the sample."""
    x, y = (a.reshape(a.shape[0] if a.ndim else 1, -1) for a in (expected, observed))
    # Scaled as for the cosine.
    top = np.maximum(np.abs(x).max(axis=1, keepdims=True), np.abs(y).max(axis=1, keepdims=True))
    top = np.where(top > 0, top, 1)
    errors, norms = (np.sqrt(np.square(a / top).sum(axis=1)) for a in (x - y, x))
    infinite = np.where(errors > 0, np.inf, 0.0)
    return float(np.divide(errors, norms, out=infinite, where=norms > 0).max())
