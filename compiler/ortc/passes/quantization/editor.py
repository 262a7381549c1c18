"""What quantizers do to a graph: constants, nodes in front of others, weights and tables as integers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ortc.common.arrays import Array
from ortc.common.errors import NotApplicable
from ortc.common.texts import shown
from ortc.passes.canonical import node_name, values
from ortc.passes.quantization.quantizable import is_standard, is_weight
from ortc.spec.vocabulary import LEAST_INT8_OPSET

if TYPE_CHECKING:
    import onnx_ir as ir

TOO_OLD = f"quantization needs opset {LEAST_INT8_OPSET} or higher: set `export.opset: {LEAST_INT8_OPSET}`"
_MIDDLE = 128
"""The uint8 that stands for zero."""
_ALLOWZERO = 14
"""Opset since which Reshape tells a size of 0 from a reference to the input's."""


def round_channels(name: str, weight: Array, axis: int, least: Array | float = 0.0) -> tuple[Array, Array]:
    """A weight as int8 in -127 to 127, and the float32 scale of each index of `axis`, at least `least`.

    A channel of nothing but zeros has scale 1.

    Raises:
        NotApplicable: the weight, which the name is of, has numbers that are not finite.
    """
    others = tuple(index for index in range(weight.ndim) if index != axis)
    scales = np.maximum(np.abs(weight).max(axis=others) / 127, least).astype(np.float32)
    expect_finite(name, scales)
    scales[scales == 0] = 1
    shape = [1] * weight.ndim
    shape[axis] = -1
    return np.clip(np.rint(weight / scales.reshape(shape)), -127, 127).astype(np.int8), scales


def expect_finite(name: str, scales: Array) -> None:
    """Refuse a weight by its scales: one that is not finite comes of an infinite weight or of NaN.

    Raises:
        NotApplicable: naming the weight.
    """
    if not np.isfinite(scales).all():
        raise NotApplicable(
            f"the weight `{shown(name)}` has numbers that are not finite, and integers have none: export a model "
            "without them; `precision: fp32` ships the graph as it is"
        )


class Editor:
    """One model while it is quantized."""

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.names = {str(value.name) for value in values(model)}

    def remove_unused(self) -> None:
        """Forget the weights that were rounded."""
        for name, value in list(self.model.graph.initializers.items()):
            if not value.uses() and not value.is_graph_output() and not value.is_graph_input():
                del self.model.graph.initializers[name]

    def quantize_tables(self, exclude: Collection[str]) -> int:
        """Turn tables that rows are gathered from into integers with a scale a column; the rows are dequantized.

        One scale for a table rounds four times coarser (the word embeddings of all-MiniLM-L6-v2: an error of 4.3 % of
        their root mean square, and 1.1 % with a scale a column).

        A table that is also the weight of a rounded product is stored once, in the product's integers. A table that
        something else reads as it is stays as it is: its integers would come on top.
        """
        tables: dict[str, tuple[ir.Value, ...]] = {}
        lookups = [node for node in find_lookups(self.model) if node_name(node) not in exclude]
        chosen = [node for node in lookups if not _is_kept(node.inputs[0], lookups)]
        for node in chosen:
            table = node.inputs[0]
            assert table is not None  # noqa: S101  # _is_lookup
            assert table.const_value is not None  # noqa: S101
            name = str(table.name)
            if (columns := self.tied_columns(table)) is not None:
                self._gather_columns(node, *columns)
                continue
            if name not in tables:
                shared = self.tied_rows(table)
                tables[name] = shared or self.integers(name, *round_channels(name, table.const_value.numpy(), axis=1))
            self._gather_rows(node, tables[name])
        return len(chosen)

    def tied_rows(self, table: ir.Value) -> tuple[ir.Value, ...] | None:
        """Integers of a table, with a scale a column, that a product has already; None for none."""
        return None

    def tied_columns(self, table: ir.Value) -> tuple[ir.Value, ir.Value] | None:
        """Integers of a transposed table, and a scale for each of its columns, that a product has; None for none."""
        return None

    def _gather_rows(self, node: ir.Node, constants: tuple[ir.Value, ...]) -> None:
        """Gather rows of integers with a scale a column."""
        (integers, *parameters), name = constants, node.outputs[0].name
        rows = self.before(node, "Gather", [integers, node.inputs[1]], f"{name}_quantized", axis=0)
        self.replace(node, self.before(node, "DequantizeLinear", [rows, *parameters], f"{name}_dequantized", axis=-1))

    def _gather_columns(self, node: ir.Node, integers: ir.Value, scales: ir.Value) -> None:
        """Gather columns of a transposed table of integers, with a scale a column, and turn them into rows."""
        import onnx_ir as ir

        indices, name = node.inputs[1], node.outputs[0].name
        assert integers.shape is not None  # noqa: S101  # a constant
        width = self.constant(f"{name}_width", np.asarray([integers.shape[0]], np.int64))
        flat = self.constant(f"{name}_flat", np.asarray([-1], np.int64))
        places = self.before(node, "Reshape", [indices, flat], f"{name}_places")
        columns = self.before(node, "Gather", [integers, places], f"{name}_quantized", axis=1)
        steps = self.before(node, "Gather", [scales, places], f"{name}_scales", axis=0)
        floating = self.before(node, "Cast", [columns], f"{name}_cast", to=int(ir.DataType.FLOAT))
        scaled = self.before(node, "Mul", [floating, steps], f"{name}_dequantized")
        rows = self.before(node, "Transpose", [scaled], f"{name}_rows", perm=(1, 0))
        sizes = self.before(node, "Shape", [indices], f"{name}_sizes")
        shape = self.before(node, "Concat", [sizes, width], f"{name}_shape", axis=0)
        # A size of 0 is one, and no reference to the input's.
        zero = {"allowzero": 1} if self.model.opset_imports.get("", 0) >= _ALLOWZERO else {}
        self.replace(node, self.before(node, "Reshape", [rows, shape], f"{name}_shaped", **zero))

    def integers(self, name: str, integers: Array, scales: Array, *, unsigned: bool = False) -> tuple[ir.Value, ...]:
        """Constants for numbers rounded to int8, their scales and zero points; `unsigned`: the same ones as uint8."""
        zero = _MIDDLE if unsigned else 0
        kept = (integers.astype(np.int16) + zero).astype(np.uint8) if unsigned else integers
        return (
            self.constant(f"{name}_quantized", kept),
            self.constant(f"{name}_scale", scales),
            self.constant(f"{name}_zero_point", np.full(scales.shape, zero, kept.dtype)),
        )

    def replace(self, node: ir.Node, value: ir.Value) -> None:
        """Remove a node; `value` takes the place and the name of its output."""
        output = node.outputs[0]
        value.shape, value.type = output.shape, output.type
        value.name, output.name = output.name, value.name
        output.replace_all_uses_with(value, replace_graph_outputs=True)
        self.model.graph.remove(node, safe=True)

    def before(
        self,
        node: ir.Node,
        operator: str,
        inputs: Sequence[ir.Value | None],
        name: str,
        **attributes: int | tuple[int, ...],
    ) -> ir.Value:
        """The output of a new node that stands before another."""
        import onnx_ir as ir

        output = ir.Value(name=self.free(name))
        new = ir.node(operator, inputs, attributes, outputs=[output], name=output.name)
        self.model.graph.insert_before(node, new)
        return output

    def constant(self, name: str, array: Array | np.generic) -> ir.Value:
        import onnx_ir as ir

        tensor = ir.tensor(np.asarray(array), name=self.free(name))
        value = ir.Value(
            name=tensor.name, shape=ir.Shape(tensor.shape.numpy()), type=ir.TensorType(tensor.dtype), const_value=tensor
        )
        self.model.graph.register_initializer(value)
        return value

    def free(self, name: str) -> str:
        """A name that no other value has."""
        while name in self.names:
            name += "_"
        self.names.add(name)
        return name


def find_lookups(model: ir.Model) -> list[ir.Node]:
    """Nodes of the main graph that gather rows from a constant matrix."""
    return [node for node in model.graph if _is_lookup(node)]


def _is_kept(table: ir.Value | None, lookups: Collection[ir.Node]) -> bool:
    """Whether others than these nodes read a table as it is. A Transpose of it is another tensor once it is folded."""
    return table is not None and any(
        node not in lookups and not (node.op_type == "Transpose" and is_standard(node)) for node in table.consumers()
    )


def _is_lookup(node: ir.Node) -> bool:
    """Whether a node gathers rows from a constant matrix."""
    if node.op_type != "Gather" or not is_standard(node) or node.attributes.get_int("axis", 0) != 0:
        return False
    table = node.inputs[0]
    return (
        table is not None and is_weight(table) and table.const_value is not None and len(table.const_value.shape) == 2
    )
