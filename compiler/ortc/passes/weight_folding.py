"""Weights that a graph computes from constants: kept as they are used, so that quantization finds them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir


def fold_weights(model: ir.Model) -> int:
    """Replace Identity and Transpose of initializers by initializers, in place.

    A table that others read as it is stays, and so does its Transpose: it would be stored twice.

    Returns:
        How many nodes were removed.
    """
    folded = 0
    for node in list(model.graph):
        source = node.inputs[0] if len(node.inputs) == 1 else None
        if node.domain not in ("", "ai.onnx") or source is None or not _is_constant(source):
            continue
        if node.outputs[0].is_graph_output():
            continue
        if node.op_type == "Identity":
            node.outputs[0].replace_all_uses_with(source)
        elif node.op_type == "Transpose" and len(source.uses()) == 1:
            _transpose(model, node, source)
        else:
            continue
        model.graph.remove(node, safe=True)
        folded += 1
    return folded


def fold_tied_weights(model: ir.Model) -> int:
    """Store the weight of a product as it is used where a graph transposes a table for it, in place.

    For quantization, which stores what a table and a product have in common once: as it is, the table is there twice.

    Returns:
        How many nodes were removed.
    """
    folded = 0
    for node in list(model.graph):
        source, output = (node.inputs or (None,))[0], node.outputs[0]
        if node.op_type != "Transpose" or node.domain not in ("", "ai.onnx") or source is None:
            continue
        if not _is_constant(source) or output.is_graph_output() or len(source.uses()) == 1:
            continue
        if all(user.op_type == "MatMul" and user.graph is model.graph for user in output.consumers()):
            _transpose(model, node, source, keep=True)
            model.graph.remove(node, safe=True)
            folded += 1
    return folded


def _is_constant(value: ir.Value) -> bool:
    return value.is_initializer() and not value.is_graph_input() and value.const_value is not None


def _transpose(model: ir.Model, node: ir.Node, source: ir.Value, *, keep: bool = False) -> None:
    import numpy as np
    import onnx_ir as ir

    assert source.const_value is not None  # noqa: S101  # _is_constant
    array = source.const_value.numpy()
    order = node.attributes.get_ints("perm", None)
    output = node.outputs[0]
    tensor = ir.tensor(np.ascontiguousarray(array.transpose(order)), dtype=source.const_value.dtype, name=output.name)
    value = ir.Value(
        name=output.name, shape=ir.Shape(tensor.shape.numpy()), type=ir.TensorType(tensor.dtype), const_value=tensor
    )
    output.name = f"{output.name}_before"
    output.replace_all_uses_with(value)
    model.graph.register_initializer(value)
    node.replace_input_with(0, None)
    if not keep and source.name is not None and not source.is_graph_output():
        model.graph.initializers.pop(source.name)
