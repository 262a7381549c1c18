"""INT8 with calibration: QuantizeLinear and DequantizeLinear around the nodes that are to run on integers (QDQ).

Run as `python -m ortc.stages.static REQUEST`, in a process of its own, so that its memory is its own. Activations are
unsigned with one scale a tensor, weights signed with one a channel. Only what is quantized reads a rounded activation:
others, such as the residual connection of a transformer, go on reading the original.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ortc.arrays import Array
from ortc.errors import StageError
from ortc.stages.calibrate import Range, Ranges
from ortc.stages.graph import MODEL_FILE, values, write
from ortc.stages.quantize import NotApplicable
from ortc.stages.sites import Site, find_sites, is_weight

if TYPE_CHECKING:
    import onnx_ir as ir

LEAST_OPSET = 13
"""From here on DequantizeLinear takes a scale for each channel."""
_NOT_APPLICABLE = 3
_TINY = 1e-5


def quantize_static(
    source: Path,
    output: Path,
    ranges: Ranges,
    *,
    operators: tuple[str, ...],
    smooth: float | None = None,
    exclude: tuple[str, ...] = (),
) -> None:
    """Write the quantized form of `source`/model.onnx to `output`/model.onnx.

    Args:
        source: directory with a graph in 32-bit floating point.
        output: an existing, other directory.
        ranges: of the activations, from ortc.stages.calibrate; a node whose activation has none stays as it is.
        operators: types of nodes to quantize: those of sites.QUANTIZABLE, and `Gather` for embedding tables.
        smooth: how much of a channel's spread goes from activations into weights, 0 to 1; SmoothQuant's alpha (Xiao et
            al., 2022, equation 4). None leaves activations as they are.
        exclude: names of nodes to leave in floating point.

    Raises:
        NotApplicable: there is nothing to quantize.
        StageError: the graph cannot be quantized.
    """
    with tempfile.TemporaryDirectory(prefix="ortc-static-") as scratch:
        ranges.save(Path(scratch) / "ranges.npz")
        request = {
            "source": str(source),
            "output": str(output),
            "ranges": str(Path(scratch) / "ranges.npz"),
            "operators": list(operators),
            "smooth": smooth,
            "exclude": list(exclude),
        }
        result = subprocess.run(
            [sys.executable, "-m", "ortc.stages.static", json.dumps(request)],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            check=False,
        )
    if result.returncode == _NOT_APPLICABLE:
        raise NotApplicable(result.stderr.strip())
    if result.returncode != 0:
        lines = result.stderr.strip().splitlines()
        reason = lines[-1] if lines else f"exit code {result.returncode}"
        raise StageError(f"static quantization fails: {reason}", details=tuple(lines[-8:]))


def emit(
    model: ir.Model,
    ranges: Ranges,
    *,
    operators: tuple[str, ...],
    smooth: float | None = None,
    exclude: tuple[str, ...] = (),
) -> int:
    """Quantize a model in place; see quantize_static. Returns how many nodes now run on integers."""
    return _Emitter(model, ranges, smooth).emit(operators, frozenset(exclude))


class _Emitter:
    """One model while it is quantized."""

    def __init__(self, model: ir.Model, ranges: Ranges, smooth: float | None) -> None:
        self.model = model
        self.ranges = ranges
        self.smooth = smooth
        self.names = {str(value.name) for value in values(model)}
        self.weights: dict[tuple[str, bool], ir.Value] = {}

    def emit(self, operators: tuple[str, ...], exclude: frozenset[str]) -> int:
        if self.model.opset_imports.get("", 0) < LEAST_OPSET:
            raise NotApplicable(f"static quantization needs opset {LEAST_OPSET} or higher")
        groups: dict[ir.Value, list[Site]] = {}
        for site in find_sites(self.model, operators):
            if site.name not in exclude and site.activation.name in self.ranges.tensors:
                groups.setdefault(site.activation, []).append(site)
        for activation, sites in groups.items():
            self._quantize(activation, sites)
        tables = self._quantize_tables(exclude) if "Gather" in operators else 0
        self._remove_unused()
        return sum(map(len, groups.values())) + tables

    def _quantize(self, activation: ir.Value, sites: list[Site]) -> None:
        """Quantize an activation once, and everything that multiplies it with weights."""
        found = self.ranges.tensors[str(activation.name)]
        first, source, factors = sites[0].node, activation, None
        if self.smooth is not None:
            factors = _factors(found, sites, self.smooth)
            inverse = self._constant(f"{activation.name}_smoothing", 1 / factors)
            source = self._before(first, "Mul", [activation, inverse], f"{activation.name}_smoothed")
            found = Range(found.minimum / factors, found.maximum / factors)
        dequantized = self._activation(first, source, found)
        for site in sites:
            self._weight(site, dequantized, factors)

    def _activation(self, before: ir.Node, source: ir.Value, found: Range) -> ir.Value:
        """Quantize and dequantize a tensor; zero is one of the 256 values, so that padding stays what it is."""
        low, high = min(float(found.minimum.min()), 0.0), max(float(found.maximum.max()), 0.0)
        scale = (high - low) / 255 or 1.0
        zero = np.uint8(np.clip(round(-low / scale), 0, 255))
        constants = [
            self._constant(f"{source.name}_scale", np.float32(scale)),
            self._constant(f"{source.name}_zero_point", zero),
        ]
        integers = self._before(before, "QuantizeLinear", [source, *constants], f"{source.name}_quantized")
        return self._before(before, "DequantizeLinear", [integers, *constants], f"{source.name}_dequantized")

    def _weight(self, site: Site, activation: ir.Value, factors: Array | None) -> None:
        """Make a node read the rounded activation and a rounded weight."""
        node, matrix = site.node, site.tensor.numpy()
        if site.transposed:
            matrix = matrix.T
        if factors is not None:
            matrix = matrix * factors[:, None]
        weight = self._weights(site, matrix, shared=factors is None)
        if node.op_type == "Gemm":
            self._as_matmul(node, activation, weight)
        else:
            node.replace_input_with(0, activation)
            node.replace_input_with(1, weight)

    def _weights(self, site: Site, matrix: Array, *, shared: bool) -> ir.Value:
        """A dequantized weight with a scale a column; tied weights stay one."""
        key = (str(site.weight.name), site.transposed)
        if shared and key in self.weights:
            return self.weights[key]
        integers, scales = round_channels(matrix, axis=1)
        value = self._dequantized(site.node, str(site.weight.name), integers, scales, axis=1)
        if shared:
            self.weights[key] = value
        return value

    def _dequantized(self, before: ir.Node, name: str, integers: Array, scales: Array, axis: int) -> ir.Value:
        inputs = self._integers(name, integers, scales)
        return self._before(before, "DequantizeLinear", inputs, f"{name}_dequantized", {"axis": axis})

    def _integers(self, name: str, integers: Array, scales: Array) -> tuple[ir.Value, ir.Value, ir.Value]:
        """Constants for a rounded weight, its scales and zero points."""
        return (
            self._constant(f"{name}_quantized", integers),
            self._constant(f"{name}_scale", scales),
            self._constant(f"{name}_zero_point", np.zeros(scales.shape, integers.dtype)),
        )

    def _as_matmul(self, node: ir.Node, activation: ir.Value, weight: ir.Value) -> None:
        """Write a Gemm as MatMul and Add: ONNX Runtime has no integer Gemm that takes its bias in floating point."""
        bias, output = (node.inputs[2] if len(node.inputs) > 2 else None), node.outputs[0]
        product = self._before(node, "MatMul", [activation, weight], f"{output.name}_product")
        if bias is not None:
            product = self._before(node, "Add", [product, bias], f"{output.name}_sum")
        self._replace(node, product)

    def _replace(self, node: ir.Node, value: ir.Value) -> None:
        """Remove a node; `value` takes the place and the name of its output."""
        import onnx_ir as ir

        output = node.outputs[0]
        value.shape, value.type = output.shape, output.type
        value.name, output.name = output.name, value.name
        ir.convenience.replace_all_uses_with(output, value, replace_graph_outputs=True)
        self.model.graph.remove(node, safe=True)

    def _quantize_tables(self, exclude: frozenset[str]) -> int:
        """Turn tables that rows are gathered from into integers with a scale a column; the rows are dequantized.

        One scale for a table rounds four times coarser (the word embeddings of all-MiniLM-L6-v2: an error of 4.3 % of
        their root mean square, and 1.1 % with a scale a column).
        """
        rounded: dict[str, tuple[ir.Value, ir.Value, ir.Value]] = {}
        lookups = [node for node in self.model.graph if _is_lookup(node) and _name(node) not in exclude]
        for node in lookups:
            table, output = node.inputs[0], node.outputs[0]
            assert table is not None  # noqa: S101  # _is_lookup
            assert table.const_value is not None  # noqa: S101
            name = str(table.name)
            if name not in rounded:
                rounded[name] = self._integers(name, *round_channels(table.const_value.numpy(), axis=1))
            integers, *parameters = rounded[name]
            rows = self._before(node, "Gather", [integers, node.inputs[1]], f"{output.name}_quantized", {"axis": 0})
            found = self._before(
                node, "DequantizeLinear", [rows, *parameters], f"{output.name}_dequantized", {"axis": -1}
            )
            self._replace(node, found)
        return len(lookups)

    def _before(
        self,
        node: ir.Node,
        operator: str,
        inputs: Sequence[ir.Value | None],
        name: str,
        attributes: dict[str, int] | None = None,
    ) -> ir.Value:
        """The output of a new node that stands before another."""
        import onnx_ir as ir

        output = ir.Value(name=self._free(name))
        new = ir.node(operator, inputs, attributes or {}, outputs=[output], name=output.name)
        self.model.graph.insert_before(node, new)
        return output

    def _constant(self, name: str, array: Array | np.generic) -> ir.Value:
        import onnx_ir as ir

        tensor = ir.tensor(np.asarray(array), name=self._free(name))
        value = ir.Value(
            name=tensor.name, shape=ir.Shape(tensor.shape.numpy()), type=ir.TensorType(tensor.dtype), const_value=tensor
        )
        self.model.graph.register_initializer(value)
        return value

    def _free(self, name: str) -> str:
        while name in self.names:
            name += "_"
        self.names.add(name)
        return name

    def _remove_unused(self) -> None:
        for name, value in list(self.model.graph.initializers.items()):
            if not value.uses() and not value.is_graph_output():
                del self.model.graph.initializers[name]


def round_channels(weight: Array, axis: int) -> tuple[Array, Array]:
    """A weight as int8 in -127 to 127, and the float32 scale of each index of `axis`.

    A channel of nothing but zeros has scale 1.
    """
    others = tuple(index for index in range(weight.ndim) if index != axis)
    scales = (np.abs(weight).max(axis=others) / 127).astype(np.float32)
    scales[scales == 0] = 1
    shape = [1] * weight.ndim
    shape[axis] = -1
    return np.clip(np.rint(weight / scales.reshape(shape)), -127, 127).astype(np.int8), scales


def _factors(found: Range, sites: Sequence[Site], smooth: float) -> Array:
    """What to divide the channels of an activation by, shared by all that multiply it; their median is 1."""
    rows = np.max([np.abs(site.tensor.numpy()).max(axis=0 if site.transposed else 1) for site in sites], axis=0)
    factors = np.maximum(found.reach, _TINY) ** smooth / np.maximum(rows, _TINY) ** (1 - smooth)
    return np.asarray(factors / np.median(factors), np.float32)


def _name(node: ir.Node) -> str:
    return str(node.name or node.outputs[0].name)


def _is_lookup(node: ir.Node) -> bool:
    """Whether a node gathers rows from a constant matrix."""
    if node.op_type != "Gather" or node.domain not in ("", "ai.onnx") or node.attributes.get_int("axis", 0) != 0:
        return False
    table = node.inputs[0]
    return (
        table is not None and is_weight(table) and table.const_value is not None and len(table.const_value.shape) == 2
    )


def _main(request: dict[str, Any]) -> None:
    import onnx_ir as ir

    model = ir.load(Path(request["source"]) / MODEL_FILE)
    operators = tuple(request["operators"])
    ranges, exclude = Ranges.load(Path(request["ranges"])), tuple(request["exclude"])
    if emit(model, ranges, operators=operators, smooth=request["smooth"], exclude=exclude) == 0:
        raise NotApplicable(f"nothing to quantize: no {' or '.join(operators)} with constant weights and known ranges")
    write(model, Path(request["output"]))


if __name__ == "__main__":
    try:
        _main(json.loads(sys.argv[1]))
    except NotApplicable as reason:
        sys.stderr.write(reason.message)
        sys.exit(_NOT_APPLICABLE)
