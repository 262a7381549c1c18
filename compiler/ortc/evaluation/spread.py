"""Errors of a whole set of answers, by how much the reference's answers differ from one another.

A cosine of one row is blind where rows have few values (of one value it is the sign) and where all rows share a large
component. The error over the reference's standard deviation is not: it is 1 for a model that always gives the mean.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ortc.common.arrays import Array
from ortc.common.values import Frozen
from ortc.evaluation.ranks import spearman

FEW = 8
"""Most values of a row that are judged one by one, each by its own spread and ranks."""
MIN_ROWS = 4
"""Fewest rows of real samples whose spread is used without that of the other cases."""
MIN_RANKED = 10
"""Fewest rows whose order is compared."""
MAX_RANKED = 4096
"""Most rows whose values are kept to be ranked."""
AT_ONCE = 2**22
"""Elements up to which all samples of a run are added at once; logits over a vocabulary have many more."""
RESOLUTION = 0.05
"""Share of the mean absolute deviation below which an error moves no rank: values that are all but tied have none."""
CONSTANT = 1e-6
"""Spread over magnitude up to which values are constant: the resolution of float32."""


class OutputError(Frozen):
    """Error of one output over all rows.

    `rows` counts observations of `values` numbers each. `scale` is what errors are divided by: the least standard
    deviation of the reference among what is judged, or its root mean square where it is constant. `nrmse` is the root
    mean square error over that, and `spearman` the least rank correlation of any value; None where rows have many
    values, or are too few. `is_constant`: the reference gives the same values at every row, of two or more.
    """

    output: str
    rows: int
    values: int
    scale: float
    max_abs: float
    nrmse: float
    spearman: float | None
    is_constant: bool = False


class LabelAgreement(Frozen):
    """How many labels of one output there were, and how many of them are the reference's."""

    output: str
    labels: int
    equal: int

    @property
    def share(self) -> float:
        """Of the equal ones; 1 without any label."""
        return self.equal / self.labels if self.labels else 1.0


@dataclass
class _Sums:
    """Moments of the rows of one width, around the first row: large common offsets cancel before they are squared."""

    pivot: Array
    rows: int = 0
    count: Array = field(init=False)
    first: Array = field(init=False)
    second: Array = field(init=False)
    error: Array = field(init=False)
    magnitude: Array = field(init=False)
    means: Array = field(init=False)
    whole: bool = True

    def __post_init__(self) -> None:
        width = self.pivot.shape[0]
        self.count, self.first, self.second, self.error, self.magnitude = np.zeros((5, width))
        self.means = np.zeros(3)

    def add(self, expected: Array, actual: Array, keep: Array) -> None:
        """Add rows [n, width]; what is not kept counts for nothing."""
        moved = np.where(keep, expected - self.pivot, 0.0)
        errors = np.where(keep, actual - expected, 0.0)
        self.rows += len(moved)
        self.count += keep.sum(axis=0)
        self.first += moved.sum(axis=0)
        self.second += np.square(moved).sum(axis=0)
        self.error += np.square(errors).sum(axis=0)
        self.magnitude += np.square(np.where(keep, expected, 0.0)).sum(axis=0)
        self.whole = self.whole and bool(keep.all())
        means = moved.mean(axis=1)
        self.means += [means.sum(), np.square(means).sum(), np.square(errors.mean(axis=1)).sum()]

    def judged(self) -> tuple[float, float]:
        """The greatest root mean square error over the spread, and that spread."""
        count = np.maximum(self.count, 1.0)
        squares = np.maximum(self.second - np.square(self.first) / count, 0.0)
        freedom = np.maximum(self.count - 1, 1.0)
        width = len(self.pivot)
        pairs: list[tuple[float, float]] = []
        if width <= FEW:
            spreads = squares / freedom
            magnitudes = self.magnitude / count
            errors = self.error / count
            pairs += [
                (error, spread if spread > CONSTANT**2 * size else size)
                for error, spread, size in zip(errors, spreads, magnitudes, strict=True)
            ]
        else:
            size = self.magnitude.sum() / count.sum()
            spread = squares.sum() / freedom.sum()
            pairs.append((self.error.sum() / count.sum(), spread if spread > CONSTANT**2 * size else size))
        if width > 1 and self.whole and self.rows > 1:
            pairs += self._without_common(squares)
        if width > FEW and self.whole and self.rows == 1:
            pairs += self._within_row()
        return max(_ratio(*pair) for pair in pairs), float(np.sqrt(min(spread for _, spread in pairs)))

    @property
    def is_constant(self) -> bool:
        """Whether no value varies from row to row, by more than the resolution of float32."""
        count = np.maximum(self.count, 1.0)
        spreads = np.maximum(self.second - np.square(self.first) / count, 0.0)
        # The moments are around the first row, so that rounding of a large offset is no spread.
        return self.rows > 1 and bool((spreads <= CONSTANT**2 * self.magnitude).all())

    def _without_common(self, squares: Array) -> list[tuple[float, float]]:
        """The same of what is left of each row without its mean, as a softmax or a decision between values sees it."""
        width = len(self.pivot)
        total, second, error = self.means
        common = second - total**2 / self.rows
        left = float(squares.sum() - width * common) / ((self.rows - 1) * (width - 1))
        size = float(self.magnitude.sum()) / (self.rows * width)
        wrong = max(float(self.error.sum() - width * error), 0.0) / (self.rows * (width - 1))
        return [(wrong, left)] if left > CONSTANT**2 * size else []

    def _within_row(self) -> list[tuple[float, float]]:
        """The same of the only row, which is the pivot: nothing else varies that its errors could be held against."""
        width = len(self.pivot)
        left = float(np.var(self.pivot, ddof=1))
        wrong = max(float(self.error.sum() - width * self.means[2]), 0.0) / (width - 1)
        return [(wrong, left)] if left > CONSTANT**2 * float(self.magnitude.sum()) / width else []


def _ratio(error: float, spread: float) -> float:
    if error == 0:
        return 0.0
    return float(np.sqrt(error / spread)) if spread > 0 else float("inf")


class Spread:
    """Collects the rows of one output, case by case."""

    def __init__(self, output: str) -> None:
        self.output = output
        self._sums: dict[int, _Sums] = {}
        self._flat: _Sums | None = None
        self._kept: list[tuple[Array, Array]] = []
        self._max_abs = 0.0

    def add(self, expected: Array, actual: Array, mask: Array | None) -> None:
        """Add the outputs of one run, of equal shapes and finite at the same places.

        `ortc.evaluation.compare.compare` makes sure of both.
        """
        if expected.ndim < 2 or expected.size <= AT_ONCE:
            self._add(expected, actual, mask)
            return
        parts = mask is not None and mask.shape == expected.shape[:2]
        for row in range(expected.shape[0]):
            one = slice(row, row + 1)
            self._add(expected[one], actual[one], mask[one] if parts and mask is not None else mask)

    def _add(self, expected: Array, actual: Array, mask: Array | None) -> None:
        if not expected.size:
            return
        left, right, keep = _rows(expected, actual, mask)
        width = left.shape[1]
        if width not in self._sums:
            self._sums[width] = _Sums(np.where(keep[0], left[0], 0.0))
        self._sums[width].add(left, right, keep)
        if self._flat is None:
            self._flat = _Sums(left[keep][:1] if keep.any() else np.zeros(1))
        self._flat.add(left[keep].reshape(-1, 1), right[keep].reshape(-1, 1), np.ones((keep.sum(), 1), dtype=bool))
        self._max_abs = max(self._max_abs, float(np.abs(left - right)[keep].max(initial=0.0)))
        whole = keep.all(axis=1)
        if width <= FEW and sum(len(rows) for rows, _ in self._kept) < MAX_RANKED:
            self._kept.append((left[whole], right[whole]))

    @property
    def rows(self) -> int:
        """How many were added."""
        return sum(sums.rows for sums in self._sums.values())

    def result(self) -> OutputError | None:
        """The error of all that was added; None where that is nothing."""
        if self._flat is None or not self._sums:
            return None
        # Rows of several widths have no columns: each value is a row of its own.
        width, sums = next(iter(self._sums.items())) if len(self._sums) == 1 else (1, self._flat)
        nrmse, scale = sums.judged()
        return OutputError(
            output=self.output,
            rows=sums.rows,
            values=width,
            scale=scale,
            max_abs=self._max_abs,
            nrmse=nrmse,
            spearman=self._spearman() if len(self._sums) == 1 else None,
            is_constant=sums.is_constant,
        )

    def _spearman(self) -> float | None:
        if not self._kept:
            return None
        left, right = (np.concatenate(parts) for parts in zip(*self._kept, strict=True))
        if len(left) < MIN_RANKED:
            return None
        return min(_ranked(one, other) for one, other in zip(left.T, right.T, strict=True))


def _ranked(expected: Array, actual: Array) -> float:
    """Spearman's correlation; errors that are small beside the deviation, or values without any, move no rank."""
    if np.std(expected) <= CONSTANT * np.sqrt(np.mean(np.square(expected))):
        return 1.0
    close = np.abs(actual - expected) <= RESOLUTION * np.mean(np.abs(expected - expected.mean()))
    return spearman(expected, np.where(close, expected, actual))


def _rows(expected: Array, actual: Array, mask: Array | None) -> tuple[Array, Array, Array]:
    """Both as float64 [rows, values], and what of them counts.

    A row is a sample of [batch, values], a position of [batch, positions, values], or a place of an image [batch,
    channels, height, width]; of [batch] and of [batch, positions] under a mask it is one value.
    """
    left, right = expected.astype(np.float64), actual.astype(np.float64)
    keep = np.isfinite(left)
    masked = mask is not None and left.ndim >= 2 and left.shape[:2] == mask.shape
    if masked and mask is not None:
        keep &= mask.astype(bool).reshape(*mask.shape, *([1] * (left.ndim - 2)))
    left, right = np.where(keep, left, 0.0), np.where(keep, right, 0.0)
    parts = [left, right, keep]
    if left.ndim < 2 or (masked and left.ndim == 2):
        parts = [part.reshape(-1, 1) for part in parts]
    elif left.ndim >= 4:
        parts = [np.moveaxis(part, 1, -1) for part in parts]
    rows = [part.reshape(-1, part.shape[-1]) for part in parts]
    some = rows[2].any(axis=1)
    if some.any():
        rows = [part[some] for part in rows]
    return rows[0], rows[1], rows[2]


class Spreads:
    """The rows of every output, those of real samples apart."""

    def __init__(self) -> None:
        self._real: dict[str, Spread] = {}
        self._all: dict[str, Spread] = {}
        self._real_labels: dict[str, LabelAgreement] = {}
        self._all_labels: dict[str, LabelAgreement] = {}

    def add(self, output: str, expected: Array, actual: Array, mask: Array | None, *, is_sample: bool) -> None:
        """Add an output of a case, of real samples or not; see `Spread.add`."""
        if expected.dtype.kind == "f":
            for spreads in (self._all, self._real) if is_sample else (self._all,):
                spreads.setdefault(output, Spread(output)).add(expected, actual, mask)
            return
        if mask is not None and expected.shape[:2] == mask.shape:
            expected, actual = expected[mask != 0], actual[mask != 0]
        equal, count = int(np.sum(expected == actual)), expected.size
        for labels in (self._all_labels, self._real_labels) if is_sample else (self._all_labels,):
            before = labels.get(output, LabelAgreement(output=output, labels=0, equal=0))
            labels[output] = LabelAgreement(output=output, labels=before.labels + count, equal=before.equal + equal)

    def errors(self) -> tuple[OutputError, ...]:
        """The error of each output: over the real samples where they have rows enough, else over all cases."""
        real = {name: spread for name, spread in self._real.items() if spread.rows >= MIN_ROWS}
        found = (real.get(name, spread).result() for name, spread in self._all.items())
        return tuple(entry for entry in found if entry is not None)

    def labels(self) -> tuple[LabelAgreement, ...]:
        """The agreement of each output of integers, over the same."""
        real = {name: entry for name, entry in self._real_labels.items() if entry.labels >= MIN_RANKED}
        return tuple(real.get(name, entry) for name, entry in self._all_labels.items())
