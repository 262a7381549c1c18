"""Write QuantizeLinear and DequantizeLinear around what is to run on integers, the way ONNX Runtime fuses them.

Activations are unsigned, or signed around zero, with one scale a tensor, weights signed with one a channel. A product
of matrices gives floating point, and only what is quantized reads its rounded input: others, such as the residual
connection of a transformer, go on reading the original. ONNX Runtime's integer convolution gives integers instead;
what can take them, takes them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ortc.common.arrays import Array
from ortc.common.errors import NotApplicable
from ortc.passes.quantization import layers
from ortc.passes.quantization.calibration import Range, Ranges
from ortc.passes.quantization.editor import TOO_OLD, Editor, round_channels
from ortc.passes.quantization.quantizable import MOVES, Site, find_sites, find_stream, is_bias, is_standard
from ortc.passes.quantization.smoothquant import factors_of
from ortc.spec.quantization import Alpha
from ortc.spec.vocabulary import LEAST_INT8_OPSET

if TYPE_CHECKING:
    import onnx_ir as ir

_NORMALIZATIONS = ("LayerNormalization", "RMSNormalization")
_MOST = 2.0**30
"""A bias is a 32-bit integer in steps of activation and weight."""


def emit(
    model: ir.Model,
    ranges: Ranges,
    *,
    operators: tuple[str, ...],
    smooth: Alpha | None = None,
    exclude: tuple[str, ...] = (),
    symmetric: bool = False,
) -> int:
    """Quantize a model in place; see static.quantize_static. Returns how many nodes now run on integers.

    Raises:
        NotApplicable: the opset is too old.
    """
    if model.opset_imports.get("", 0) < LEAST_INT8_OPSET:
        raise NotApplicable(TOO_OLD)
    emitter = _Emitter(model, ranges, smooth, symmetric=symmetric)
    count = emitter.quantize_sites(operators, exclude)
    if "Gather" in operators:
        count += emitter.quantize_tables(exclude)
    emitter.remove_unused()
    return count + layers.emit(model, operators, exclude)


@dataclass(frozen=True)
class _Rounded:
    """A quantized activation: its parameters as constants, its step as a number, and what DequantizeLinear gives."""

    scale: ir.Value
    zero: ir.Value
    step: float
    value: ir.Value


class _Emitter(Editor):
    """One model while it is quantized."""

    def __init__(self, model: ir.Model, ranges: Ranges, smooth: Alpha | None, *, symmetric: bool) -> None:
        super().__init__(model)
        self.ranges = ranges.tensors
        self.smooth = smooth
        self.symmetric = symmetric
        self.rounded: dict[ir.Value, _Rounded] = {}
        self.weights: dict[str, ir.Value] = {}
        self.uses: Counter[str] = Counter()
        """How many nodes have a weight, by the same keys."""
        self.factors: dict[ir.Value, Array | None] = {}
        self.readers: dict[str, list[Site]] = {}
        """By the name of the activation, which stays when a node that gives it is replaced."""

    def quantize_sites(self, operators: tuple[str, ...], exclude: Sequence[str]) -> int:
        sites = [
            site
            for site in find_sites(self.model, operators)
            if site.name not in exclude and site.activation.name in self.ranges
        ]
        convolutions = {site.node for site in sites if site.node.op_type == "Conv"}
        stream = find_stream(self.model, convolutions, self.ranges)
        # A convolution whose output has no range cannot give integers, and has no use for any.
        chosen = {site.node: site for site in sites if site.node not in convolutions or site.node in stream}
        self.uses.update(_key(site) for site in chosen.values())
        for site in chosen.values():
            self.readers.setdefault(str(site.activation.name), []).append(site)
        for node in list(self.model.graph):
            if node in chosen:
                self._quantize(chosen[node])
            if node in stream:
                self._give_integers(node, stream[node])
        return len(chosen)

    def _quantize(self, site: Site) -> None:
        """Make a node read a rounded activation and a rounded weight."""
        node, factors = site.node, self._factors(site.activation)
        activation = self._round(site, factors)
        matrix = site.array.numpy()
        if factors is not None:
            matrix = matrix * (factors[None, :] if site.axis == 0 else factors[:, None])
        add = self._bias_of_rows(site)
        bias = site.bias if add is None else next(value for value in add.inputs if value is not node.outputs[0])
        if bias is None:
            node.replace_input_with(0, activation.value)
            node.replace_input_with(1, self._weight(site, matrix, shared=factors is None))
            return
        assert bias.const_value is not None  # noqa: S101  # is_bias
        numbers = bias.const_value.numpy()
        least = np.abs(numbers) / (activation.step * _MOST)
        integers, scales = round_channels(str(site.weight.name), matrix, site.axis, least)
        weight = self._dequantized(node, str(site.weight.name), integers, scales, site.axis)
        steps = (activation.step * scales).astype(np.float32)
        rounded = np.rint(numbers / steps.astype(np.float64)).astype(np.int32)
        inputs = [activation.value, weight, self._dequantized(node, str(bias.name), rounded, steps, axis=0)]
        if add is not None:
            self.replace(add, self.before(add, "Gemm", inputs, f"{add.outputs[0].name}_gemm"))
            self.model.graph.remove(node, safe=True)
            return
        for index, value in enumerate(inputs):
            node.replace_input_with(index, value)

    def _bias_of_rows(self, site: Site) -> ir.Node | None:
        """The Add of a bias to a product of two matrices.

        ONNX Runtime makes one Gemm of the two before it looks for integers, and has none that takes its bias in
        floating point; the weight would be dequantized at every run. Products of more dimensions stay what they are.
        """
        product, shape = site.node.outputs[0], site.activation.shape
        consumers = product.consumers()
        if site.node.op_type != "MatMul" or shape is None or len(shape) != 2 or product.is_graph_output():
            return None
        if len(consumers) != 1 or len(product.uses()) != 1 or consumers[0].op_type != "Add":
            return None
        others = [value for value in consumers[0].inputs if value is not product]
        return consumers[0] if is_bias(others[0], site.shape[1]) else None

    def _round(self, site: Site, factors: Array | None) -> _Rounded:
        """A rounded activation, made when it is first needed."""
        activation = site.activation
        if activation not in self.rounded:
            found, source = self.ranges[str(activation.name)], activation
            if factors is not None:
                found = Range(found.minimum / factors, found.maximum / factors, found.power / factors**2)
                if not self._fold(activation, factors):
                    inverse = self.constant(f"{activation.name}_smoothing", 1 / factors)
                    source = self.before(site.node, "Mul", [activation, inverse], f"{activation.name}_smoothed")
            scale, zero, step = self._parameters(str(source.name), found)
            integers = self.before(site.node, "QuantizeLinear", [source, scale, zero], f"{source.name}_quantized")
            value = self.before(site.node, "DequantizeLinear", [integers, scale, zero], f"{source.name}_dequantized")
            self.rounded[activation] = _Rounded(scale, zero, step, value)
        return self.rounded[activation]

    def _give_integers(self, node: ir.Node, end: ir.Value) -> None:
        """Round what a node gives; everybody reads that."""
        import onnx_ir as ir

        if node.op_type in MOVES:
            assert node.inputs[0] is not None  # noqa: S101  # find_stream
            before = self.rounded[node.inputs[0]]
            scale, zero, step = before.scale, before.zero, before.step
        else:
            scale, zero, step = self._parameters(str(end.name), self.ranges[str(end.name)])
        producer = end.producer()
        assert producer is not None  # noqa: S101  # it is a node's output
        integers = ir.Value(name=self.free(f"{end.name}_quantized"))
        value = ir.Value(name=self.free(f"{end.name}_dequantized"), shape=end.shape, type=end.type)
        quantize = ir.node("QuantizeLinear", [end, scale, zero], outputs=[integers], name=integers.name)
        dequantize = ir.node("DequantizeLinear", [integers, scale, zero], outputs=[value], name=value.name)
        readers = self.readers.get(str(end.name))
        if end.is_graph_output():
            value.name, end.name = end.name, value.name
        if readers is not None:
            self.readers[str(value.name)] = readers
        end.replace_all_uses_with(value, replace_graph_outputs=True)
        quantize.replace_input_with(0, end)
        self.model.graph.insert_after(producer, [quantize, dequantize])
        # Nodes after it know the one, sites the other.
        self.rounded[end] = self.rounded[value] = _Rounded(scale, zero, step, value)

    def _parameters(self, name: str, found: Range) -> tuple[ir.Value, ir.Value, float]:
        """Scale and zero point for a range. Zero is one of the 256 values, so that padding stays what it is."""
        low, high = min(float(found.minimum.min()), 0.0), max(float(found.maximum.max()), 0.0)
        if self.symmetric:
            step = float(np.float32(max(-low, high) / 127)) or 1.0
            return (
                self.constant(f"{name}_scale", np.float32(step)),
                self.constant(f"{name}_zero_point", np.int8(0)),
                step,
            )
        step = float(np.float32((high - low) / 255)) or 1.0
        zero = np.uint8(np.clip(round(-low / step), 0, 255))
        return self.constant(f"{name}_scale", np.float32(step)), self.constant(f"{name}_zero_point", zero), step

    def _factors(self, activation: ir.Value) -> Array | None:
        """What the channels of an activation are divided by, for all that multiply it."""
        if activation not in self.factors:
            sites, factors = self.readers[str(activation.name)], None
            # What a convolution gave is rounded already.
            if self.smooth is not None and activation not in self.rounded and sites[0].node.op_type != "Conv":
                matrices = [site.array.numpy() if site.axis == 1 else site.array.numpy().T for site in sites]
                factors = factors_of(self.ranges[str(activation.name)], matrices, self.smooth)
            self.factors[activation] = factors
        return self.factors[activation]

    def _fold(self, activation: ir.Value, factors: Array) -> bool:
        """Divide by the factors in the normalization that gives the activation, where nobody else reads it."""
        node = activation.producer()
        readers = {site.node for site in self.readers[str(activation.name)]}
        if node is None or node.op_type not in _NORMALIZATIONS or not is_standard(node) or activation.is_graph_output():
            return False
        parameters = [(index, value) for index, value in enumerate(node.inputs) if index > 0 and value is not None]
        if set(activation.consumers()) != readers or not all(is_bias(v, len(factors)) for _, v in parameters):
            return False
        for index, value in parameters:
            assert value.const_value is not None  # noqa: S101  # is_bias
            smoothed = self.constant(f"{value.name}_smoothed", value.const_value.numpy() / factors)
            node.replace_input_with(index, smoothed)
        return True

    def _weight(self, site: Site, matrix: Array, *, shared: bool) -> ir.Value:
        """A rounded weight; tied ones stay one.

        A weight of several nodes is unsigned. Where a processor lacks VNNI, ONNX Runtime turns signed weights beside
        unsigned activations into unsigned ones once for each node, and opens no session where two have the same.
        """
        name, rounded = _key(site), round_channels(str(site.weight.name), matrix, site.axis)
        if not shared:
            return self._dequantized(site.node, str(site.weight.name), *rounded, site.axis)
        if name not in self.weights:
            unsigned = self.uses[name] > 1 and not self.symmetric
            inputs = self.integers(str(site.weight.name), *rounded, unsigned=unsigned)
            self.weights[name] = self._dequantizer(site.node, str(site.weight.name), inputs, site.axis)
        return self.weights[name]

    def _dequantized(self, before: ir.Node, name: str, integers: Array, scales: Array, axis: int) -> ir.Value:
        return self._dequantizer(before, name, self.integers(name, integers, scales), axis)

    def _dequantizer(self, before: ir.Node, name: str, inputs: tuple[ir.Value, ...], axis: int) -> ir.Value:
        return self.before(before, "DequantizeLinear", inputs, f"{name}_dequantized", axis=axis)


def _key(site: Site) -> str:
    return f"{site.weight.name}/{site.axis}"
