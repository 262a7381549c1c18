"""INT8 with calibration: QuantizeLinear and DequantizeLinear around the nodes that are to run on integers (QDQ).

Activations are unsigned with one scale a tensor, weights signed with one a channel. Only what is quantized reads a
rounded activation: others, such as the residual connection of a transformer, go on reading the original.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ortc.common.errors import NotApplicable
from ortc.passes.canonical import count_operators
from ortc.passes.quantization import weight_only
from ortc.passes.quantization.calibration import Ranges
from ortc.passes.quantization.qdq import emit
from ortc.passes.quantization.unquantizable import nothing
from ortc.passes.quantized_operators import quantized_already
from ortc.spec.quantization import Alpha

if TYPE_CHECKING:
    import onnx_ir as ir


def quantize_static(
    model: ir.Model,
    ranges: Ranges,
    *,
    operators: tuple[str, ...],
    smooth: Alpha | None = None,
    exclude: tuple[str, ...] = (),
    blocks: tuple[str, ...] = (),
    symmetric: bool = False,
) -> None:
    """Quantize a model in place.

    Args:
        model: in 32-bit floating point.
        ranges: of the activations, from ortc.passes.quantization.calibration; a node whose activation has none stays
            as it is.
        operators: types of nodes to quantize: those of ortc.spec.quantization.QUANTIZABLE, `Gather` for embedding
            tables, and those of ortc.passes.quantization.layers, which need no ranges.
        smooth: how much of a channel's spread goes from activations into weights, 0 to 1, or `auto`: see
            ortc.passes.quantization.smoothquant. None leaves activations as they are.
        exclude: names of nodes to leave in floating point.
        blocks: names of MatMuls of which the weights alone become integers, of 8 bits.
        symmetric: whether activations are signed, around zero.

    Raises:
        NotApplicable: there is nothing to quantize, or the opset is too old.
    """
    if (done := quantized_already(count_operators(model))) is not None:
        raise NotApplicable(f"{done}; a variant without calibration ships it as it is")
    count = weight_only.emit(model, dict.fromkeys(blocks, 8))
    count += emit(model, ranges, operators=operators, smooth=smooth, exclude=exclude, symmetric=symmetric)
    if count == 0 and not exclude:
        raise NotApplicable(nothing(model, operators, "constant weights and known ranges"))
