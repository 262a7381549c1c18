"""Graphs of a variant in which some nodes compute in its precision and the others do not, to find out which cost
accuracy: on integers, or in 16 bits.

What all graphs have in common is written once (base.onnx, its weights in base.data); every graph of a mix refers to
those weights and holds what it rounded itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ortc.common.values import Frozen
from ortc.passes.canonical import MODEL_FILE, write_beside
from ortc.plan.plan import VariantPlan
from ortc.plan.precision_mix import Mix
from ortc.spec.quantization import StaticQuantization

if TYPE_CHECKING:
    import onnx_ir as ir

    from ortc.passes.half_precision import Format
    from ortc.passes.quantization.calibration import Ranges

BASE, WEIGHTS = "base.onnx", "base.data"


class Node(Frozen):
    """A node that a variant runs in less precision: its operator, the shape of its weight (of a scalar, where it has
    none), and whether the weight alone may become integers."""

    name: str
    operator: str
    shape: tuple[int, ...]
    in_blocks: bool

    @property
    def elements(self) -> int:
        """Of the weight: what size and time of a higher precision grow with."""
        product = 1
        for size in self.shape:
            product *= size
        return product


def prepare(source: Path, output: Path, variant: VariantPlan, ranges: Path | None) -> tuple[Node, ...]:
    """Write what the graphs of all mixes have in common, and list the nodes that the variant runs in less precision.

    Args:
        source: directory with the graph that the variant is made from, before any rewrite to half precision.
        output: an existing directory.
        variant: how nodes are quantized, or what they are rounded to.
        ranges: of the activations, for a variant that needs them.

    Raises:
        NotApplicable: the variant has nothing to change in this graph.
    """
    import onnx_ir as ir

    from ortc.passes.half_precision import format_of
    from ortc.passes.quantization.calibration import Ranges
    from ortc.passes.quantization.data_free import prepare as prepare_data_free

    model = ir.load(source / MODEL_FILE)
    known = None if ranges is None else Ranges.load(ranges)
    how = variant.quantization
    if how is not None and not isinstance(how, StaticQuantization) and format_of(variant.rewrites) is None:
        prepare_data_free(model, how, known)
    nodes = _nodes(model, variant, known)
    ir.save(model, output / BASE, external_data=WEIGHTS)
    return tuple(nodes)


def write_mixes(
    output: Path, variant: VariantPlan, ranges: Path | None, mixes: Sequence[Mix], *, on_cpu: bool = False
) -> list[int]:
    """Write the graph of each mix beside what `prepare` wrote, as 0.onnx, 1.onnx, …; the bytes of their weights.

    Args: as those of `prepare`; and `on_cpu`: the float32 form of what computes in 16 bits, for a provider without
        such kernels. The bytes are those of the other form.

    Raises:
        NotApplicable: the opset is too old.
    """
    from ortc.passes.quantization.calibration import Ranges

    known = None if ranges is None else Ranges.load(ranges)
    return [
        _write(output, variant, known, mix, output / f"{index}.onnx", on_cpu=on_cpu) for index, mix in enumerate(mixes)
    ]


def layers(nodes: Sequence[Node]) -> list[tuple[Node, ...]]:
    """Nodes in groups: one for each repetition of the longest run of repeated shapes, and one for each other node.

    A stack of equal layers repeats the shapes of its weights; names say nothing certain about it.
    """
    kinds = [(node.operator, node.shape) for node in nodes]
    best = (0, 0, 1)  # nodes covered, where they begin, nodes of a repetition
    for period in range(1, len(nodes) // 2 + 1):
        start = 0
        for index in range(len(nodes) - period + 1):
            if index == len(nodes) - period or kinds[index] != kinds[index + period]:
                covered = (index + period - start) // period * period
                if covered >= 2 * period and covered > best[0]:
                    best = (covered, start, period)
                start = index + 1
    covered, start, period = best
    inside = [tuple(nodes[at : at + period]) for at in range(start, start + covered, period)]
    before, after = nodes[:start], nodes[start + covered :]
    return [*((node,) for node in before), *inside, *((node,) for node in after)]


def _nodes(model: ir.Model, variant: VariantPlan, ranges: Ranges | None) -> list[Node]:
    from ortc.passes.canonical import node_name
    from ortc.passes.half_precision import format_of
    from ortc.passes.quantization import weight_only
    from ortc.passes.quantization.data_free import bits_of
    from ortc.passes.quantization.editor import find_lookups
    from ortc.passes.quantization.layers import find_layers
    from ortc.passes.quantization.quantizable import find_sites

    if (short := format_of(variant.rewrites)) is not None:
        return _rounded(model, short)
    is_static = isinstance(variant.quantization, StaticQuantization)
    wanted = _operators(variant)
    operators = set(wanted) if is_static else set(wanted) & {"MatMul", "Gemm"}
    known = ranges.tensors if is_static and ranges is not None else None
    found = {}
    for site in find_sites(model, operators):
        fits = weight_only.fits(site)
        if site.name in variant.exclude or (known is not None and site.activation.name not in known):
            continue
        if fits or not bits_of(variant):
            node = Node(name=site.name, operator=site.node.op_type, shape=site.shape, in_blocks=fits)
            found[site.node] = node
    for layer in find_layers(model, wanted):
        if layer.name not in variant.exclude:
            found[layer.node] = Node(name=layer.name, operator=layer.node.op_type, shape=layer.shape, in_blocks=False)
    if "Gather" in wanted:
        for lookup in find_lookups(model):
            table = lookup.inputs[0]
            assert table is not None  # noqa: S101  # find_lookups
            assert table.const_value is not None  # noqa: S101
            shape = tuple(table.const_value.shape.numpy())
            found[lookup] = Node(name=node_name(lookup), operator="Gather", shape=shape, in_blocks=False)
    return [found[node] for node in model.graph if node in found]


def _operators(variant: VariantPlan) -> tuple[str, ...]:
    return () if variant.quantization is None else variant.quantization.operators


def _rounded(model: ir.Model, short: Format) -> list[Node]:
    """The nodes that can stay in float32 where the others compute in 16 bits."""
    from ortc.passes.canonical import node_name
    from ortc.passes.half_precision import rounding

    found = []
    for node in rounding(model, short):
        tensors = [value.const_value for value in node.inputs if value is not None]
        shapes = [tuple(tensor.shape.numpy()) for tensor in tensors if tensor is not None]
        shape = max(shapes, key=lambda shape: (len(shape), shape), default=())
        found.append(Node(name=node_name(node), operator=node.op_type, shape=shape, in_blocks=False))
    return found


def _write(
    output: Path, variant: VariantPlan, ranges: Ranges | None, mix: Mix, path: Path, *, on_cpu: bool = False
) -> int:
    import onnx_ir as ir

    from ortc.passes.half_precision import format_of, shorten
    from ortc.passes.quantization import qdq, weight_only
    from ortc.passes.quantization.data_free import bits_of, emit_integers
    from ortc.passes.upcast import compute_in_float32

    model = ir.load(output / BASE)
    exclude = (*variant.exclude, *mix.exclude)
    if (short := format_of(variant.rewrites)) is not None:
        shorten(model, short, exclude)
    elif isinstance(how := variant.quantization, StaticQuantization):
        assert ranges is not None  # noqa: S101  # the caller calibrates what is static
        weight_only.emit(model, dict.fromkeys(mix.blocks, 8))
        qdq.emit(
            model,
            ranges,
            operators=how.operators,
            smooth=how.smoothing,
            exclude=exclude,
            symmetric=how.symmetric,
        )
    else:
        emit_integers(model, _operators(variant), bits_of(variant), mix.blocks, exclude)
    tensors = (value.const_value for value in model.graph.initializers.values())
    size = sum(tensor.nbytes for tensor in tensors if tensor is not None)
    if on_cpu:
        compute_in_float32(model)
    # Weights that nobody rounded stay where they are.
    write_beside(model, path)
    return size
