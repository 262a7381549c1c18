"""Where static quantization applies: nodes that can run on integers, and tensors whose ranges it needs for that."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

QUANTIZABLE = ("MatMul", "Gemm", "Conv")
"""Operators of an activation and a constant weight. A Gemm becomes a MatMul and an Add on the way."""
_ACTIVATIONS = ("Relu", "Clip")
"""What ONNX Runtime takes into a convolution when the range of the integers behind it does the same."""


@dataclass(frozen=True, eq=False)
class Site:
    """A node that multiplies an activation with a constant weight, in 32-bit floating point."""

    node: ir.Node
    activation: ir.Value
    weight: ir.Value

    @property
    def tensor(self) -> ir.TensorProtocol:
        tensor = self.weight.const_value
        assert tensor is not None  # noqa: S101  # find_sites asked for it
        return tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the weight."""
        return tuple(self.tensor.shape.numpy())

    @property
    def name(self) -> str:
        """The node's name, or that of its output where it has none."""
        return str(self.node.name or self.node.outputs[0].name)

    @property
    def channels(self) -> int:
        """How many channels the activation has."""
        if self.node.op_type == "Conv":
            return self.shape[1] * self.node.attributes.get_int("group", 1)
        return self.shape[1] if self.transposed else self.shape[0]

    @property
    def transposed(self) -> bool:
        """Whether the weight's rows are output channels."""
        return self.node.op_type == "Gemm" and self.node.attributes.get_int("transB", 0) == 1

    @property
    def end(self) -> ir.Value:
        """What a convolution gives, after the activation that is part of it."""
        output = self.node.outputs[0]
        consumers = output.consumers()
        if len(consumers) == 1 and consumers[0].op_type in _ACTIVATIONS and not output.is_graph_output():
            return consumers[0].outputs[0]
        return output


@dataclass(frozen=True)
class Observed:
    """A tensor whose range is needed; `axis` is that of its channels, 1 or -1."""

    name: str
    axis: int
    channels: int


def find_sites(model: ir.Model, operators: Iterable[str]) -> Iterator[Site]:
    """The nodes of the main graph, in its order, that can be quantized.

    Operators that are none of QUANTIZABLE have none.
    """
    wanted = set(operators) & set(QUANTIZABLE)
    for node in model.graph:
        if node.op_type in wanted and node.domain in ("", "ai.onnx") and _fits(node):
            activation, weight = node.inputs[:2]
            if activation is not None and weight is not None and is_weight(weight):
                site = Site(node, activation, weight)
                if len(site.shape) == 2 or (node.op_type == "Conv" and len(site.shape) > 2):
                    yield site


def observed(model: ir.Model, operators: Iterable[str]) -> tuple[Observed, ...]:
    """The tensors whose ranges static quantization needs: what sites read, and what convolutions give."""
    found: dict[str, Observed] = {}
    for site in find_sites(model, operators):
        convolution = site.node.op_type == "Conv"
        name = str(site.activation.name)
        found.setdefault(name, Observed(name, 1 if convolution else -1, site.channels))
        if convolution:
            name = str(site.end.name)
            found.setdefault(name, Observed(name, 1, site.shape[0]))
    return tuple(found.values())


def is_weight(value: ir.Value) -> bool:
    """Whether a value is a constant of 32-bit floating-point numbers that no caller can replace."""
    import onnx_ir as ir

    tensor = value.const_value
    return (
        value.is_initializer()
        and not value.is_graph_input()
        and not value.is_graph_output()
        and tensor is not None
        and tensor.dtype == ir.DataType.FLOAT
    )


def _fits(node: ir.Node) -> bool:
    """Whether a Gemm is a plain product of its inputs and a bias; anything else is."""
    if node.op_type != "Gemm":
        return True
    attributes = node.attributes
    scales = (attributes.get_float("alpha", 1.0), attributes.get_float("beta", 1.0))
    return attributes.get_int("transA", 0) == 0 and scales == (1.0, 1.0)
