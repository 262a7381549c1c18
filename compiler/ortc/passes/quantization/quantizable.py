"""Where static quantization applies: nodes that can run on integers, and tensors whose ranges it needs for that."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ortc.passes.canonical import node_name
from ortc.spec.quantization import QUANTIZABLE

if TYPE_CHECKING:
    import onnx_ir as ir

MOVES = ("MaxPool", "Flatten", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
"""What gives some of the values that it reads: it works on integers of any scale."""
KERNELS = ("Add", "AveragePool", "Concat", "GlobalAveragePool")
"""What ONNX Runtime has integer kernels for that take and give integers of different scales."""
_ACTIVATIONS = ("Clip", "Relu")
"""What becomes part of the node before it, where the range of the integers behind it does the same."""


@dataclass(frozen=True, eq=False)
class Site:
    """A node that multiplies an activation with a constant weight, in 32-bit floating point."""

    node: ir.Node
    weight: ir.Value

    @property
    def activation(self) -> ir.Value:
        """What the node reads now: what gave it may have been replaced since the node was found."""
        value = self.node.inputs[0]
        assert value is not None  # noqa: S101  # find_sites asked for it
        return value

    @property
    def array(self) -> ir.TensorProtocol:
        """The weight."""
        tensor = self.weight.const_value
        assert tensor is not None  # noqa: S101  # find_sites asked for it
        return tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """The weight's shape."""
        return tuple(self.array.shape.numpy())

    @property
    def name(self) -> str:
        """The node's name, or that of its output where it has none."""
        return node_name(self.node)

    @property
    def axis(self) -> int:
        """The weight's axis of output channels."""
        if self.node.op_type == "Conv":
            return 0
        return 0 if self.node.op_type == "Gemm" and self.node.attributes.get_int("transB", 0) == 1 else 1

    @property
    def channels(self) -> int:
        """How many channels the activation has."""
        if self.node.op_type == "Conv":
            return self.shape[1] * self.node.attributes.get_int("group", 1)
        return self.shape[1 - self.axis]

    @property
    def bias(self) -> ir.Value | None:
        """What the node itself adds."""
        return self.node.inputs[2] if len(self.node.inputs) > 2 else None


@dataclass(frozen=True)
class Observed:
    """A tensor whose range is needed; `axis` is that of its channels, 1 or -1, and 0 where they are not told apart."""

    name: str
    axis: int
    channels: int


def find_sites(model: ir.Model, operators: Iterable[str]) -> Iterator[Site]:
    """The nodes of the main graph, in its order, that can be quantized.

    Operators that are none of QUANTIZABLE have none.
    """
    wanted = set(operators) & set(QUANTIZABLE)
    for node in model.graph:
        if node.op_type in wanted and is_standard(node):
            activation, weight = node.inputs[:2]
            if activation is None or activation.is_initializer() or weight is None or not is_weight(weight):
                continue
            site = Site(node, weight)
            if _fits(site):
                yield site


def find_stream(
    model: ir.Model, convolutions: Collection[ir.Node], known: Container[str] | None = None
) -> dict[ir.Node, ir.Value]:
    """The nodes that give integers once these convolutions do, in the graph's order, each with what is rounded.

    A convolution's integers go on through what can take them: pooling, the addition of a residual connection. What is
    rounded is the value after an activation that is part of the node.

    Args:
        model: a graph.
        convolutions: nodes to start from.
        known: names of the tensors whose ranges are known; None means all.
    """
    ends: dict[ir.Node, ir.Value] = {}
    integers: set[ir.Value | None] = set()
    for node in model.graph:
        if node not in convolutions and not (is_standard(node) and _is_streaming(node, integers)):
            continue
        end = node.outputs[0] if node.op_type in MOVES else end_of(node)
        if node.op_type in MOVES or known is None or end.name in known:
            ends[node] = end
            integers.add(end)
    return ends


def observed(model: ir.Model, operators: Iterable[str]) -> tuple[Observed, ...]:
    """The tensors whose ranges static quantization needs: what sites read, and what gives integers."""
    found: dict[str, Observed] = {}
    sites = list(find_sites(model, operators))
    for site in sites:
        axis = 1 if site.node.op_type == "Conv" else -1
        found.setdefault(str(site.activation.name), Observed(str(site.activation.name), axis, site.channels))
    for node, end in find_stream(model, {site.node for site in sites if site.node.op_type == "Conv"}).items():
        if node.op_type not in MOVES:
            found.setdefault(str(end.name), Observed(str(end.name), 0, 1))
    return tuple(found.values())


def end_of(node: ir.Node) -> ir.Value:
    """What a node gives, after an activation that alone reads it."""
    output = node.outputs[0]
    consumers = output.consumers()
    if len(consumers) == 1 and consumers[0].op_type in _ACTIVATIONS and not output.is_graph_output():
        return consumers[0].outputs[0]
    return output


def is_standard(node: ir.Node) -> bool:
    """Whether a node's operator is one of ONNX's own."""
    return node.domain in ("", "ai.onnx")


def is_weight(value: ir.Value | None) -> bool:
    """Whether a value is a constant of 32-bit floating-point numbers, at least one, that no caller can replace."""
    import onnx_ir as ir

    return (
        value is not None
        and value.is_initializer()
        and not value.is_graph_input()
        and not value.is_graph_output()
        and value.const_value is not None
        and value.const_value.dtype == ir.DataType.FLOAT
        and value.const_value.size > 0
    )


def is_bias(value: ir.Value | None, width: int) -> bool:
    """Whether a value is a constant vector of that many numbers."""
    if value is None or not is_weight(value) or value.const_value is None:
        return False
    return tuple(value.const_value.shape.numpy()) == (width,)


def _is_streaming(node: ir.Node, integers: set[ir.Value | None]) -> bool:
    if len(node.outputs) != 1:
        return False
    if node.op_type in MOVES:
        return node.inputs[0] in integers
    return node.op_type in KERNELS and all(value in integers for value in node.inputs)


def _fits(site: Site) -> bool:
    attributes, rank = site.node.attributes, len(site.shape)
    if site.bias is not None and not is_bias(site.bias, site.shape[site.axis]):
        return False
    if site.node.op_type == "Conv":
        return rank > 2
    # A Gemm that is more than a product and a bias has no integer kernel.
    scales = (attributes.get_float("alpha", 1.0), attributes.get_float("beta", 1.0))
    return rank == 2 and attributes.get_int("transA", 0) == 0 and scales == (1.0, 1.0)
