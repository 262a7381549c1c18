"""Why a graph has nothing to quantize: what it computes with, and which variants take that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from ortc.passes.quantization.layers import LAYERS, find_layers
from ortc.passes.quantization.quantizable import find_sites
from ortc.passes.quantized_operators import listed
from ortc.spec.quantization import QUANTIZABLE

if TYPE_CHECKING:
    import onnx_ir as ir

_KNOWN = (*QUANTIZABLE, *LAYERS)
FLOAT = "`precision: fp32` ships the graph as it is"


def nothing(model: ir.Model, operators: Collection[str], needs: str = "constant weights") -> str:
    """Say why nothing was quantized, what the graph computes with, and what would help.

    Args:
        model: in floating point.
        operators: types of nodes that the variant quantizes.
        needs: what such a node must have.
    """
    return "; ".join([f"nothing to quantize: no {' or '.join(operators)} with {needs}", *_found(model, operators)])


def _found(model: ir.Model, operators: Collection[str]) -> Iterator[str]:
    import onnx_ir as ir

    counts = Counter(node.op_type for node in ir.traversal.RecursiveGraphIterator(model.graph))
    whole = Counter(site.node.op_type for site in find_sites(model, QUANTIZABLE))
    whole += Counter(layer.node.op_type for layer in find_layers(model, LAYERS))
    elsewhere = {name: whole[name] for name in _KNOWN if whole[name] and name not in operators}
    variable = {name: counts[name] - whole[name] for name in _KNOWN if counts[name] > whole[name]}
    if elsewhere:
        convolutions = "Conv" in elsewhere
        way = "an `int8-static` variant takes, with `accuracy.samples`" if convolutions else "another variant takes"
        yield f"the graph has {listed(elsewhere)} that {way}"
    if variable:
        yield f"{listed(variable)} without a constant float32 weight in the main graph"
    if not (elsewhere or variable):
        yield "the graph has no product with weights"
    if not elsewhere:
        yield FLOAT
