"""Run a graph over samples and keep the ranges of tensors: `python observe.py REQUEST`.

Executed by the interpreter of the target's own runtime environment. Needs onnxruntime and numpy alone. REQUEST is a
JSON file: model, folder (of its external weights), samples (.npz files), tensors, method, percentile, threads, output.
The model has, for each of the tensors, outputs NAME/minimum, NAME/maximum and NAME/power, its mean square, with a value
for each channel, and for histograms NAME/flat with all of its values. Memory is that of one sample, however many there
are.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

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


def _arrays() -> Any:
    """The compiler's module for files of arrays, which needs numpy; the package around it is not installed here."""
    from importlib.util import module_from_spec, spec_from_file_location

    place = Path(__file__).parents[2] / "common" / "arrays.py"
    spec = spec_from_file_location("arrays", place)
    if spec is None or spec.loader is None:
        raise ImportError(f"{place} is not there")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(request: dict[str, Any]) -> None:
    """Write the ends of all channels of all tensors, one tensor after the other."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import numpy as np
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    # Both keep memory for every shape that was seen.
    options.enable_mem_pattern = False
    options.enable_cpu_mem_arena = False
    options.intra_op_num_threads = request["threads"]
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", request["folder"])
    session = ort.InferenceSession(Path(request["model"]).read_bytes(), options, providers=["CPUExecutionProvider"])
    tensors, moving = request["tensors"], request["method"] == "moving-average"
    names = [f"{name}/{end}" for end in ("minimum", "maximum", "power") for name in tensors]
    counted = request["method"] in ("percentile", "entropy")
    histograms = {name: Histogram() for name in tensors} if counted else {}
    ends: tuple[Array, Array] | None = None
    power: Array = np.zeros(0)
    sizes: list[int] = []
    read_arrays = _arrays().read_arrays
    for count, path in enumerate(request["samples"], start=1):
        found = session.run([*names, *(f"{name}/flat" for name in histograms)], read_arrays(Path(path)))
        sizes = [value.size for value in found[: len(tensors)]]
        low, high, square = (
            np.concatenate(found[at * len(tensors) : (at + 1) * len(tensors)]).astype(np.float64) for at in range(3)
        )
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            wrong = next(name for name, value in zip(names, found, strict=False) if not np.isfinite(value).all())
            raise SystemExit(f"`{wrong.rpartition('/')[0]}` is not finite on {Path(path).name}: no scale covers it")
        for histogram, values in zip(histograms.values(), found[len(names) :], strict=True):
            histogram.add(values)
        power = power + (square - power) / count if count > 1 else square
        if ends is None:
            ends = (low, high)
        elif moving:
            ends = (ends[0] + (low - ends[0]) / count, ends[1] + (high - ends[1]) / count)
        else:
            ends = (np.minimum(ends[0], low), np.maximum(ends[1], high))
    if ends is None:
        raise SystemExit("no samples")
    if histograms:
        if request["method"] == "entropy":
            bounds = [(-reach, reach) for reach in (histogram.entropy() for histogram in histograms.values())]
        else:
            bounds = [histogram.percentile(request["percentile"]) for histogram in histograms.values()]
        lows, highs = (np.repeat([bound[side] for bound in bounds], sizes) for side in (0, 1))
        ends = (np.clip(ends[0], lows, highs), np.clip(ends[1], lows, highs))
    minimum, maximum = (end.astype(np.float32) for end in ends)
    np.savez(request["output"], minimum=minimum, maximum=maximum, power=power.astype(np.float32))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_bytes()))
