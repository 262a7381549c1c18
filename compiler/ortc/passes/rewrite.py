"""Rewrites: other forms of a graph that compute the same and that ONNX Runtime runs faster.

Each is a function over a model that changes it in place and returns how many places it changed. `gelu` is part of
making a graph canonical, the others make variants. All look at the main graph alone: branches and bodies stay as they
are.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ortc.common.disk import room, temporary
from ortc.common.errors import NotApplicable
from ortc.passes.canonical import MODEL_FILE, values, write
from ortc.passes.embedding_fusion import embeddings
from ortc.passes.fusion import fuse
from ortc.passes.gelu import gelu, is_operator, is_private, operands
from ortc.passes.half_precision import bfloat16, format_of, half, shorten
from ortc.spec.profile import Rewrite

if TYPE_CHECKING:
    import onnx_ir as ir

MOST_MERGED = 4
"""MatMuls of one input above which they are no layer's projections but those of many layers (a decoder's
cross-attention): computed at once, all of their outputs would be kept until the last layer."""


def rewrite(model: ir.Model, names: tuple[Rewrite, ...], keep: tuple[str, ...] = ()) -> dict[str, int]:
    """Apply a variant's rewrites to a model, in place and in the order given.

    Args:
        model: a canonical graph.
        names: keys of REWRITES.
        keep: names of nodes that rewrites to half precision leave in float32.

    Returns:
        How many places each rewrite changed, by its name.

    Raises:
        NotApplicable: a rewrite finds nothing to change.
    """
    counts: dict[str, int] = {}
    for name in names:
        short = format_of((name,))
        counts[name] = REWRITES[name](model) if short is None else shorten(model, short, keep)
        if counts[name] == 0 and name not in OPTIONAL:
            raise NotApplicable(f"nothing to rewrite: `{name}` finds no place in this graph")
    return counts


@contextmanager
def rewritten(canonical: Path, names: tuple[Rewrite, ...]) -> Iterator[Path]:
    """Directory of the canonical graph after rewrites; the canonical one itself when there are none.

    Args:
        canonical: directory with the canonical graph.
        names: keys of REWRITES, in the order in which they are applied.

    Raises:
        NotApplicable: a rewrite finds nothing to change.
    """
    import onnx_ir as ir

    if not names:
        yield canonical
        return
    with tempfile.TemporaryDirectory(prefix="ortc-rewrite-") as scratch:
        model = ir.load(canonical / MODEL_FILE)
        rewrite(model, names)
        with room(temporary()):
            write(model, Path(scratch))
        yield Path(scratch)


def merge_projections(model: ir.Model) -> int:
    """Turn MatMuls with constant weights that read the same tensor, and their biases, into one MatMul, Add and Split.

    An attention's query, key and value: one wide multiplication instead of three, and one quantization of its input.
    Every element is the same sum of the same products. A weight that others read too is left where it is, and so is
    what is an output of the graph.

    Returns the number of groups that were merged.
    """
    groups: dict[ir.Value, list[_Projection]] = {}
    for node in model.graph:
        projection = _projection(node)
        if projection is not None:
            groups.setdefault(projection.x, []).append(projection)
    names = {value.name for value in values(model)}
    merged = 0
    for members in groups.values():
        if 1 < len(members) <= MOST_MERGED and len({member.dtype for member in members}) == 1:
            _merge(model, members, names)
            merged += 1
    return merged


class _Projection:
    """A MatMul with a constant weight, and the Add of its bias where it has one."""

    def __init__(self, matmul: ir.Node, x: ir.Value, weight: ir.Value, add: ir.Node | None, bias: ir.Value | None):
        self.matmul = matmul
        self.x = x
        self.weight = weight
        self.add = add
        self.bias = bias

    @property
    def tensor(self) -> ir.TensorProtocol:
        tensor = self.weight.const_value
        assert tensor is not None  # noqa: S101  # _projection asked for it
        return tensor

    @property
    def dtype(self) -> ir.DataType:
        return self.tensor.dtype

    @property
    def width(self) -> int:
        return self.tensor.shape.numpy()[1]

    @property
    def end(self) -> ir.Value:
        return (self.add or self.matmul).outputs[0]


def _projection(node: ir.Node) -> _Projection | None:
    if not is_operator(node, "MatMul") or node.inputs[0] is None:
        return None
    weight, product = node.inputs[1], node.outputs[0]
    if weight is None or not _is_weight(weight, rank=2) or len(weight.uses()) != 1 or product.is_graph_output():
        return None
    x, tensor = node.inputs[0], weight.const_value
    assert tensor is not None  # noqa: S101
    width = tensor.shape[1]
    for consumer in product.consumers():
        for _, bias in operands(consumer, "Add", product):
            if _is_weight(bias, rank=1) and bias.const_value is not None and bias.const_value.shape[0] == width:
                alone = is_private(product) and not consumer.outputs[0].is_graph_output()
                return _Projection(node, x, weight, consumer, bias) if alone else None
    return _Projection(node, x, weight, None, None)


def _merge(model: ir.Model, members: list[_Projection], names: set[str | None]) -> None:
    import numpy as np
    import onnx_ir as ir

    first = members[0]
    stem = f"{first.matmul.outputs[0].name}_merged"
    while any(f"{stem}{suffix}" in names for suffix in ("", "_weight", "_bias", "_sizes", "_sum")):
        stem += "_"
    widths = [member.width for member in members]

    def initializer(suffix: str, tensor: ir.TensorProtocol) -> ir.Value:
        value = ir.Value(name=f"{stem}{suffix}", shape=ir.Shape(tensor.shape.numpy()), type=ir.TensorType(tensor.dtype))
        value.const_value = tensor
        model.graph.register_initializer(value)
        names.add(value.name)
        return value

    def joined() -> ir.TensorProtocol:
        return ir.tensor(np.concatenate([member.tensor.numpy() for member in members], axis=1), dtype=first.dtype)

    def bias(member: _Projection) -> np.ndarray:
        if member.bias is None or member.bias.const_value is None:
            return np.zeros(member.width, first.dtype.numpy())
        return member.bias.const_value.numpy()

    # Joined when it is written, so that no more than one of them is in memory.
    shape = ir.Shape([first.tensor.shape.numpy()[0], sum(widths)])
    weight = initializer("_weight", ir.LazyTensor(joined, first.dtype, shape, name=f"{stem}_weight"))
    nodes = [ir.node("MatMul", [first.x, weight], outputs=[ir.Value(name=stem)], name=stem)]
    if any(member.bias is not None for member in members):
        summed = np.concatenate([bias(member) for member in members])
        offset = initializer("_bias", ir.tensor(summed, dtype=first.dtype, name=f"{stem}_bias"))
        sum_ = ir.Value(name=f"{stem}_sum")
        nodes.append(ir.node("Add", [nodes[-1].outputs[0], offset], outputs=[sum_], name=f"{stem}_add"))
    sizes = initializer("_sizes", ir.tensor(np.array(widths, np.int64), name=f"{stem}_sizes"))
    parts = [ir.Value(name=None, shape=member.end.shape, type=member.end.type) for member in members]
    nodes.append(ir.node("Split", [nodes[-1].outputs[0], sizes], {"axis": -1}, outputs=parts, name=f"{stem}_split"))
    model.graph.insert_before(first.matmul, nodes)
    for member, part in zip(members, parts, strict=True):
        name, old = member.end.name, member.end
        old.name = f"{stem}_old"
        part.name = name
        ir.convenience.replace_all_uses_with(old, part)
    for member in members:
        if member.add is not None:
            model.graph.remove(member.add, safe=True)
        model.graph.remove(member.matmul, safe=True)
    # A bias may be shared: equal ones are one initializer in an exported graph.
    for name in {value.name for member in members for value in (member.weight, member.bias) if value is not None}:
        if not model.graph.initializers[str(name)].uses():
            del model.graph.initializers[str(name)]


def _is_weight(value: ir.Value, rank: int) -> bool:
    """Whether a value is a constant of floating-point numbers that no caller can replace."""
    tensor = value.const_value
    return (
        value.is_initializer()
        and not value.is_graph_input()
        and not value.is_graph_output()
        and tensor is not None
        and tensor.dtype.is_floating_point()
        and len(tensor.shape) == rank
    )


OPTIONAL = frozenset({"embeddings"})
"""Rewrites that a graph may have no place for without its variant being pointless."""

REWRITES: dict[str, Callable[[ir.Model], int]] = {
    "gelu": gelu,
    "merge-projections": merge_projections,
    "fuse": fuse,
    "embeddings": embeddings,
    "half": half,
    "bfloat16": bfloat16,
}
