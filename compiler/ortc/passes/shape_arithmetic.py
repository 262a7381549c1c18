"""Which nodes of a graph compute nothing but shapes: ONNX Runtime leaves them to the CPU whatever provider leads.

The rule for its own kernels is `GetCpuPreferredNodes` in onnxruntime/core/framework/fallback_cpu_capability.cc: where
a kernel answers on the host, as `Shape` does on CUDA, what depends on that alone is computed on the host, too. Not all
of it is for shapes (the length of a sequence may scale the scores, which copies it to the device at every run), so that
a node counts here only when whatever it gives ends as a shape.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx_ir as ir

ONNX = ("", "ai.onnx")
SOURCES = frozenset({"Shape", "Size"})
SMALL = 100
"""Elements of a constant above which ONNX Runtime does not take it for a shape's: `GetCpuPreferredNodes`."""
HOST_INPUTS: dict[tuple[str, str], frozenset[int]] = {
    ("", operator): frozenset(inputs)
    for operator, inputs in {
        "AffineGrid": (1,),
        "CenterCropPad": (1,),
        "Col2Im": (1, 2),
        "ConstantOfShape": (0,),
        "CumSum": (1,),
        "Expand": (1,),
        "If": (0,),
        "Loop": (0, 1),
        "MaxUnpool": (2,),
        "OneHot": (1,),
        "Pad": (1, 3),
        "Range": (0, 1, 2),
        "Reshape": (1,),
        "Resize": (1, 2, 3),
        "Slice": (1, 2, 3, 4),
        "Split": (1,),
        "Squeeze": (1,),
        "Tile": (1,),
        "TopK": (1,),
        "Trilu": (1,),
        "Unsqueeze": (1,),
        "Upsample": (1,),
        **{
            f"Reduce{kind}": (1,)
            for kind in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
        },
    }.items()
} | {("com.microsoft", "GroupQueryAttention"): frozenset({6})}
"""Inputs that say how, and not of what: sizes, axes, counts, and the ends of a range. Kernels read them on the host."""


def shape_nodes(model: ir.Model) -> dict[str, tuple[str, ...]]:
    """Names of the nodes that compute nothing but shapes, by operator (with its domain where that is not ONNX's).

    Every way into such a node begins at `Shape`, `Size`, a small constant or, beside those, an input of the graph that
    is a few integers; every way out of it ends at an input that says how an operator works, and so does every way out
    of a node that computes the same: ONNX Runtime makes one of the two, under either name. A name that another node of
    the same operator has, too, tells neither apart and is left out; so are nodes without names, and those of functions,
    which get other names when they are inlined.
    """
    import onnx_ir as ir

    nodes = list(ir.traversal.RecursiveGraphIterator(model.graph))
    derived = _from_shapes(nodes, set(model.graph.inputs))
    alike = _alike([node for node in nodes if node in derived])
    # Backwards: whoever reads what a node gives comes after it.
    backwards = [node for node in reversed(nodes) if node in derived]
    data: set[ir.Node] = set()
    chosen: set[ir.Node] = set()
    while True:
        chosen.clear()
        for node in backwards:
            if node not in data and _ends_as_shape(node, chosen):
                chosen.add(node)
        found_as_data = {other for node in derived - chosen for other in alike[node]}
        if found_as_data <= data:
            break
        data = found_as_data
    others = {_identity(node) for node in nodes if node not in chosen}
    found: dict[str, set[str]] = {}
    for node in chosen:
        if node.name and _identity(node) not in others:
            found.setdefault(_operator(node), set()).add(node.name)
    return {operator: tuple(sorted(names)) for operator, names in sorted(found.items())}


def _from_shapes(nodes: list[ir.Node], inputs: set[ir.Value]) -> set[ir.Node]:
    """Nodes that depend on sizes, and besides on constants and inputs of the graph alone."""
    derived: set[ir.Node] = set()
    constant: set[ir.Node] = set()
    # Values, and tables of them, are data, whatever becomes of what is computed with them.
    inputs = {value for value in inputs if _is_few_integers(value)}
    for node in nodes:
        if node.domain in ONNX and node.op_type in SOURCES:
            derived.add(node)
            continue
        if _has_bodies(node):
            # What a branch or a body reads is not among the inputs.
            continue
        read = [value for value in node.inputs if value is not None]
        makers = [value.producer() for value in read if value not in inputs and not value.is_initializer()]
        if any(maker not in derived and maker not in constant for maker in makers):
            continue
        if not all(_is_small(value) for value in (*read, *node.outputs) if _is_constant(value)):
            continue
        if any(maker in derived for maker in makers):
            derived.add(node)
        elif not any(value in inputs for value in read):
            constant.add(node)
    return derived


def _is_few_integers(value: ir.Value) -> bool:
    dtype, shape = value.dtype, value.shape
    return dtype is not None and not dtype.is_floating_point() and shape is not None and len(shape) <= 1


def _is_constant(value: ir.Value) -> bool:
    maker = value.producer()
    return value.is_initializer() or (maker is not None and maker.op_type == "Constant")


def _is_small(value: ir.Value) -> bool:
    import onnx_ir as ir

    tensor = ir.convenience.get_const_tensor(value)
    return tensor is not None and tensor.size <= SMALL


def _alike(nodes: list[ir.Node]) -> dict[ir.Node, list[ir.Node]]:
    """Of each node those that compute the same, itself among them."""
    groups: dict[tuple[Any, ...], list[ir.Node]] = {}
    found: dict[ir.Node, list[ir.Node]] = {}
    for node in nodes:
        key = (_key(node), tuple(_source(value, found) for value in node.inputs), _settings(node))
        found[node] = groups.setdefault(key, [])
        found[node].append(node)
    return found


def _source(value: ir.Value | None, groups: dict[ir.Node, list[ir.Node]]) -> object:
    """What tells a value from those that are computed in another way."""
    if value is None:
        return None
    import onnx_ir as ir

    tensor, maker = ir.convenience.get_const_tensor(value), value.producer()
    if tensor is not None and _is_constant(value) and _is_small(value):
        return str(tensor.dtype), tuple(tensor.shape.numpy()), tensor.tobytes()
    return (id(groups[maker]), value.index()) if maker in groups else id(value)


def _settings(node: ir.Node) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, str(attribute.value)) for name, attribute in node.attributes.items()))


def _has_bodies(node: ir.Node) -> bool:
    import onnx_ir as ir

    kinds = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
    return any(attribute.type in kinds for attribute in node.attributes.values())


def _ends_as_shape(node: ir.Node, chosen: set[ir.Node]) -> bool:
    uses = [use for value in node.outputs for use in value.uses()]
    if not uses or any(value.is_graph_output() for value in node.outputs):
        return False
    return all(use.node in chosen or use.idx in HOST_INPUTS.get(_key(use.node), ()) for use in uses)


def _key(node: ir.Node) -> tuple[str, str]:
    return ("" if node.domain in ONNX else node.domain, node.op_type)


def _operator(node: ir.Node) -> str:
    domain, name = _key(node)
    return f"{domain}::{name}" if domain else name


def _identity(node: ir.Node) -> tuple[str, str]:
    return _operator(node), node.name or ""
