"""Embed: the tables of a text encoder, added and normalized, as one operator of ONNX Runtime.

For CUDA in fp32. The kernel for float16 adds up in float16, and there is none for bfloat16, so that variants in those
keep the plain operators, whose normalization adds up in float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ortc.passes.canonical import values

if TYPE_CHECKING:
    import onnx_ir as ir

DOMAIN = "com.microsoft"
MOST_TABLES = 3


@dataclass(frozen=True)
class _Lookup:
    """A Gather of rows of a constant table."""

    table: ir.Value
    indices: ir.Value


def embeddings(model: ir.Model) -> int:
    """Replace sums of two or three looked-up tables and their LayerNormalization by EmbedLayerNormalization.

    One of the tables is that of the positions: what is looked up by the first rows of a constant 0, 1, 2, ..., or else
    by what the graph computes. It may find nothing: not every transformer has such embeddings.

    Returns the number of operators that were made.
    """
    names = {value.name for value in values(model)}
    return sum(_replace(model, node, names) for node in list(model.graph))


def _replace(model: ir.Model, node: ir.Node, names: set[str | None]) -> bool:
    import onnx_ir as ir

    found = _normalized(node)
    if found is None:
        return False
    addends, scale, bias = found
    lookups = _lookups(addends)
    if lookups is None or not 2 <= len(lookups) <= MOST_TABLES:
        return False
    ordered = _ordered(model, lookups)
    if ordered is None:
        return False
    words, positions, segments = ordered
    size = words.table.shape
    if size is None or any(entry.table.shape is None or entry.table.shape[1] != size[1] for entry in lookups):
        return False

    def integers(value: ir.Value) -> ir.Value:
        """The indices as int32, which the operator takes."""
        if value.dtype == ir.DataType.INT32:
            return value
        name = _unused(f"{value.name}_int32", names)
        result = ir.Value(name=name, shape=value.shape, type=ir.TensorType(ir.DataType.INT32))
        cast = ir.node("Cast", [value], {"to": int(ir.DataType.INT32)}, outputs=[result], name=name)
        model.graph.insert_before(node, cast)
        return result

    inputs: list[ir.Value | None] = [
        integers(words.indices),
        None if segments is None else integers(segments.indices),
        words.table,
        positions.table,
        None if segments is None else segments.table,
        scale,
        bias,
        None,
        None if _counts(positions.indices) else integers(positions.indices),
    ]
    while inputs[-1] is None:
        inputs.pop()
    old = node.outputs[0]
    new = ir.Value(name=_unused(f"{old.name}_embedded", names), shape=old.shape, type=old.type)
    epsilon = node.attributes["epsilon"].as_float() if "epsilon" in node.attributes else 1e-5
    # The second output, an index of the mask, is there whether or not there is a mask.
    index = ir.Value(name=_unused(f"{old.name}_mask_index", names))
    made = ir.node(
        "EmbedLayerNormalization",
        inputs,
        {"epsilon": epsilon},
        domain=DOMAIN,
        outputs=[new, index],
        name=_unused(f"{node.name or old.name}_embedded", names),
    )
    model.graph.insert_before(node, made)
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    model.opset_imports.setdefault(DOMAIN, 1)
    _remove(model, node)
    return True


def _normalized(node: ir.Node) -> tuple[list[ir.Value], ir.Value, ir.Value] | None:
    """What a normalization adds up, its scale and bias; None for any other node."""
    extra = any(value.uses() or value.is_graph_output() for value in node.outputs[1:])
    if extra or node.outputs[0].is_graph_output():
        return None
    if node.op_type == "SkipLayerNormalization" and node.domain == DOMAIN and len(node.inputs) == 4:
        first, second, scale, bias = node.inputs
        if first is not None and second is not None and scale is not None and bias is not None:
            return [first, second], scale, bias
    if node.op_type == "LayerNormalization" and node.domain == "" and len(node.inputs) == 3:
        if "axis" in node.attributes and node.attributes["axis"].as_int() != -1:
            return None
        total, scale, bias = node.inputs
        adding = None if total is None else total.producer()
        if total is None or scale is None or bias is None or adding is None:
            return None
        if _is(adding, "Add") and len(total.uses()) == 1 and not total.is_graph_output():
            first, second = adding.inputs
            if first is not None and second is not None:
                return [first, second], scale, bias
    return None


def _lookups(addends: list[ir.Value]) -> list[_Lookup] | None:
    """The lookups that a sum consists of; None where there is anything else in it."""
    found: list[_Lookup] = []
    left = list(addends)
    while left:
        value = left.pop(0)
        node = value.producer()
        if node is None or len(value.uses()) != 1 or value.is_graph_output():
            return None
        first, second = node.inputs[:2] if len(node.inputs) >= 2 else (None, None)
        if first is None or second is None:
            return None
        if _is(node, "Add"):
            left += [first, second]
        elif (
            _is(node, "Gather")
            and _is_table(first)
            and ("axis" not in node.attributes or node.attributes["axis"].as_int() == 0)
        ):
            found.append(_Lookup(first, second))
        else:
            return None
        if len(found) + len(left) > MOST_TABLES:
            return None
    return found


def _ordered(model: ir.Model, lookups: list[_Lookup]) -> tuple[_Lookup, _Lookup, _Lookup | None] | None:
    """Words, positions and segments, as far as it matters: the indices of words and segments are the graph's inputs."""
    given = [entry for entry in lookups if entry.indices in model.graph.inputs]
    others = [entry for entry in lookups if entry not in given]
    if len(others) != 1 or not given or any(_rank(entry.indices) != 2 for entry in lookups):
        return None
    return given[0], others[0], given[1] if len(given) == 2 else None


def _counts(indices: ir.Value) -> bool:
    """Whether indices are the first of 0, 1, 2, ... for every row: what the operator takes where it is given none."""
    import numpy as np
    import onnx_ir as ir

    node = indices.producer()
    if node is None or not _is(node, "Slice") or len(node.inputs) not in (4, 5):
        return False
    constant, start, _, axes, *step = node.inputs
    numbers = None if constant is None or not constant.is_initializer() else constant.const_value
    fixed = [None if value is None else ir.convenience.get_const_tensor(value) for value in (start, axes, *step)]
    if numbers is None or len(numbers.shape) != 2 or numbers.shape[0] != 1 or any(entry is None for entry in fixed):
        return False
    said = [entry.numpy().tolist() for entry in fixed if entry is not None]
    row = numbers.numpy()[0]
    counted = np.array_equal(row, np.arange(len(row)))
    return counted and said in ([[0], [1]], [[0], [1], [1]])


def _is(node: ir.Node, operator: str) -> bool:
    return node.op_type == operator and node.domain == ""


def _is_table(value: ir.Value) -> bool:
    return value.is_initializer() and not value.is_graph_input() and _rank(value) == 2


def _rank(value: ir.Value) -> int | None:
    return None if value.shape is None else len(value.shape)


def _remove(model: ir.Model, node: ir.Node) -> None:
    """Remove a node, and what it alone has read."""
    import onnx_ir as ir

    inputs = {value for value in node.inputs if value is not None}
    model.graph.remove(node, safe=True)
    for value in inputs:
        producer = value.producer()
        if value.uses() or value.is_graph_output():
            continue
        if isinstance(producer, ir.Node) and not any(v.uses() or v.is_graph_output() for v in producer.outputs):
            _remove(model, producer)
        elif value.is_initializer() and not value.is_graph_input() and value.name is not None:
            del model.graph.initializers[value.name]


def _unused(stem: str, names: set[str | None]) -> str:
    while stem in names:
        stem += "_"
    names.add(stem)
    return stem
