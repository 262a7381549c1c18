"""Find the nodes whose numbers a format of 16 bits cannot hold, by the constants that a graph computes with."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

IN_RANGE = (1e-3, 1e3)
"""Magnitudes, times what activations have, that a format of 16 bits holds."""
BOUNDED = frozenset({
    "Erf", "Exp", "GroupNormalization", "HardSigmoid", "InstanceNormalization", "LayerNormalization", "Log",
    "LogSoftmax", "Sigmoid", "Sign", "SimplifiedLayerNormalization", "SkipLayerNormalization",
    "SkipSimplifiedLayerNormalization", "Softmax", "Softsign", "Tanh",
})  # fmt: skip
"""Operators whose results are of no great or small magnitude, whatever they read."""
PRODUCTS = frozenset({"Conv", "ConvTranspose", "FusedMatMul", "Gemm", "MatMul", "Mul"})
SELECTIONS = frozenset({"Add", "Clip", "Concat", "Max", "Min", "Sub", "Sum", "Where"})
"""Operators that give the greatest of the magnitudes that they read; a tiny constant keeps zero away there."""
ATTENTION_BIAS = {("com.microsoft", "Attention"): 5, ("com.microsoft", "MultiHeadAttention"): 5, ("", "Attention"): 3}
"""The input of fused operators that is added to the scores."""
_MOVES = frozenset({
    "Cast", "Concat", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Reshape", "Slice",
    "Split", "Squeeze", "Transpose", "Unsqueeze",
})  # fmt: skip


@dataclass(frozen=True)
class Range:
    """What a format holds: its largest number, and the least one with five significant bits or more."""

    largest: float
    least: float


def beyond(model: ir.Model, held: Range) -> set[ir.Node]:
    """Nodes to be kept in float32: they read numbers that the format does not hold, or what comes of these.

    These are single numbers and divisors, which scale or hold up whatever they meet. Constants of masks are none of
    them: see `is_mask`. Weights beyond the range are not looked for: they become infinite, which the gates of accuracy
    see, and measuring tells the nodes apart that then have to be kept.

    Args:
        model: whose constants are initializers, in topological order.
        held: by the format.
    """
    found: set[ir.Node] = set()
    # Magnitudes of what left the range, and values that a tiny constant alone keeps away from zero.
    scales: dict[ir.Value, float] = {}
    floors: set[ir.Value] = set()
    constants: dict[tuple[ir.Value, bool], float | None] = {}
    for node in model.graph:
        own: dict[int, float] = {}
        alone = False
        for index, value in enumerate(node.inputs):
            if value is None or not _is_constant(value):
                continue
            divides = node.op_type == "Div" and index == 1
            if (value, divides) not in constants:
                constants[value, divides] = _unheld(value, held, divides=divides)
            magnitude = constants[value, divides]
            if magnitude is not None and not is_mask(value, node, index, held):
                own[index] = magnitude
                alone = alone or divides or _array(value).size == 1
        read = [value for value in node.inputs if value is not None]
        if not alone and not any(value in scales or value in floors for value in read):
            continue
        found.add(node)
        if node.op_type in BOUNDED:
            continue
        scale, floor = _result(node, own, scales, floors)
        for value in node.outputs:
            if not IN_RANGE[0] <= scale <= IN_RANGE[1]:
                scales[value] = scale
            if floor:
                floors.add(value)
    return found


def _result(
    node: ir.Node, own: dict[int, float], scales: dict[ir.Value, float], floors: Container[ir.Value]
) -> tuple[float, bool]:
    """The magnitude of what a node gives, times what activations have, and whether a tiny constant holds it up."""
    factors = [
        own.get(index, 1.0 if value is None else scales.get(value, 1.0)) for index, value in enumerate(node.inputs)
    ]
    low = any(value in floors for value in node.inputs)
    if node.op_type in PRODUCTS:
        scale = 1.0
        for factor in factors:
            scale *= factor
        # A number over its own norm is of the order of 1.
        return scale, False
    if node.op_type == "Div":
        return factors[0] / factors[1], False
    if node.op_type in SELECTIONS:
        tiny = any(magnitude < 1 for magnitude in own.values())
        return max((*factors, 1.0) if tiny else factors), low or tiny
    scale = max(factors, key=lambda factor: max(factor, 1 / factor) if factor > 0 else 1.0, default=1.0)
    if node.op_type == "Sqrt":
        return scale**0.5, low
    if node.op_type == "Reciprocal":
        return 1 / scale, low
    if node.op_type == "Pow":
        return min(scale, 1e18) ** 2, low
    return scale, low


def masks(model: ir.Model, held: Range) -> set[tuple[ir.Node, int]]:
    """Inputs of nodes that read the constant of a mask with numbers beyond a format's range."""
    return {
        (node, index)
        for node in model.graph
        for index, value in enumerate(node.inputs)
        if value is not None and _is_constant(value) and is_mask(value, node, index, held)
    }


def is_mask(value: ir.Value, node: ir.Node, index: int, held: Range) -> bool:
    """Whether all that a node makes of a constant is added to what a softmax reads, to leave places out of it.

    Then a number far below all others does as well as a lower one. What is below the format's range is negative, or is
    subtracted, and comes by a sum or a choice (Where); a factor of anything but a mask scales, and is none.
    """
    import numpy as np
    import onnx_ir as ir

    if value.dtype not in (ir.DataType.FLOAT, ir.DataType.DOUBLE):
        return False
    array = _array(value)
    far = array[np.isfinite(array) & (np.abs(array) > held.largest)]
    if not far.size or not ((far < 0).all() or (far > 0).all()):
        return False
    return _masks(node, index, negative=bool((far < 0).all()), added=False)


def _masks(node: ir.Node, index: int, *, negative: bool, added: bool) -> bool:
    """Whether a number at an input of a node only leaves places out of a softmax."""
    kind = node.op_type
    if kind in ("Softmax", "LogSoftmax"):
        return index == 0 and negative and added
    if ATTENTION_BIAS.get(("" if node.domain == "ai.onnx" else node.domain, kind)) == index:
        return negative
    if kind in ("Add", "Max", "Min", "Clip"):
        added = True
    elif kind == "Sub":
        negative, added = negative != (index == 1), added or index == 1
    elif kind == "Where":
        if index == 0:
            return False
        added = True
    elif kind == "Mul":
        other = node.inputs[1 - index]
        if other is None or not _is_seen(other):
            return False
    elif kind not in _MOVES or (index > 0 and kind != "Concat"):
        return False
    return all(
        not value.is_graph_output()
        and all(_masks(use.node, use.idx, negative=negative, added=added) for use in value.uses())
        for value in node.outputs
    )


def _is_seen(value: ir.Value) -> bool:
    """Whether a value says which places count: integers, booleans, and 1 less them; also 1 less an input."""
    import numpy as np

    if value.dtype is not None and not value.dtype.is_floating_point():
        return True
    if _is_constant(value):
        return bool(np.isin(_array(value), (0, 1)).all())
    node = value.producer()
    if node is None:
        return False
    sources = [entry for entry in node.inputs if entry is not None]
    if node.op_type == "Sub":
        one, other = sources
        return _is_seen(one) and (_is_seen(other) or (_is_constant(one) and _is_input(other)))
    if node.op_type in ("Mul", "Add", "Min", "Max"):
        return all(_is_seen(entry) for entry in sources)
    return node.op_type in _MOVES and bool(sources) and _is_seen(sources[0])


def _is_input(value: ir.Value) -> bool:
    """Whether a value is an input of the graph, moved or not."""
    node = value.producer()
    if node is None:
        return value.is_graph_input()
    return node.op_type in _MOVES and node.inputs[0] is not None and _is_input(node.inputs[0])


def _is_constant(value: ir.Value) -> bool:
    return value.is_initializer() and not value.is_graph_input() and value.const_value is not None


def _array(value: ir.Value) -> np.ndarray:
    import numpy as np

    tensor = value.const_value
    return np.zeros(0) if tensor is None else tensor.numpy()


def _unheld(value: ir.Value, held: Range, *, divides: bool) -> float | None:
    """The magnitude of a constant that a format does not hold; None where it does.

    A weight among whose numbers some are too small loses nothing by them. A constant that is so as a whole does, and a
    divisor by any of its numbers.
    """
    import numpy as np
    import onnx_ir as ir

    if value.dtype not in (ir.DataType.FLOAT, ir.DataType.DOUBLE):
        return None
    sizes = np.abs(_array(value))
    sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
    if not sizes.size:
        return None
    greatest, least = float(sizes.max()), float(sizes.min())
    if greatest > held.largest or greatest < held.least:
        return greatest
    return least if divides and least < held.least else None
