"""Weights in blocks of integers, each with a scale of its own; activations stay in floating point (MatMulNBits).

Costs time where dynamic quantization gains it, and hardly any accuracy: an outlier coarsens its own block alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ortc.common.arrays import Array
from ortc.passes.quantization.editor import Editor, expect_finite
from ortc.passes.quantization.quantizable import Site, find_sites

if TYPE_CHECKING:
    import onnx_ir as ir

BLOCK = 32
"""Weights that share a scale."""
DOMAIN = "com.microsoft"
INTEGER_ACCUMULATION = 4
"""`accuracy_level`: activations may be rounded to 8 bits block by block, in registers, for integer products."""


def fits(site: Site) -> bool:
    """Whether a node's weight can be put into blocks: a MatMul's, of whole blocks in each column."""
    return site.node.op_type == "MatMul" and len(site.shape) == 2 and site.shape[0] % BLOCK == 0


def emit(model: ir.Model, bits: Mapping[str, int]) -> int:
    """Put the weights of some MatMuls into blocks, in place.

    Args:
        model: in 32-bit floating point.
        bits: 4 or 8, by the names of the nodes; names of other nodes are passed over.

    Returns:
        How many nodes were replaced.
    """
    editor = Editor(model)
    sites = [site for site in find_sites(model, ("MatMul",)) if site.name in bits and fits(site)]
    for site in sites:
        _replace(editor, site, bits[site.name])
    if sites:
        model.opset_imports.setdefault(DOMAIN, 1)
        editor.remove_unused()
    return len(sites)


def round_blocks(name: str, matrix: Array, bits: int) -> tuple[Array, Array]:
    """A matrix [rows, columns] as MatMulNBits stores it: unsigned integers [columns, blocks, bytes], scales float32.

    The middle of the integers is zero. The greatest weight of a block, by magnitude, becomes the least integer: there
    is one more below the middle than above.

    Raises:
        NotApplicable: the matrix, which the name is of, has numbers that are not finite.
    """
    rows, columns = matrix.shape
    blocks = np.ascontiguousarray(matrix.T).reshape(columns, rows // BLOCK, BLOCK)
    middle = 2 ** (bits - 1)
    greatest = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=-1)[..., np.newaxis], axis=-1)
    scales = (greatest / -middle).astype(np.float32)
    expect_finite(name, scales)
    scales[scales == 0] = 1
    integers = np.clip(np.rint(blocks / scales) + middle, 0, 2 * middle - 1).astype(np.uint8)
    if bits == 4:
        integers = integers[..., 0::2] | (integers[..., 1::2] << 4)
    return integers, scales.reshape(-1)


def _replace(editor: Editor, site: Site, bits: int) -> None:
    import onnx_ir as ir

    rows, columns = site.shape
    name = str(site.weight.name)
    integers, scales = round_blocks(name, site.array.numpy(), bits)
    inputs = [
        site.activation,
        editor.constant(f"{name}_{bits}bit", integers),
        editor.constant(f"{name}_block_scales", scales),
    ]
    attributes = {
        "K": rows,
        "N": columns,
        "bits": bits,
        "block_size": BLOCK,
        "accuracy_level": INTEGER_ACCUMULATION,
    }
    output = ir.Value(name=editor.free(f"{site.node.outputs[0].name}_blocks"))
    node = ir.node("MatMulNBits", inputs, attributes, domain=DOMAIN, outputs=[output], name=output.name)
    editor.model.graph.insert_before(site.node, node)
    editor.replace(site.node, output)
