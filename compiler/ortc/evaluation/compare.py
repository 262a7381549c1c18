"""How far two sets of outputs are apart. The bundle's loader uses the same definitions for its golden self-test."""

from __future__ import annotations

import numpy as np

from ortc.common.arrays import Array
from ortc.common.values import Frozen


class Difference(Frozen):
    """One output against the reference.

    `max_abs`: greatest absolute difference of any unmasked element. `cosine`: least cosine similarity of any sample
    (row of axis 0) over its unmasked elements. `relative_error`: greatest L2 norm of any sample's error, over the norm
    of the sample. `values`: elements of a sample. These three are None for outputs that are not floating point.
    `top1`: share of rows along the last axis whose largest element is the same; of integers, the share of all `labels`
    that are equal. `problem`: why the outputs cannot be compared at all, or None.

    `compared`: elements that were compared: unmasked, and finite where they are floating point. `is_zero`: the
    reference is 0 at all of them. `is_whole`: no position was masked.
    """

    output: str
    max_abs: float
    cosine: float | None
    top1: float | None
    relative_error: float | None = None
    values: int | None = None
    labels: int | None = None
    problem: str | None = None
    compared: int | None = None
    is_zero: bool = False
    is_whole: bool = True

    @property
    def proves(self) -> bool:
        """Whether there was anything to be right about: no comparison of nothing, or with 0 alone, is evidence."""
        return self.compared != 0 and not self.is_zero


def compare(name: str, expected: Array, actual: Array, mask: Array | None) -> Difference:
    """Compare one output.

    What stands at masked positions is nobody's answer and is not compared: rounding errors there are tens of times
    larger than elsewhere (all-MiniLM-L6-v2 at 16 x 512: 1.4e-4 against 7e-6).

    Args:
        name: of the output.
        expected: the reference, of any shape and dtype.
        actual: what the variant gave.
        mask: [batch, positions], 0 at positions of the output's first two dimensions that are padding, or None.
    """

    def fail(problem: str) -> Difference:
        return Difference(output=name, max_abs=float("inf"), cosine=-1.0, top1=0.0, problem=problem)

    if expected.shape != actual.shape:
        return fail(f"shape {list(actual.shape)} instead of {list(expected.shape)}")
    if expected.dtype.kind != actual.dtype.kind:
        return fail(f"dtype {actual.dtype} instead of {expected.dtype}")
    keep = np.ones(expected.shape, dtype=bool)
    if mask is not None and expected.ndim >= 2 and expected.shape[:2] == mask.shape:
        keep &= (mask != 0).reshape(*mask.shape, *([1] * (expected.ndim - 2)))
    is_whole = bool(keep.all())
    if expected.dtype.kind != "f":
        return _labels(name, expected[keep], actual[keep], is_whole=is_whole)
    if not keep.any():
        nothing = {"cosine": 1.0, "top1": None, "relative_error": 0.0, "values": 0, "compared": 0}
        return Difference(output=name, max_abs=0.0, **nothing, is_whole=is_whole)
    left, right = np.where(keep, expected, 0).astype(np.float64), np.where(keep, actual, 0).astype(np.float64)
    finite = np.isfinite(left)
    if (
        not np.array_equal(left[~finite], np.where(finite, 0, right)[~finite], equal_nan=True)
        or not np.isfinite(right[finite]).all()
    ):
        return fail("NaN or infinity at other places than expected")
    left, right = np.where(finite, left, 0), np.where(finite, right, 0)
    return Difference(
        output=name,
        max_abs=float(np.max(np.abs(left - right))),
        cosine=worst_cosine(left, right),
        top1=_top1(left, right, keep & finite),
        relative_error=worst_relative_error(left, right),
        values=left.size // (left.shape[0] if left.ndim else 1),
        compared=int((keep & finite).sum()),
        is_zero=not left.any(),
        is_whole=is_whole,
    )


def _labels(name: str, expected: Array, actual: Array, *, is_whole: bool) -> Difference:
    """Integers, booleans and text: what share of them is equal."""
    share = float(np.mean(expected == actual)) if expected.size else 1.0
    farthest = 0.0
    if share < 1:
        # As Python's integers: differences of int64 and uint64 leave both.
        numbers = expected.dtype.kind in "iub"
        pairs = zip(expected.ravel().tolist(), actual.ravel().tolist(), strict=True)
        farthest = float(max(abs(int(one) - int(other)) for one, other in pairs)) if numbers else float("inf")
    count = expected.size
    return Difference(
        output=name, max_abs=farthest, cosine=None, top1=share, labels=count, compared=count, is_whole=is_whole
    )


def worst_cosine(left: Array, right: Array) -> float:
    """Least cosine similarity of any row of axis 0, flattened; two zero rows are equal, one zero row is not."""
    left = left.reshape(left.shape[0] if left.ndim else 1, -1)
    right = right.reshape(left.shape)
    left, right = _scaled(left), _scaled(right)
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    dots = np.einsum("ij,ij->i", left, right)
    both_zero = ~left.any(axis=1) & ~right.any(axis=1)
    similarity = np.where(norms > 0, dots / np.where(norms > 0, norms, 1.0), 0.0)
    return min(1.0, float(np.min(np.where(both_zero, 1.0, similarity))))


def worst_relative_error(left: Array, right: Array) -> float:
    """Greatest L2 norm of the error of any row of axis 0, over the norm of the row; 0 where both are zero."""
    left = left.reshape(left.shape[0] if left.ndim else 1, -1)
    right = right.reshape(left.shape)
    tops = np.maximum(np.abs(left).max(axis=1, keepdims=True), np.abs(right).max(axis=1, keepdims=True))
    tops = np.where(tops > 0, tops, 1.0)
    errors = np.linalg.norm(left / tops - right / tops, axis=1)
    norms = np.linalg.norm(left / tops, axis=1)
    wrong = np.where(errors > 0, np.inf, 0.0)
    return float(np.max(np.divide(errors, norms, out=wrong, where=norms > 0)))


def _scaled(rows: Array) -> Array:
    """Each row with 1 as its greatest magnitude: squares of large or tiny values neither overflow nor vanish."""
    tops = np.abs(rows).max(axis=1, keepdims=True)
    scaled: Array = rows / np.where(tops > 0, tops, 1.0)
    return scaled


def _top1(left: Array, right: Array, keep: Array) -> float | None:
    """Share of rows along the last axis whose largest kept element is the same; None where there is nothing to rank."""
    if left.ndim < 2 or left.shape[-1] < 2:
        return None
    rows = keep.any(axis=-1)
    if not rows.any():
        return None
    # What is masked or infinite ranks last. Zero in its place could be the greatest: of log probabilities it always is.
    best = [np.argmax(np.where(keep, values, -np.inf), axis=-1) for values in (left, right)]
    return float(np.mean((best[0] == best[1])[rows]))
