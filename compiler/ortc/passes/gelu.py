"""GELU as ONNX Runtime's fusion knows it: part of making a graph canonical; and what patterns are matched with."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir


def gelu(model: ir.Model) -> int:
    """Turn x * (0.5 * (1 + erf(x / sqrt 2))) into (x * (1 + erf(x / sqrt 2))) * 0.5.

    The first is what the dynamo exporter writes below opset 20; ONNX Runtime's GeluFusion knows the second. Halving a
    floating-point number rounds nothing, so that the answers stay the same to the bit.
    """
    count = 0
    for outer in model.graph:
        for x, inner in operands(outer, "Mul"):
            halved = inner.producer()
            if halved is None or not is_private(inner):
                continue
            for factor, gate in operands(halved, "Mul"):
                if _is_scalar(factor, 0.5) and _is_one_plus_erf(gate, x):
                    halved.replace_input_with(0, x)
                    halved.replace_input_with(1, gate)
                    outer.replace_input_with(0, inner)
                    outer.replace_input_with(1, factor)
                    count += 1
    return count


def is_operator(node: ir.Node | None, operator: str) -> bool:
    return node is not None and node.op_type == operator and node.domain in ("", "ai.onnx")


def operands(node: ir.Node | None, operator: str, first: ir.Value | None = None) -> list[tuple[ir.Value, ir.Value]]:
    """Both orders of the operands of a binary operator; only those that begin with `first`, if given."""
    if node is None or not is_operator(node, operator) or len(node.inputs) != 2:
        return []
    a, b = node.inputs
    if a is None or b is None:
        return []
    return [pair for pair in ((a, b), (b, a)) if first is None or pair[0] is first]


def is_private(value: ir.Value) -> bool:
    """Whether one node alone reads a value."""
    return len(value.uses()) == 1 and not value.is_graph_output()


def _is_scalar(value: ir.Value | None, expected: float) -> bool:
    import onnx_ir as ir

    tensor = None if value is None or value.is_graph_input() else ir.convenience.get_const_tensor(value)
    if tensor is None or tensor.size != 1 or len(tensor.shape) > 1:
        return False
    # In half precision the square root of two has three digits.
    return math.isclose(float(tensor.numpy().reshape(())), expected, rel_tol=1e-3)


def _is_one_plus_erf(gate: ir.Value, x: ir.Value) -> bool:
    """Whether a value is 1 + erf(x / sqrt 2)."""
    for one, erf in operands(gate.producer(), "Add"):
        node = erf.producer()
        if _is_scalar(one, 1.0) and node is not None and is_operator(node, "Erf") and node.inputs[0] is not None:
            scaled = node.inputs[0].producer()
            if scaled is not None and is_operator(scaled, "Div"):
                return scaled.inputs[0] is x and _is_scalar(scaled.inputs[1], math.sqrt(2))
            return any(_is_scalar(factor, math.sqrt(0.5)) for _, factor in operands(scaled, "Mul", x))
    return False
