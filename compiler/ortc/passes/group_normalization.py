"""GroupNormalization written with operators that every opset has.

Opset 18 defined it with one scale per group and opset 21 with one per channel; ONNX's checker refuses the first, and
its version converter knows no way between the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ortc.common.arrays import Array
from ortc.passes.canonical import nodes

if TYPE_CHECKING:
    import onnx_ir as ir

PER_CHANNEL = 21
"""The opset from which on each channel has a scale of its own."""
_EPSILON = 1e-5


def split_group_normalization(model: ir.Model, opset: int) -> int:
    """Replace each GroupNormalization by an InstanceNormalization over its groups, in place.

    Args:
        model: any graph.
        opset: the lower one of the graph's opset and of the one that it will have; from 21 on, nothing is replaced.

    Returns:
        How many nodes were replaced.
    """
    if opset >= PER_CHANNEL:
        return 0
    found = [node for node in nodes(model) if node.op_type == "GroupNormalization" and node.domain in ("", "ai.onnx")]
    # Before opset 21 a scale is a group's.
    is_per_channel = model.opset_imports.get("", 0) >= PER_CHANNEL
    for node in found:
        _split(node, is_per_channel=is_per_channel)
    return len(found)


def _split(node: ir.Node, *, is_per_channel: bool) -> None:
    import onnx_ir as ir

    graph, groups = node.graph, node.attributes.get_int("num_groups", 1)
    assert graph is not None  # noqa: S101  # it was found in a graph
    value, scale, bias = node.inputs[:3]
    base = f"{node.outputs[0].name}_groups"
    new: list[ir.Node] = []

    def apply(operator: str, inputs: Sequence[ir.Value | None], name: str, **attributes: int | float) -> ir.Value:
        output = ir.Value(name=f"{base}_{name}")
        new.append(ir.node(operator, inputs, attributes, outputs=[output], name=output.name))
        return output

    def constant(array: Array, name: str) -> ir.Value:
        output = ir.Value(name=f"{base}_{name}")
        new.append(ir.node("Constant", [], {"value": ir.tensor(array)}, outputs=[output], name=output.name))
        return output

    sizes = apply("Shape", [value], "sizes")
    flat = apply("Reshape", [value, constant(np.array([0, groups, -1]), "flat")], "flattened")
    factors = (scale, bias)
    if is_per_channel:
        factors = (
            apply("CastLike", [constant(np.ones(groups, np.float32), "ones"), value], "scale"),
            apply("CastLike", [constant(np.zeros(groups, np.float32), "zeros"), value], "bias"),
        )
    epsilon = node.attributes.get_float("epsilon", _EPSILON)
    result = apply("InstanceNormalization", [flat, *factors], "normalized", epsilon=epsilon)
    if is_per_channel:
        # Batch, channels, all the rest.
        channels = apply("Shape", [scale], "channels")
        pattern = apply(
            "Concat",
            [constant(np.array([0]), "batch"), channels, constant(np.array([-1]), "rest")],
            "by_channel",
            axis=0,
        )
        result = apply("Reshape", [result, pattern], "channelwise")
        column = constant(np.array([-1, 1]), "column")
        result = apply("Mul", [result, apply("Reshape", [scale, column], "scales")], "scaled")
        result = apply("Add", [result, apply("Reshape", [bias, column], "biases")], "biased")
    result = apply("Reshape", [result, sizes], "whole")
    output = node.outputs[0]
    result.name, output.name = output.name, f"{base}_before"
    result.shape, result.type = output.shape, output.type
    graph.insert_before(node, new)
    output.replace_all_uses_with(result, replace_graph_outputs=True)
    graph.remove(node, safe=True)
