"""Run a graph over samples and keep the ranges of tensors, as a worker.

Executed by the interpreter of the target's own runtime environment. Needs onnxruntime and numpy alone. For each of the
tensors, the model has outputs NAME/minimum, NAME/maximum and NAME/power, its mean square, with a value for each
channel, and for histograms NAME/flat with all of its values. Memory is that of one sample, however many there are.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ortc.common.arrays import read_arrays, write_arrays
from ortc.common.errors import StageError
from ortc.execution.worker_protocol import Json, serve

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

BINS = 4096
LEVELS = 128
"""Steps on one side of zero that entropy calibration compares with."""
STRIDE = 16
"""Bins from one reach that entropy calibration looks at to the next."""


class Histogram:
    """Counts of values in bins of one width around zero; the width doubles when a value lies outside."""

    def __init__(self) -> None:
        import numpy as np

        self.counts = np.zeros(BINS, np.int64)
        self.reach = 2.0**-20

    def add(self, values: Array) -> None:
        """Count finite values."""
        import numpy as np

        if not values.size:
            return
        most = max(float(values.max()), -float(values.min()))
        while most >= self.reach:
            inner = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.pad(inner, BINS // 4)
            self.reach *= 2
        bins = ((values.ravel() + np.float32(self.reach)) * np.float32(BINS / (2 * self.reach))).astype(np.int32)
        self.counts += np.bincount(np.minimum(bins, BINS - 1), minlength=BINS)

    def percentile(self, percentile: float) -> tuple[float, float]:
        """The bounds outside of which no more than 100 - `percentile` per cent of the values lie on either side."""
        import numpy as np

        below = np.cumsum(self.counts)
        outside = below[-1] * (1 - percentile / 100)
        # The last bin before which no more than that lie, and the first behind which no more do.
        first = int(np.searchsorted(below, outside, side="right"))
        last = int(np.searchsorted(below, below[-1] - outside, side="left"))
        edges = np.linspace(-self.reach, self.reach, BINS + 1)
        return float(edges[first]), float(edges[last + 1])

    def entropy(self) -> float:
        """The reach at which 8 bits tell most of the values: what lies outside is clipped.

        Of all reaches, the one at which the values, with those outside counted at the end, differ least from the same
        in LEVELS steps, by the Kullback-Leibler divergence (Migacz, 8-bit inference with TensorRT, 2017).
        """
        import numpy as np

        half = BINS // 2
        counts = (self.counts[half:] + self.counts[:half][::-1]).astype(np.float64)
        best, least = half, np.inf
        for reach in range(LEVELS, half + 1, STRIDE):
            kept = counts[:reach]
            wanted = kept.copy()
            wanted[-1] += counts[reach:].sum()
            level = np.arange(reach) * LEVELS // reach
            filled = kept > 0
            totals = np.bincount(level, weights=kept, minlength=LEVELS)
            bins = np.bincount(level, weights=filled, minlength=LEVELS)
            steps = np.where(filled, (totals / np.maximum(bins, 1))[level], 0.0)
            divergence = _divergence(wanted, steps)
            if divergence < least:
                best, least = reach, divergence
        return best * self.reach / half


def _divergence(wanted: Array, found: Array) -> float:
    """Kullback-Leibler divergence of two histograms; what is nowhere found costs as if it were almost nowhere."""
    import numpy as np

    if not wanted.sum() or not found.sum():
        return float("inf")
    p, q = wanted / wanted.sum(), np.maximum(found / found.sum(), 1e-12)
    some = p > 0
    return float((p[some] * np.log(p[some] / q[some])).sum())


class Observer:
    """One graph, run over samples: each public method is an operation."""

    def __init__(self) -> None:
        self._session: Any = None
        self._names: list[str] = []
        self._histograms: dict[str, Histogram] = {}
        self._method, self._percentile, self._count = "", 100.0, 0
        self._ends: tuple[Array, Array] | None = None
        self._power: Array | None = None
        self._sizes: list[int] = []

    def open(self, request: Json) -> Json:
        """{model, folder, tensors, method, percentile, threads} -> nothing; `folder` has the external weights."""
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = 3
        # Both keep memory for every shape that was seen.
        options.enable_mem_pattern = False
        options.enable_cpu_mem_arena = False
        options.intra_op_num_threads = request["threads"]
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", request["folder"])
        graph = Path(request["model"]).read_bytes()
        self._session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._method, self._percentile = request["method"], request["percentile"]
        tensors = request["tensors"]
        self._names = [f"{name}/{end}" for end in ("minimum", "maximum", "power") for name in tensors]
        is_counted = self._method in ("percentile", "entropy")
        self._histograms = {name: Histogram() for name in tensors} if is_counted else {}
        return {}

    def add(self, request: Json) -> Json:
        """{sample: .npz} -> nothing; takes one sample into account."""
        import numpy as np

        path = Path(request["sample"])
        found = self._session.run([*self._names, *(f"{name}/flat" for name in self._histograms)], read_arrays(path))
        self._count += 1
        tensors = len(self._names) // 3
        self._sizes = [value.size for value in found[:tensors]]
        low, high, square = (
            np.concatenate(found[at * tensors : (at + 1) * tensors]).astype(np.float64) for at in range(3)
        )
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            wrong = next(name for name, value in zip(self._names, found, strict=False) if not np.isfinite(value).all())
            raise StageError(f"`{wrong.rpartition('/')[0]}` is not finite on {path.name}: no scale covers it")
        for histogram, values in zip(self._histograms.values(), found[len(self._names) :], strict=True):
            histogram.add(values)
        self._power = square if self._power is None else self._power + (square - self._power) / self._count
        if self._ends is None:
            self._ends = (low, high)
            return {}
        least, most = self._ends
        if self._method == "moving-average":
            self._ends = (least + (low - least) / self._count, most + (high - most) / self._count)
        else:
            self._ends = (np.minimum(least, low), np.maximum(most, high))
        return {}

    def save(self, request: Json) -> Json:
        """{output: .npz} -> nothing; writes the ends of all channels of all tensors, one tensor after the other."""
        import numpy as np

        if self._ends is None or self._power is None:
            raise StageError("no samples")
        low, high = self._ends
        if self._histograms:
            lows, highs = (np.repeat([bound[side] for bound in self._bounds()], self._sizes) for side in (0, 1))
            low, high = np.clip(low, lows, highs), np.clip(high, lows, highs)
        ends = {"minimum": low, "maximum": high, "power": self._power}
        write_arrays(Path(request["output"]), {name: end.astype(np.float32) for name, end in ends.items()})
        return {}

    def _bounds(self) -> list[tuple[float, float]]:
        """What is left of each tensor's values."""
        histograms = self._histograms.values()
        if self._method == "entropy":
            return [(-reach, reach) for reach in (histogram.entropy() for histogram in histograms)]
        return [histogram.percentile(self._percentile) for histogram in histograms]


if __name__ == "__main__":
    observer = Observer()
    serve({"open": observer.open, "add": observer.add, "save": observer.save})
