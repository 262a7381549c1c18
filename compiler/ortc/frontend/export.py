"""Export: a reference model becomes the canonical ONNX graph, exactly as asked or not at all.

Runs inside the reference process; ortc.passes.canonical says what canonical means.
"""

from __future__ import annotations

import contextlib
import linecache
import logging
import re
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ortc.common.errors import StageError
from ortc.frontend.reference.model import Reference, example_inputs
from ortc.frontend.reference.values import watch_values
from ortc.passes.canonical import (
    MODEL_FILE,
    Exported,
    check_file,
    count_operators,
    name_dimensions,
    nodes,
    output_info,
    restore_inputs,
    strip,
    write,
)
from ortc.passes.computed_weights import fold_computed_weights
from ortc.passes.gelu import gelu
from ortc.plan.plan import AxisPlan, ExportPlan

if TYPE_CHECKING:
    import onnx_ir as ir

_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<name>\S+)')
_EXPORTERS = ("/torch/", "/onnxscript/", "/onnx_ir/", "/sympy/", "/transformers/utils/")
"""Parts of the paths of code that runs models, and is none."""


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
    with _captured_warnings() as messages:
        try:
            model = _dynamo(reference, plan) if exporter == "dynamo" else _torchscript(reference, plan, output)
        except StageError:
            raise
        except Exception as error:
            cause = _cause(error)
            raise StageError(
                f"the {exporter} exporter fails: {cause}", help=_advice(cause), details=_model_frames(error)
            ) from error
    _check_opset(model, plan, exporter)
    model.ir_version = plan.ir_version
    unused = restore_inputs(model, reference.inputs)
    name_dimensions(model, reference.inputs, plan.axes)
    strip(model)
    gelu(model)
    fold_computed_weights(model)
    write(model, output)
    check_file(output / MODEL_FILE, exporter)
    return Exported(
        exporter=exporter,
        opset=plan.opset,
        ir_version=plan.ir_version,
        domains={domain: version for domain, version in sorted(model.opset_imports.items()) if domain},
        inputs=reference.inputs,
        outputs=tuple(output_info(value, plan.axes) for value in model.graph.outputs),
        operators=count_operators(model),
        warnings=(*reference.notes, *messages, *(f"the model makes no use of its input `{name}`" for name in unused)),
        parts_left_out=reference.parts_left_out,
        inputs_left_out=reference.inputs_left_out,
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
    for node in nodes(model):
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


_ADVICE = {
    "a condition, the bound of a loop or a size is taken from a tensor's value at the place below: write it with "
    "torch.where, masks and fixed bounds, or move it out of the model": (
        "data-dependent",
        "DataDependent",
        "unbacked",
        "nonzero",
    ),
    "the model's code works for some sizes alone at the place below: compute with tensor.shape and not with numbers, "
    "or narrow the axis (`min`, `max`, `multiple_of`) to what it is made for": (
        "ConstraintViolation",
        "specialized",
        "Constraints violated",
        "not all values of",
    ),
    "an operator of the model has no form in ONNX: write it with others, or try the other exporter with "
    "`export.exporter`": (
        "No ONNX function found",
        "No decompositions registered",
        "UnsupportedOperatorError",
        "Unsupported: ONNX",
    ),
}
"""What to do about an export that failed, by what in the message says why."""


def _advice(cause: str) -> str:
    for advice, signs in _ADVICE.items():
        if any(sign in cause for sign in signs):
            return advice
    return (
        "control flow or shapes that depend on tensor values cannot be exported; the place below is in the model's code"
    )


def _model_frames(error: BaseException) -> tuple[str, ...]:
    """Where in the model's code an exporter stopped, innermost last: `File "…", line N, in forward: the code`.

    Exporters put the place into their messages, as it is that of the code that was traced; else it is in the traceback.
    """
    chain: list[BaseException] = [error]
    while (inner := chain[-1].__cause__ or chain[-1].__context__) is not None and inner not in chain:
        chain.append(inner)
    lines = (line.strip() for link in chain for line in str(link).splitlines())
    places = [found.groups() for line in lines if (found := _FRAME.match(line)) is not None]
    for link in chain:
        places += [
            (frame.filename, str(frame.lineno), frame.name) for frame in traceback.extract_tb(link.__traceback__)
        ]
    own = str(Path(__file__).parents[1])
    told = {
        (file, line): f'File "{file}", line {line}, in {name}: {linecache.getline(file, int(line)).strip()}'.rstrip(
            ": "
        )
        for file, line, name in places
        if not file.startswith((own, "<")) and not any(part in file for part in _EXPORTERS)
    }
    return tuple(told.values())[-5:]
