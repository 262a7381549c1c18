"""SmoothQuant (Xiao et al., 2022): move the spread of an activation's channels into the weights that multiply it.

Activations are rounded with one scale a tensor, weights with one for each output. A channel that is far wider than
the others takes the scale from all of them; divided by a factor, with the weight's rows multiplied by it, it does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from ortc.common.arrays import Array
from ortc.passes.quantization.calibration import Range, Ranges
from ortc.passes.quantization.editor import Editor
from ortc.passes.quantization.quantizable import Site, find_sites

if TYPE_CHECKING:
    import onnx_ir as ir

ALPHAS = tuple(round(0.3 + 0.05 * index, 2) for index in range(15))
"""What `auto` chooses from, besides leaving the activation as it is."""
DEVIATIONS = 3.0
"""Root mean squares that a channel is taken to reach at least: few samples show little of the tails."""
_TINY = 1e-5


def smooth_products(model: ir.Model, ranges: Ranges, alpha: float | Literal["auto"]) -> int:
    """Move the spread of the activations that products read into their weights, in place; every answer stays.

    One division serves all products that read an activation. What has no known range is left as it is.

    Returns:
        How many activations were smoothed.
    """
    editor = Editor(model)
    readers: dict[ir.Value, list[Site]] = {}
    for site in find_sites(model, ("MatMul", "Gemm")):
        if site.activation.name in ranges.tensors and not _is_transposed(site):
            readers.setdefault(site.activation, []).append(site)
    changed = 0
    for activation, sites in readers.items():
        matrices = [site.array.numpy() if site.axis == 1 else site.array.numpy().T for site in sites]
        factors = factors_of(ranges.tensors[str(activation.name)], matrices, alpha)
        if factors is None:
            continue
        inverse = editor.constant(f"{activation.name}_smoothing", (1 / factors).astype(np.float32))
        smoothed = editor.before(sites[0].node, "Mul", [activation, inverse], f"{activation.name}_smoothed")
        for site, matrix in zip(sites, matrices, strict=True):
            scaled = matrix * factors[:, np.newaxis]
            scaled = scaled if site.axis == 1 else np.ascontiguousarray(scaled.T)
            site.node.replace_input_with(0, smoothed)
            site.node.replace_input_with(1, editor.constant(f"{site.weight.name}_smoothed", scaled))
        changed += 1
    editor.remove_unused()
    return changed


def _is_transposed(site: Site) -> bool:
    """Whether a Gemm reads its activation by columns."""
    return site.node.op_type == "Gemm" and site.node.attributes.get_int("transA", 0) == 1


def factors_of(found: Range, weights: Sequence[Array], alpha: float | Literal["auto"]) -> Array | None:
    """What to divide the channels of an activation by; their median is 1. None to leave it as it is.

    Args:
        found: ranges of the activation's channels.
        weights: the float32 matrices that multiply it, of shape (channels, outputs).
        alpha: equation 4's, how much of the spread goes into the weights; `auto` takes the one of ALPHAS with the least
            error by `noise`, or none.
    """
    if alpha != "auto":
        return _factors(found.reach, weights, alpha)
    reach = np.maximum(found.reach, DEVIATIONS * np.sqrt(found.power))
    candidates = [None, *(_factors(reach, weights, value) for value in ALPHAS)]
    return min(candidates, key=lambda factors: noise(found, weights, factors))


def noise(found: Range, weights: Sequence[Array], factors: Array | None) -> float:
    """The expected mean square error of the products over their mean square, summed over the weights.

    Rounding to steps of size d adds errors of variance d ** 2 / 12, taken to be independent.
    """
    low, high, power = found.minimum, found.maximum, found.power.astype(np.float64)
    if factors is not None:
        low, high, power = low / factors, high / factors, power / factors.astype(np.float64) ** 2
    step = (max(float(high.max()), 0.0) - min(float(low.min()), 0.0)) / 255
    total = 0.0
    for weight in weights:
        scaled = weight if factors is None else weight * factors[:, None]
        squares = np.square(scaled, dtype=np.float64).sum(axis=1)
        steps = np.abs(scaled).max(axis=0).astype(np.float64) / 127
        # What is rounded to nothing is off by itself.
        error = (np.minimum(step**2 / 12, power) * squares).sum() + power.sum() * np.square(steps).sum() / 12
        total += error / max(float((power * squares).sum()), _TINY**4)
    return total


def _factors(reach: Array, weights: Sequence[Array], alpha: float) -> Array:
    rows = np.max([np.abs(weight).max(axis=1) for weight in weights], axis=0)
    factors = np.maximum(reach, _TINY) ** alpha / np.maximum(rows, _TINY) ** (1 - alpha)
    return np.asarray(factors / np.median(factors), np.float32)
