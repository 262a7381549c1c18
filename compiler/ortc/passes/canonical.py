"""Graphs: what an export or an import wrote, and what is done to it before it is canonical.

The canonical graph has the opset and IR version of the plan, the axes' names as dimension names, no fused operators and
no traces of the machine that made it; every variant derives from it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ortc.common.arrays import numpy_dtype
from ortc.common.errors import StageError
from ortc.common.values import Frozen
from ortc.plan.plan import AxisPlan, InputPlan

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

EXTERNAL_DATA_THRESHOLD = 64 * 2**20
"""Bytes of weights above which they are kept beside the graph, where they can be memory-mapped."""

SEQUENCES = frozenset(
    (
        *("SequenceConstruct", "SequenceEmpty", "SequenceInsert", "SequenceErase", "SequenceMap", "SplitToSequence"),
        *("Optional", "OptionalGetElement", "Identity", "If", "Loop", "Scan"),
    )
)
"""Operators whose outputs may be sequences of tensors, or optional ones."""
ONNX_SOURCE = "ONNX source"
"""Stands for an exporter where a graph came as an ONNX file."""
MODEL_FILE = "model.onnx"
DATA_FILE = "model.onnx.data"
PREPACKED_FILE = "prepacked.onnx"
"""The same model over the same file of weights, for one kind of processor: see `ortc.passes.prepack`."""


class OutputInfo(Frozen):
    """One output tensor; a shape entry is an axis name, a size, or None where only a run tells."""

    name: str
    dtype: str
    shape: tuple[str | int | None, ...]
    labels: tuple[str, ...] | None = None
    """Names of classes: of the last dimension of scores, or of the numbers in a tensor of whole numbers."""


class Conversion(Frozen):
    """What became of an ONNX file that did not have the opset that ships.

    `operators` are those that the two opsets define differently; `keeps` says whether the file's own could ship.
    """

    source: int
    target: int
    operators: tuple[str, ...]
    keeps: bool


class Exported(Frozen):
    """What an export wrote."""

    exporter: str
    opset: int
    ir_version: int
    domains: dict[str, int]
    inputs: tuple[InputPlan, ...]
    outputs: tuple[OutputInfo, ...]
    operators: dict[str, int]
    warnings: tuple[str, ...]
    conversion: Conversion | None = None
    parts_left_out: tuple[str, ...] = ()
    """Trained heads of the checkpoint, and the like, that the loaded model is without."""
    inputs_left_out: tuple[str, ...] = ()
    """Optional tensors of forward() that are no inputs."""


def restore_inputs(model: ir.Model, inputs: tuple[InputPlan, ...]) -> tuple[str, ...]:
    """Give the graph all the inputs that were asked for, in their order; the names of those that it makes no use of.

    Exporters leave out inputs that no output depends on. What is sent to a bundle is what the spec says, whatever
    becomes of it inside.

    Raises:
        StageError: the graph has an input that nobody asked for.
    """
    import onnx_ir as ir

    found = {str(value.name): value for value in model.graph.inputs}
    if unknown := found.keys() - {tensor.name for tensor in inputs}:
        raise StageError(
            f"the exported graph has an input `{min(unknown)}` that the model does not declare",
            help="the exporter took a tensor that the model makes itself for an input; register it as a buffer",
        )
    missing = tuple(tensor.name for tensor in inputs if tensor.name not in found)
    for tensor in inputs:
        if tensor.name in missing:
            dtype = ir.TensorType(ir.DataType.from_numpy(numpy_dtype(tensor.dtype)))
            found[tensor.name] = ir.Value(name=tensor.name, shape=ir.Shape(list(tensor.shape)), type=dtype)
    model.graph.inputs.clear()
    model.graph.inputs.extend(found[tensor.name] for tensor in inputs)
    unused = (tensor.name for tensor in inputs if not found[tensor.name].uses())
    outputs = {str(value.name) for value in model.graph.outputs}
    return tuple(name for name in unused if name not in outputs)


def name_dimensions(
    model: ir.Model, inputs: tuple[InputPlan, ...], axes: tuple[AxisPlan, ...], *, keep_open: bool = False
) -> None:
    """Call the dimensions by the axes' names, in inputs, outputs and everything between.

    Args:
        model: changed in place.
        inputs: as the plan has them.
        axes: of the plan.
        keep_open: leave dimensions of a graph with branches open whose sizes the plan fixes. ONNX Runtime infers the
            shapes of branches that are never taken at a size, and refuses the graph where they do not fit.
    """
    import onnx_ir as ir

    renamed: dict[str, str] = {}
    fixed = {axis.name: axis.max for axis in axes if axis.min == axis.max}
    keep_open &= any(node.op_type == "If" for node in nodes(model))
    for value, tensor in zip(model.graph.inputs, inputs, strict=True):
        if value.name != tensor.name:
            raise StageError(f"the exported graph's input is called `{value.name}` instead of `{tensor.name}`")
        if value.shape is None or len(value.shape) != len(tensor.shape):
            raise StageError(f"the exported graph's input `{tensor.name}` has shape {value.shape}, not {tensor.shape}")
        dims: list[int | str | None] = []
        for found, entry in zip(value.shape, tensor.shape, strict=True):
            wanted = fixed.get(entry, entry) if isinstance(entry, str) else entry
            if isinstance(found, int) and isinstance(wanted, str):
                raise StageError(
                    f"the export fixed the axis `{entry}` of `{tensor.name}` to {found}",
                    help="something in the model's code depends on that size (a loop over it, a split into parts); "
                    "with `--debug` the exporter's log says where. Where that cannot change, fix the axis: equal `min` "
                    "and `max`",
                )
            if not isinstance(found, int) and isinstance(wanted, str) and found.value is not None:
                renamed[str(found.value)] = wanted
            stays_open = keep_open and isinstance(wanted, int) and not isinstance(found, int)
            dims.append(None if stays_open else wanted)
        value.shape = ir.Shape(dims)
    for value in values(model):
        if value.shape is not None:
            value.shape = ir.Shape(
                [
                    dim
                    if isinstance(dim, int)
                    else renamed.get(str(dim.value), dim.value if dim.value is None else str(dim.value))
                    for dim in value.shape
                ]
            )


def infer_shapes(model: ir.Model) -> None:
    """Replace declared shapes by those that follow from the inputs: what writers of files declare need not be so.

    An output, or an input of a body, whose rank does not follow keeps its declared rank, with unknown dimensions.
    """
    import onnx_ir as ir
    from onnx_ir.passes.common import ShapeInferencePass

    untyped = [value for node in nodes(model) for value in node.outputs if value.type is None]
    ranks = {value: None if value.shape is None else len(value.shape) for value in model.graph.outputs}
    # ONNX Runtime refuses the body of a Loop whose counter and condition have no shape.
    ranks |= {value: len(value.shape) for value in _inner_inputs(model) if value.shape is not None}
    given = set(model.graph.inputs)
    for value in (*(output for node in nodes(model) for output in node.outputs), *_inner_inputs(model)):
        if value not in given:
            value.shape = None
    # It logs why a graph is left as it is, with a traceback; shapes that do not follow are unknown, and treated so.
    logging.getLogger(ShapeInferencePass.__module__).setLevel(logging.CRITICAL)
    # An operator that inference does not know must not keep the others from it.
    ShapeInferencePass(check_type=False, strict_mode=False)(model)
    for value in untyped:
        maker = value.producer()
        if maker is not None and maker.op_type in SEQUENCES and not value.is_graph_output():
            # The pass takes every value for a tensor.
            value.type, value.shape = None, None
    for value, rank in ranks.items():
        if value.shape is None and rank is not None:
            value.shape = ir.Shape([None] * rank)


def _inner_inputs(model: ir.Model) -> Iterator[ir.Value]:
    for graph in graphs(model):
        if graph is not model.graph:
            yield from graph.inputs


def strip(model: ir.Model) -> None:
    """Remove what differs between machines and serves nobody: stack traces, paths, doc strings."""
    import onnx_ir as ir

    for part in (model, *graphs(model), *values(model), *nodes(model)):
        part.metadata_props.clear()
        part.doc_string = None
    for value in values(model):
        tensor = value.const_value
        # Tensors that were read from a file cannot be changed.
        if tensor is not None and (tensor.doc_string or tensor.metadata_props):
            value.const_value = ir.tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name)


def graphs(model: ir.Model) -> Iterator[ir.Graph | ir.Function]:
    """The graph, the functions, and the branches and bodies inside of both."""
    outer: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    for graph in outer:
        yield graph
        yield from graph.subgraphs()


def nodes(model: ir.Model) -> Iterator[ir.Node]:
    import onnx_ir as ir

    yield from ir.traversal.RecursiveGraphIterator(model.graph)
    for function in model.functions.values():
        yield from ir.traversal.RecursiveGraphIterator(function)


def values(model: ir.Model) -> Iterator[ir.Value]:
    import onnx_ir as ir

    for graph in graphs(model):
        yield from graph.inputs
        if isinstance(graph, ir.Graph):
            yield from graph.initializers.values()
    for node in nodes(model):
        yield from node.outputs


def count_operators(model: ir.Model) -> dict[str, int]:
    """Operator (with its domain where that is not ONNX's) to number of nodes, sorted by name."""
    counts: dict[str, int] = {}
    for node in nodes(model):
        name = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}"
        counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items()))


def differently_defined(
    nodes: Iterable[ir.Node] | Iterable[onnx.NodeProto], source: int, target: int
) -> tuple[str, ...]:
    """ONNX's operators of a graph's nodes that two opsets define differently, sorted."""
    operators = {node.op_type for node in nodes if node.domain in ("", "ai.onnx")}
    return tuple(sorted(name for name in operators if defined(name, source) != defined(name, target)))


def defined(operator: str, opset: int, domain: str = "") -> int | None:
    """The opset that an operator's definition is from; None when there is none that holds."""
    import onnx

    try:
        schema = onnx.defs.get_schema(operator, opset, domain)
    except onnx.defs.SchemaError:
        return None
    return None if schema.deprecated else int(schema.since_version)


def output_info(value: ir.Value, axes: tuple[AxisPlan, ...]) -> OutputInfo:
    """Name, dtype and shape of a graph output; dimensions that are no declared axis are unknown."""
    import onnx_ir as ir

    if value.name is None or value.dtype is None or value.shape is None:
        raise StageError(f"the exported graph's output `{value.name}` has no type or no rank")
    names = {axis.name for axis in axes}
    shape = tuple(dim if isinstance(dim, int) else (dim.value if dim.value in names else None) for dim in value.shape)
    return OutputInfo(name=value.name, dtype=str(ir.DataType(value.dtype).numpy()), shape=shape)


def write(model: ir.Model, output: Path) -> None:
    """Write a model to `output`/model.onnx, its weights to model.onnx.data where they are more than 64 MiB."""
    import onnx_ir as ir

    size = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None)
    external = DATA_FILE if size > EXTERNAL_DATA_THRESHOLD else None
    if external is None:
        # What stays external would go on naming a file of the directory that it was read from.
        ir.external_data.load_to_model(model)
    ir.save(model, output / MODEL_FILE, external_data=external)


def write_beside(model: ir.Model, path: Path) -> None:
    """Write a graph that refers to weights in files beside it, by reference; what is in memory goes with it.

    Args:
        model: a graph.
        path: of the graph; weights in memory of more than 64 MiB together go to the same name with `.data`. A file of
            a graph holds 2 GB at most.
    """
    import onnx_ir as ir

    kept = [value for graph in graphs(model) if isinstance(graph, ir.Graph) for value in graph.initializers.values()]
    tensors = {
        value: value.const_value
        for value in kept
        if value.const_value is not None and not isinstance(value.const_value, ir.ExternalTensor)
    }
    if sum(tensor.nbytes for tensor in tensors.values()) > EXTERNAL_DATA_THRESHOLD:
        written = ir.external_data.convert_tensors_to_external(
            list(tensors.values()), base_dir=path.parent, relative_path=f"{path.name}.data"
        )
        for value, tensor in zip(tensors, written, strict=True):
            value.const_value = tensor
    ir.save(model, path)


def check_file(path: Path, exporter: str) -> None:
    """Run ONNX's checker with shape inference.

    Raises:
        StageError: the graph is not valid.
    """
    import onnx

    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        lines = str(error).strip().splitlines()
        if exporter == ONNX_SOURCE:
            raise StageError(
                f"the graph of the ONNX file is not valid: {lines[0]}",
                help="export the model again: `onnx.checker.check_model` refuses this file, too",
                details=tuple(lines[1:6]),
            ) from error
        raise StageError(
            f"the {exporter} exporter gave an invalid graph: {lines[0]}", details=tuple(lines[1:6])
        ) from error


def node_name(node: ir.Node) -> str:
    """A node's name, or that of its output where it has none."""
    return str(node.name or node.outputs[0].name)
