"""Take an existing ONNX file as the canonical graph: interface checked, axes named, opset as asked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ortc.errors import StageError
from ortc.plan import ExportPlan, InputPlan
from ortc.stages.graph import (
    MODEL_FILE,
    Exported,
    check_file,
    count_operators,
    name_dimensions,
    output_info,
    strip,
    write,
)
from ortc.stages.rewrite import gelu

if TYPE_CHECKING:
    import onnx_ir as ir


def import_onnx(path: Path, plan: ExportPlan, output: Path) -> Exported:
    """Write the graph of an ONNX file to `output`/model.onnx as the plan wants it.

    Raises:
        StageError: the graph cannot be converted to the opset, or its inputs do not fit the declared ones.
    """
    import onnx_ir as ir

    model = ir.load(path)
    # Before IR version 4 initializers were listed as inputs too; nobody feeds them.
    fed = [value for value in model.graph.inputs if value.name not in model.graph.initializers]
    model.graph.inputs.clear()
    model.graph.inputs.extend(fed)
    model = _convert(model, plan)
    inputs = plan.inputs or _declared_inputs(model, plan)
    names = [value.name for value in model.graph.inputs]
    if names != [tensor.name for tensor in inputs]:
        raise StageError(
            f"the graph's inputs are {', '.join(str(name) for name in names)}; "
            f"`export.inputs` declares {', '.join(tensor.name for tensor in inputs)}"
        )
    _keep_outputs(model, plan)
    strip(model)
    model.ir_version = plan.ir_version
    name_dimensions(model, inputs, plan.axes)
    gelu(model)
    write(model, output)
    check_file(output / MODEL_FILE, "ONNX source")
    return Exported(
        exporter="onnx",
        opset=plan.opset,
        ir_version=plan.ir_version,
        domains={domain: version for domain, version in sorted(model.opset_imports.items()) if domain},
        inputs=inputs,
        outputs=tuple(output_info(value, plan.axes) for value in model.graph.outputs),
        operators=count_operators(model),
        warnings=(),
    )


def _convert(model: ir.Model, plan: ExportPlan) -> ir.Model:
    import onnx
    import onnx_ir as ir

    found = model.opset_imports.get("", 0)
    if found == plan.opset:
        return model
    ir.external_data.load_to_model(model)
    try:
        return ir.from_proto(onnx.version_converter.convert_version(ir.to_proto(model), plan.opset))
    except (onnx.version_converter.ConvertError, RuntimeError) as error:
        raise StageError(
            f"the graph has opset {found} and cannot be converted to {plan.opset}: "
            f"{str(error).strip().splitlines()[0]}",
            help=f"set `export.opset: {found}`",
        ) from error


def _declared_inputs(model: ir.Model, plan: ExportPlan) -> tuple[InputPlan, ...]:
    import onnx_ir as ir

    declared = {axis.name for axis in plan.axes}
    inputs = []
    for value in model.graph.inputs:
        if value.dtype is None or value.shape is None:
            raise StageError(f"the graph's input `{value.name}` has no type or shape", help="declare `export.inputs`")
        shape = tuple(dim if isinstance(dim, int) else dim.value for dim in value.shape)
        for entry in shape:
            if not isinstance(entry, int) and entry not in declared:
                raise StageError(
                    f"the graph's input `{value.name}` has a dynamic dimension `{entry}` that is no declared axis",
                    help="declare it in `export.dynamic_axes`, or name the dimensions in `export.inputs`",
                )
        inputs.append(
            InputPlan.model_validate(
                {"name": value.name, "dtype": str(ir.DataType(value.dtype).numpy()), "shape": shape}
            )
        )
    return tuple(inputs)


def _keep_outputs(model: ir.Model, plan: ExportPlan) -> None:
    if plan.outputs is None:
        return
    found = {value.name: value for value in model.graph.outputs}
    if missing := [name for name in plan.outputs if name not in found]:
        raise StageError(
            f"the graph has no output `{missing[0]}`", help=f"it has: {', '.join(str(name) for name in found)}"
        )
    model.graph.outputs.clear()
    model.graph.outputs.extend(found[name] for name in plan.outputs)
