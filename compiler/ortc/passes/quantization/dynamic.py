"""Integer products whose activations are rounded while the model runs, the way ONNX Runtime fuses them.

An activation becomes unsigned integers with one scale, found at every run (DynamicQuantizeLinear); a weight is signed
with one scale for each output, which is what MLAS has its fastest kernels for on VNNI and on ARM. The product of the
integers (MatMulInteger) is exact, and is multiplied by both scales.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

from ortc.common.arrays import Array
from ortc.passes.quantization import layers
from ortc.passes.quantization.editor import TOO_OLD, Editor, round_channels
from ortc.passes.quantization.quantizable import Site, find_sites
from ortc.spec.vocabulary import LEAST_INT8_OPSET

if TYPE_CHECKING:
    import onnx_ir as ir


def emit(model: ir.Model, operators: tuple[str, ...], exclude: Collection[str] = ()) -> int:
    """Quantize a model in place.

    Args:
        model: in 32-bit floating point, of opset LEAST_INT8_OPSET or higher.
        operators: `MatMul`, `Gemm`: those with a constant weight; `Gather`: embedding tables; and those of
            ortc.passes.quantization.layers.
        exclude: names of nodes to leave as they are.

    Returns:
        How many nodes were replaced.
    """
    if model.opset_imports.get("", 0) < LEAST_INT8_OPSET:
        raise ValueError(TOO_OLD)
    emitter = _Emitter(model)
    products = tuple(operator for operator in operators if operator in ("MatMul", "Gemm"))
    sites = [site for site in find_sites(model, products) if site.name not in exclude]
    emitter.readers.update(_key(site) for site in sites)
    for site in sites:
        emitter.quantize(site)
    count = len(sites) + (emitter.quantize_tables(exclude) if "Gather" in operators else 0)
    emitter.remove_unused()
    return count + layers.emit(model, operators, exclude)


class _Emitter(Editor):
    """One model while it is quantized."""

    def __init__(self, model: ir.Model) -> None:
        super().__init__(model)
        self.rounded: dict[ir.Value, tuple[ir.Value, ...]] = {}
        self.weights: dict[str, tuple[ir.Value, ...]] = {}
        self.matrices: dict[str, Array] = {}
        """What was rounded, of shape (channels, outputs), by the same keys."""
        self.readers: Counter[str] = Counter()
        """How many products have a weight, by the same keys."""

    def quantize(self, site: Site) -> None:
        """Replace a product by one of integers."""
        import onnx_ir as ir

        node, name = site.node, site.node.outputs[0].name
        rounded, scale, zero = self._round(site)
        weight, weight_scale, weight_zero = self._weight(site)
        product = self.before(node, "MatMulInteger", [rounded, weight, zero, weight_zero], f"{name}_integers")
        floating = self.before(node, "Cast", [product], f"{name}_cast", to=int(ir.DataType.FLOAT))
        scales = self.before(node, "Mul", [scale, weight_scale], f"{name}_scales")
        value = self.before(node, "Mul", [floating, scales], f"{name}_scaled")
        if site.bias is not None:
            value = self.before(node, "Add", [value, site.bias], f"{name}_biased")
        self.replace(node, value)

    def _round(self, site: Site) -> tuple[ir.Value, ...]:
        """An activation's integers, scale and zero point, made before the first node that reads them."""
        import onnx_ir as ir

        activation = site.activation
        if activation not in self.rounded:
            outputs = [ir.Value(name=self.free(f"{activation.name}_{kind}")) for kind in ("quantized", "scale", "zero")]
            new = ir.node("DynamicQuantizeLinear", [activation], outputs=outputs, name=outputs[0].name)
            self.model.graph.insert_before(site.node, new)
            self.rounded[activation] = tuple(outputs)
        return self.rounded[activation]

    def _weight(self, site: Site) -> tuple[ir.Value, ...]:
        """A weight's integers of shape (channels, outputs), scales and zero points; tied ones stay one.

        A weight of several products is unsigned. Where a processor lacks VNNI, ONNX Runtime turns signed weights into
        unsigned ones once for each product, and opens no session where two have the same.
        """
        key = _key(site)
        if key not in self.weights:
            matrix: Array = site.array.numpy()
            matrix = matrix if site.axis == 1 else matrix.T
            rounded = round_channels(str(site.weight.name), matrix, axis=1)
            self.weights[key] = self.integers(str(site.weight.name), *rounded, unsigned=self.readers[key] > 1)
            self.matrices[key] = matrix
        return self.weights[key]

    def tied_rows(self, table: ir.Value) -> tuple[ir.Value, ...] | None:
        """The constants of a product whose weight is the table."""
        return self._tied(table.const_value, is_transposed=False)

    def tied_columns(self, table: ir.Value) -> tuple[ir.Value, ir.Value] | None:
        """Integers and scales of a product whose weight is the transposed table; signed ones, which need no more."""
        import onnx_ir as ir

        found = self._tied(table.const_value, is_transposed=True)
        return None if found is None or found[0].dtype != ir.DataType.INT8 else (found[0], found[1])

    def _tied(self, table: ir.TensorProtocol | None, *, is_transposed: bool) -> tuple[ir.Value, ...] | None:
        """Constants of the product whose weight has the table's numbers: exporters store tied weights in two forms."""
        if table is None:
            return None
        shape = tuple(table.shape.numpy())
        for key, matrix in self.matrices.items():
            if matrix.shape == (shape[::-1] if is_transposed else shape):
                numbers = table.numpy()
                if np.array_equal(matrix, numbers.T if is_transposed else numbers):
                    return self.weights[key]
        return None


def _key(site: Site) -> str:
    return f"{site.weight.name}/{site.axis}"
