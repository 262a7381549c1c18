"""Export: a reference model becomes the canonical ONNX graph, exactly as asked or not at all.

Runs inside the reference process. The canonical graph has the opset and IR version of the plan, the axes' names as
dimension names, no fused operators and no traces of the machine that made it; every variant derives from it.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ortc.errors import StageError
from ortc.plan import AxisPlan, ExportPlan, Frozen, InputPlan
from ortc.reference.model import Reference, example_inputs
from ortc.reference.values import watch_values

if TYPE_CHECKING:
    import onnx_ir as ir

EXTERNAL_DATA_THRESHOLD = 64 * 2**20
"""Bytes of weights above which they are kept beside the graph, where they can be memory-mapped."""

MODEL_FILE = "model.onnx"
DATA_FILE = "model.onnx.data"


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


class OutputInfo(Frozen):
    """One output tensor; a shape entry is an axis name, a size, or None where only a run tells."""

    name: str
    dtype: str
    shape: tuple[str | int | None, ...]


Exported.model_rebuild()


def export(reference: Reference, plan: ExportPlan, exporter: str, output: Path) -> Exported:
    """Export with one exporter into `output`/model.onnx (and model.onnx.data above 64 MiB of weights).

    Args:
        reference: the loaded model.
        plan: opset, IR version, axes and inputs.
        exporter: `dynamo` or `torchscript`.
        output: an existing directory.

    Raises:
        StageError: the exporter fails, or what it gives is not what was asked for.
    """
    import onnx_ir as ir

    with _captured_warnings() as messages:
        try:
            model = _dynamo(reference, plan) if exporter == "dynamo" else _torchscript(reference, plan, output)
        except StageError:
            raise
        except Exception as error:
            raise StageError(
                f"the {exporter} exporter fails: {_cause(error)}",
                help="control flow or shapes that depend on tensor values cannot be exported; the location above is in "
                "the model's code",
                details=_model_frames(error),
            ) from error
    _check_opset(model, plan, exporter)
    model.ir_version = plan.ir_version
    name_dimensions(model, reference.inputs, plan.axes)
    strip(model)
    path = output / MODEL_FILE
    size = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None)
    ir.save(model, path, external_data=DATA_FILE if size > EXTERNAL_DATA_THRESHOLD else None)
    check_file(path, exporter)
    return Exported(
        exporter=exporter,
        opset=plan.opset,
        ir_version=plan.ir_version,
        domains={domain: version for domain, version in sorted(model.opset_imports.items()) if domain},
        inputs=reference.inputs,
        outputs=tuple(output_info(value, plan.axes) for value in model.graph.outputs),
        operators=count_operators(model),
        warnings=tuple(messages),
    )


def _dynamo(reference: Reference, plan: ExportPlan) -> ir.Model:
    import torch

    dims = {axis.name: _dim(axis) for axis in plan.axes if axis.min < axis.max}
    shapes = tuple(
        {index: dims[entry] for index, entry in enumerate(tensor.shape) if isinstance(entry, str) and entry in dims}
        for tensor in reference.inputs
    )
    program = torch.onnx.export(
        reference.module,
        example_inputs(reference.inputs, plan),
        dynamo=True,
        # One level for forward()'s *inputs, one for its elements.
        dynamic_shapes=(shapes,),
        opset_version=plan.opset,
        input_names=[tensor.name for tensor in reference.inputs],
        output_names=list(reference.outputs),
        optimize=True,
        verbose=False,
    )
    if program is None:
        raise StageError("the dynamo exporter gave no program")
    return program.model


def _dim(axis: AxisPlan) -> Any:
    """One torch.export.Dim for a logical axis; the same object wherever the axis occurs."""
    import torch

    if axis.multiple_of == 1:
        return torch.export.Dim(axis.name, min=axis.min, max=axis.max)
    step = axis.multiple_of
    blocks = torch.export.Dim(f"{axis.name}_blocks", min=-(-axis.min // step), max=axis.max // step)
    return step * blocks


def _torchscript(reference: Reference, plan: ExportPlan, output: Path) -> ir.Model:
    import onnx_ir as ir
    import torch

    raw = output / "torchscript.onnx"
    dynamic = {
        tensor.name: {index: entry for index, entry in enumerate(tensor.shape) if isinstance(entry, str)}
        for tensor in reference.inputs
    }
    with watch_values(len(reference.inputs)) as places:
        torch.onnx.export(
            reference.module,
            example_inputs(reference.inputs, plan),
            str(raw),
            dynamo=False,
            dynamic_axes=dynamic,
            opset_version=plan.opset,
            input_names=[tensor.name for tensor in reference.inputs],
            output_names=list(reference.outputs),
            do_constant_folding=True,
        )
    if places:
        raise StageError(
            "the torchscript exporter would fix a condition or a number that the model takes from a tensor's value",
            help="write it with tensor operations (torch.where, masks), or move it out of the model",
            details=tuple(places),
        )
    model = ir.load(raw)
    ir.external_data.load_to_model(model)
    raw.unlink()
    return model


def _check_opset(model: ir.Model, plan: ExportPlan, exporter: str) -> None:
    import onnx

    got = model.opset_imports.get("", plan.opset)
    newer: set[str] = set()
    for node in _nodes(model):
        if node.domain in ("", "ai.onnx"):
            try:
                schema = onnx.defs.get_schema(node.op_type, max(got, plan.opset), "")
            except onnx.defs.SchemaError:
                newer.add(node.op_type)
                continue
            if schema.since_version > plan.opset:
                newer.add(node.op_type)
    if got != plan.opset:
        named = f"; these operators need it: {', '.join(sorted(newer))}" if newer else ""
        raise StageError(
            f"the {exporter} exporter gave opset {got} instead of {plan.opset}{named}",
            help=f"set `export.opset: {got}`, or `export.exporter: torchscript`",
        )


def name_dimensions(model: ir.Model, inputs: tuple[InputPlan, ...], axes: tuple[AxisPlan, ...]) -> None:
    """Call the dimensions by the axes' names, in inputs, outputs and everything between."""
    import onnx_ir as ir

    renamed: dict[str, str] = {}
    fixed = {axis.name: axis.max for axis in axes if axis.min == axis.max}
    for value, tensor in zip(model.graph.inputs, inputs, strict=True):
        if value.name != tensor.name:
            raise StageError(f"the exported graph's input is called `{value.name}` instead of `{tensor.name}`")
        if value.shape is None or len(value.shape) != len(tensor.shape):
            raise StageError(f"the exported graph's input `{tensor.name}` has shape {value.shape}, not {tensor.shape}")
        dims: list[int | str] = []
        for found, entry in zip(value.shape, tensor.shape, strict=True):
            wanted = fixed.get(entry, entry) if isinstance(entry, str) else entry
            if isinstance(found, int) and isinstance(wanted, str):
                raise StageError(
                    f"the export fixed the axis `{entry}` of `{tensor.name}` to {found}",
                    help="something in the model's code depends on that size; with `--debug` the exporter's log says "
                    "where",
                )
            if not isinstance(found, int) and isinstance(wanted, str) and found.value is not None:
                renamed[str(found.value)] = wanted
            dims.append(wanted)
        value.shape = ir.Shape(dims)
    for value in _values(model):
        if value.shape is not None:
            value.shape = ir.Shape(
                [
                    dim
                    if isinstance(dim, int)
                    else renamed.get(str(dim.value), dim.value if dim.value is None else str(dim.value))
                    for dim in value.shape
                ]
            )


def strip(model: ir.Model) -> None:
    """Remove what differs between machines and serves nobody: stack traces, paths, doc strings."""
    import onnx_ir as ir

    for part in (model, *_graphs(model), *_values(model), *_nodes(model)):
        part.metadata_props.clear()
        part.doc_string = None
    for value in _values(model):
        tensor = value.const_value
        # Tensors that were read from a file cannot be changed.
        if tensor is not None and (tensor.doc_string or tensor.metadata_props):
            value.const_value = ir.tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name)


def _graphs(model: ir.Model) -> Iterator[ir.Graph | ir.Function]:
    """The graph, the functions, and the branches and bodies inside of both."""
    outer: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    for graph in outer:
        yield graph
        yield from graph.subgraphs()


def _nodes(model: ir.Model) -> Iterator[ir.Node]:
    import onnx_ir as ir

    yield from ir.traversal.RecursiveGraphIterator(model.graph)
    for function in model.functions.values():
        yield from ir.traversal.RecursiveGraphIterator(function)


def _values(model: ir.Model) -> Iterator[ir.Value]:
    import onnx_ir as ir

    for graph in _graphs(model):
        yield from graph.inputs
        if isinstance(graph, ir.Graph):
            yield from graph.initializers.values()
    for node in _nodes(model):
        yield from node.outputs


def count_operators(model: ir.Model) -> dict[str, int]:
    """Operator (with its domain where that is not ONNX's) to number of nodes, sorted by name."""
    counts: dict[str, int] = {}
    for node in _nodes(model):
        name = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}"
        counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items()))


def output_info(value: ir.Value, axes: tuple[AxisPlan, ...]) -> OutputInfo:
    """Name, dtype and shape of a graph output; dimensions that are no declared axis are unknown."""
    import onnx_ir as ir

    if value.name is None or value.dtype is None or value.shape is None:
        raise StageError(f"the exported graph's output `{value.name}` has no type or no rank")
    names = {axis.name for axis in axes}
    shape = tuple(dim if isinstance(dim, int) else (dim.value if dim.value in names else None) for dim in value.shape)
    return OutputInfo(name=value.name, dtype=str(ir.DataType(value.dtype).numpy()), shape=shape)


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
        raise StageError(
            f"the {exporter} exporter gave an invalid graph: {lines[0]}", details=tuple(lines[1:6])
        ) from error


@contextlib.contextmanager
def _captured_warnings() -> Iterator[list[str]]:
    """Collect what a tracer warns about (baked-in values); everything else the exporters say is noise here."""
    messages: list[str] = []
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "torch._dynamo")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield messages
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
    seen: dict[str, None] = {}
    for warning in caught:
        if warning.category.__name__ == "TracerWarning":
            place = f"{Path(warning.filename).name}:{warning.lineno}"
            seen[f"{place}: {str(warning.message).splitlines()[0]}"] = None
    messages.extend(seen)


def _cause(error: BaseException) -> str:
    """The first line of the innermost error that says something; exporters wrap theirs several times."""
    chain = [error]
    while (inner := chain[-1].__cause__) is not None:
        chain.append(inner)
    for link in reversed(chain):
        lines = [line.strip() for line in str(link).splitlines() if line.strip()]
        if lines:
            return f"{type(link).__name__}: {lines[0]}"
    return type(error).__name__


def _model_frames(error: BaseException) -> tuple[str, ...]:
    """The lines of an exporter's message that point into code: `File "…", line N`."""
    chain: list[BaseException] = [error]
    while (inner := chain[-1].__cause__) is not None:
        chain.append(inner)
    lines = [line.strip() for link in chain for line in str(link).splitlines()]
    pointing = [line for line in lines if line.startswith('File "') and "/torch/" not in line]
    return tuple(dict.fromkeys(pointing))[-5:]
