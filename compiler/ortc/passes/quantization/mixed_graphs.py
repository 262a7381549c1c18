"""Graphs of a variant in which some nodes compute in its precision and the others do not, to find out which cost
accuracy: on integers, or in 16 bits.

Run as `python -m ortc.passes.quantization.mixed_graphs REQUEST`. REQUEST is JSON: source, output, variant, ranges,
`on_cpu`, and
`mixes`: None to prepare, else the list of what to write. Preparing writes what all graphs have in common once
(OUTPUT/base.onnx, its weights in OUTPUT/base.data) and prints the nodes; every graph of a mix refers to those weights
and holds what it rounded itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ortc.common.errors import StageError
from ortc.common.values import Frozen
from ortc.execution.processes import own_environment, own_module
from ortc.passes.canonical import MODEL_FILE
from ortc.plan.plan import VariantPlan
from ortc.plan.precision_mix import Mix
from ortc.spec.quantization import StaticQuantization

if TYPE_CHECKING:
    import onnx_ir as ir

    from ortc.passes.half_precision import Format

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
        StageError: the graph cannot be read.
    """
    listed = json.loads(_run(source, output, variant, ranges, None))
    return tuple(Node.model_validate(entry) for entry in listed)


def write_mixes(
    source: Path,
    output: Path,
    variant: VariantPlan,
    ranges: Path | None,
    mixes: Sequence[Mix],
    *,
    on_cpu: bool = False,
) -> list[tuple[Path, int]]:
    """Write the graph of each mix beside what `prepare` wrote; returns its file and the bytes of its weights.

    Args: as those of `prepare`; and `on_cpu`: the float32 form of what computes in 16 bits, for a provider without
        such kernels. The bytes are those of the other form.

    Raises:
        StageError: a graph cannot be made.
    """
    sizes = json.loads(_run(source, output, variant, ranges, mixes, on_cpu=on_cpu))
    return [(output / f"{index}.onnx", size) for index, size in enumerate(sizes)]


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


def _run(
    source: Path,
    output: Path,
    variant: VariantPlan,
    ranges: Path | None,
    mixes: Sequence[Mix] | None,
    *,
    on_cpu: bool = False,
) -> str:
    request = {
        "source": str(source),
        "output": str(output),
        "variant": variant.model_dump(mode="json"),
        "ranges": None if ranges is None else str(ranges),
        "on_cpu": on_cpu,
        "mixes": None if mixes is None else [mix.model_dump(mode="json") for mix in mixes],
    }
    listing = output / "request.json"
    listing.write_text(json.dumps(request), "utf-8")
    result = subprocess.run(
        own_module("ortc.passes.quantization.mixed_graphs", str(listing)),
        capture_output=True,
        text=True,
        env={**os.environ, **own_environment({"ORT_DISABLE_TELEMETRY": "1"})},
        check=False,
    )
    if result.returncode != 0:
        lines = result.stderr.strip().splitlines()
        reason = lines[-1] if lines else f"exit code {result.returncode}"
        raise StageError(f"the sensitivity of nodes cannot be found: {reason}", details=tuple(lines[-8:]))
    return result.stdout


def _main(request: dict[str, Any]) -> object:
    variant, output = VariantPlan.model_validate_json(json.dumps(request["variant"])), Path(request["output"])
    ranges = None if request["ranges"] is None else Path(request["ranges"])
    if request["mixes"] is None:
        return _prepare(Path(request["source"]), output, variant, ranges)
    return [
        _write(output, variant, ranges, Mix.model_validate(mix), output / f"{index}.onnx", on_cpu=request["on_cpu"])
        for index, mix in enumerate(request["mixes"])
    ]


def _prepare(source: Path, output: Path, variant: VariantPlan, ranges: Path | None) -> list[dict[str, Any]]:
    import onnx_ir as ir

    from ortc.passes.half_precision import format_of
    from ortc.passes.quantization import data_free

    how = variant.quantization
    if how is None or isinstance(how, StaticQuantization) or format_of(variant.rewrites) is not None:
        model = ir.load(source / MODEL_FILE)
    else:
        _, model = data_free.prepare(
            str(source / MODEL_FILE),
            smooth_first=how.smoothing == "layer-norm",
            ranges=None if ranges is None else str(ranges),
            smoothing=how.alpha,
        )
    nodes = _nodes(model, variant, ranges)
    ir.save(model, output / BASE, external_data=WEIGHTS)
    return [node.model_dump(mode="json") for node in nodes]


def _nodes(model: ir.Model, variant: VariantPlan, ranges: Path | None) -> list[Node]:
    from ortc.passes.canonical import node_name
    from ortc.passes.half_precision import format_of
    from ortc.passes.quantization import weight_only
    from ortc.passes.quantization.calibration import Ranges
    from ortc.passes.quantization.data_free import bits_of
    from ortc.passes.quantization.editor import find_lookups
    from ortc.passes.quantization.quantizable import find_sites

    if (short := format_of(variant.rewrites)) is not None:
        return _rounded(model, short)
    is_static = isinstance(variant.quantization, StaticQuantization)
    wanted = _operators(variant)
    operators = set(wanted) if is_static else set(wanted) & {"MatMul", "Gemm"}
    known = Ranges.load(ranges).tensors if is_static and ranges is not None else None
    found = {}
    for site in find_sites(model, operators):
        fits = weight_only.fits(site)
        if site.name in variant.exclude or (known is not None and site.activation.name not in known):
            continue
        if fits or not bits_of(variant):
            node = Node(name=site.name, operator=site.node.op_type, shape=site.shape, in_blocks=fits)
            found[site.node] = node
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
    output: Path, variant: VariantPlan, ranges: Path | None, mix: Mix, path: Path, *, on_cpu: bool = False
) -> int:
    import onnx_ir as ir

    from ortc.passes.half_precision import format_of, shorten
    from ortc.passes.quantization import qdq, weight_only
    from ortc.passes.quantization.calibration import Ranges
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
            Ranges.load(ranges),
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
    ir.save(model, path)
    return size


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_main(json.loads(Path(sys.argv[1]).read_bytes()))))
