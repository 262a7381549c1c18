"""INT8 without calibration: weights become int8 at build time, activations while the model runs."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

import numpy as np

from ortc.common.arrays import Array
from ortc.common.errors import NotApplicable
from ortc.passes.canonical import count_operators
from ortc.passes.quantization import weight_only
from ortc.passes.quantization.calibration import Ranges
from ortc.passes.quantization.dynamic import emit
from ortc.passes.quantization.editor import TOO_OLD
from ortc.passes.quantization.quantizable import find_sites
from ortc.passes.quantization.smoothquant import smooth_products
from ortc.passes.quantization.unquantizable import nothing
from ortc.passes.quantized_operators import quantized_already
from ortc.passes.weight_folding import fold_tied_weights
from ortc.plan.plan import VariantPlan
from ortc.spec.quantization import DynamicQuantization, WeightQuantization
from ortc.spec.vocabulary import LEAST_INT8_OPSET

if TYPE_CHECKING:
    import onnx_ir as ir

SMOOTHING = 0.75
"""How much of the spread goes from activations into weights; SmoothQuant's alpha (Xiao et al., 2022, equation 4)."""
NORMAL_REACH = 3.0
"""Standard deviations that a normalized activation is taken to reach, in place of a calibration run."""


def quantize(model: ir.Model, variant: VariantPlan, ranges: Ranges | None = None) -> None:
    """Quantize a model in place.

    Args:
        model: in 32-bit floating point.
        variant: the `operators` of its quantization are the types whose constant weights become int8 (`Gather` means
            embeddings); `blocks` and `exclude` name the nodes that do not follow.
        ranges: of the activations, for calibrated smoothing.

    Raises:
        NotApplicable: there is nothing to quantize, smooth or keep, or the opset is too old.

    A graph that is quantized already stays as it is: it is the variant.
    """
    how = variant.quantization
    assert isinstance(how, DynamicQuantization | WeightQuantization)  # noqa: S101  # the caller tells kinds apart
    if quantized_already(count_operators(model)) is not None:
        return
    prepare(model, how, ranges)
    blocks = list(variant.blocks)
    if isinstance(how, DynamicQuantization) and how.narrowing == "weight-only":
        blocks += expect_narrowing(model)
    count = emit_integers(model, how.operators, bits_of(variant), blocks, variant.exclude)
    if count == 0 and not variant.exclude:
        raise NotApplicable(nothing(model, how.operators))


def prepare(model: ir.Model, how: DynamicQuantization | WeightQuantization, ranges: Ranges | None = None) -> None:
    """Name the nodes of a model and smooth it, in place: what all that is quantized without ranges begins with.

    Raises:
        NotApplicable: the graph is too old, or there is nothing to smooth.
    """
    if model.opset_imports.get("", 0) < LEAST_INT8_OPSET:
        raise NotApplicable(TOO_OLD)
    for node in model.graph:
        for value in node.outputs:
            if not value.is_graph_output():
                # No longer true once nodes are replaced.
                value.shape, value.type = None, None
    name_nodes(model)
    if how.smoothing == "layer-norm" and smooth(model) == 0:
        raise NotApplicable("nothing to smooth: no LayerNormalization feeds a MatMul that widens")
    if ranges is not None and how.alpha is not None and smooth_products(model, ranges, how.alpha) == 0:
        raise NotApplicable("nothing to smooth: no activation of a product gains by it")
    # After smoothing, which would make two tables of a tied one.
    fold_tied_weights(model)


def smooth(model: ir.Model) -> int:
    """Divide what a LayerNormalization gives by a factor a channel and multiply the next MatMul's rows by it.

    The product stays the same; the activation's channels come closer to one range, which is what dynamic quantization,
    with one scale a tensor, needs. The factor of a channel is reach ** 0.75 / max|row of W| ** 0.25, where reach, the
    activation's expected greatest value, is 3 |gamma| + |beta|: a normalized value rarely exceeds three deviations.
    Only MatMuls that widen (a feed-forward's first) are smoothed.

    Returns the number of MatMuls changed.
    """
    import onnx_ir as ir

    changed = 0
    for node in list(model.graph):
        reach = _reach_of_normal(node.inputs[0]) if node.op_type == "MatMul" else None
        weight = node.inputs[1] if reach is not None else None
        matrix = None if weight is None or len(weight.uses()) != 1 else _constant(weight)
        if reach is None or weight is None or matrix is None or matrix.ndim != 2 or weight.is_graph_output():
            continue
        if matrix.size == 0:
            continue
        rows = np.abs(matrix).max(axis=1)
        if matrix.shape[1] <= matrix.shape[0] or reach.shape != rows.shape:
            continue
        factors = np.maximum(reach, 1e-5) ** SMOOTHING / np.maximum(rows, 1e-5) ** (1 - SMOOTHING)
        factors = (factors / np.median(factors)).astype(matrix.dtype)
        name = f"{node.name or node.outputs[0].name}_smoothed"
        weight.const_value = ir.tensor(matrix * factors[:, None], name=weight.name)
        divisors = ir.Value(name=f"{name}_factors", const_value=ir.tensor(1 / factors, name=f"{name}_factors"))
        model.graph.register_initializer(divisors)
        division = ir.node("Mul", [node.inputs[0], divisors], outputs=[ir.Value(name=name)], name=name)
        model.graph.insert_before(node, division)
        node.replace_input_with(0, division.outputs[0])
        changed += 1
    return changed


def _reach_of_normal(value: ir.Value | None) -> Array | None:
    """The greatest size that each channel is expected to have, of what a LayerNormalization gives; else None."""
    origin = None if value is None else value.producer()
    if origin is None or origin.op_type != "LayerNormalization" or origin.outputs[0] is not value:
        return None
    parameters = [_constant(parameter) for parameter in origin.inputs[1:]]
    scale, *offset = parameters
    if scale is None or any(parameter is None for parameter in offset):
        return None
    reach = NORMAL_REACH * np.abs(scale)
    return reach + np.abs(offset[0]) if offset and offset[0] is not None else reach


def _constant(value: ir.Value | None) -> Array | None:
    """The numbers of an initializer; None of anything else."""
    tensor = value.const_value if value is not None and value.is_initializer() else None
    return None if tensor is None else tensor.numpy()


def name_nodes(model: ir.Model) -> None:
    """Give every node a name of its own: the quantizer leaves nodes out by name."""
    taken: set[str] = set()
    for index, node in enumerate(model.graph):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_ortc_{index}"
        taken.add(node.name)


def bits_of(variant: VariantPlan) -> int:
    """Bits of a variant that rounds weights alone; 0 of any other."""
    return variant.quantization.bits if isinstance(variant.quantization, WeightQuantization) else 0


def expect_narrowing(model: ir.Model) -> tuple[str, ...]:
    """Names of the MatMuls with a constant weight of more rows than columns: a feed-forward's second.

    Raises:
        NotApplicable: there is none that has a name.
    """
    names = tuple(name for name, rows, columns in _in_blocks(model) if name and rows > columns)
    if not names:
        raise NotApplicable("nothing to keep in floating point: no MatMul narrows")
    return names


def _in_blocks(model: ir.Model) -> Iterator[tuple[str, int, int]]:
    """MatMuls whose constant weight has whole blocks in each column: name, rows, columns."""
    for node in model.graph:
        weight = node.inputs[1] if node.op_type == "MatMul" else None
        if weight is None or not weight.is_initializer() or weight.const_value is None:
            continue
        shape = tuple(weight.const_value.shape.numpy())
        if len(shape) == 2 and shape[0] % weight_only.BLOCK == 0:
            yield node.name or "", shape[0], shape[1]


def emit_integers(
    model: ir.Model, operators: Collection[str], bits: int, blocks: Collection[str], exclude: Collection[str]
) -> int:
    """Quantize a model in place, without ranges.

    Args:
        model: in 32-bit floating point, every node with a name of its own.
        operators: types whose constant weights become integers.
        bits: of the weights where these alone are rounded, 4 or 8; 0 rounds activations to 8 bits, too.
        blocks: names of MatMuls of which the weights alone are rounded, to 8 bits.
        exclude: names of nodes that stay in floating point.

    Returns:
        How many nodes were replaced.
    """
    widths = dict.fromkeys(blocks, 8)
    if bits and "MatMul" in operators:
        names = [site.name for site in find_sites(model, ("MatMul",)) if weight_only.fits(site)]
        widths = {name: widths.get(name, bits) for name in names if name not in exclude}
    # Weights alone: tables are read and not multiplied, so that those of any variant become integers alike.
    rounded = tuple(operator for operator in operators if operator == "Gather" or not bits)
    return weight_only.emit(model, widths) + emit(model, rounded, exclude)
