"""Graphs that came quantized, by their operators."""

from __future__ import annotations

from collections.abc import Mapping

QUANTIZED = frozenset(
    {
        *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger"),
        *("QLinearMatMul", "QLinearConv", "QAttention", "DynamicQuantizeMatMul", "MatMulIntegerToFloat"),
        *("DynamicQuantizeLSTM", "QGemm", "QEmbedLayerNormalization", "MatMulNBits"),
    }
)
"""Operators of graphs that are quantized already."""


def quantized_already(operators: Mapping[str, int]) -> str | None:
    """What of a graph is quantized, in words: from how many nodes it has of each operator. None for nothing.

    Args:
        operators: as `canonical.count_operators` gives them, with the domains of those that are not ONNX's.
    """
    done = {name: count for key, count in operators.items() if (name := key.rpartition("::")[2]) in QUANTIZED}
    return f"the graph is quantized already ({listed(done)})" if done else None


def listed(counts: Mapping[str, int]) -> str:
    """Numbers of nodes in words."""
    return ", ".join(f"{count} {name}" for name, count in counts.items())
