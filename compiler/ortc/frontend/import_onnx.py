"""Take an existing ONNX file as the canonical graph: interface checked, axes named, opset as asked."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ortc.common.errors import OrtcError, StageError
from ortc.common.texts import shown
from ortc.frontend.class_labels import Labels, number_classes
from ortc.frontend.onnx_forms import (
    MOST_CAUSE,
    expect_few_nodes,
    inline,
    inline_functions,
    name_portable_locales,
    open_dimensions,
    write_out_sparse,
)
from ortc.inspection.external_data import (
    expect_places,
    graph_nodes,
    has_default_domain,
    initializers,
    load_attributes,
    load_graph,
)
from ortc.inspection.onnx_interface import keep_usable
from ortc.passes.canonical import (
    MODEL_FILE,
    ONNX_SOURCE,
    Conversion,
    Exported,
    check_file,
    count_operators,
    differently_defined,
    infer_shapes,
    name_dimensions,
    nodes,
    output_info,
    strip,
    write,
)
from ortc.passes.computed_weights import fold_computed_weights
from ortc.passes.gelu import gelu
from ortc.passes.group_normalization import split_group_normalization
from ortc.passes.quantized_operators import quantized_already
from ortc.passes.weight_folding import fold_weights
from ortc.plan.plan import ExportPlan, InputPlan
from ortc.spec.onnx_header import DEFAULTS_IR
from ortc.spec.vocabulary import LEAST_OPSET, STRING

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir


_PLACE = re.compile(r"^\S+\.(cc|h):\d+: ")
"""How the version converter's messages begin: a line of its own source."""
CONVERTER_ERRORS = (RuntimeError, ValueError, IndexError)
"""What ONNX's version converter raises beside its own errors, of graphs that are not well-formed."""


def import_onnx(path: Path, plan: ExportPlan, output: Path) -> Exported:
    """Write the graph of an ONNX file to `output`/model.onnx as the plan wants it.

    Raises:
        StageError: the graph cannot be converted to the opset, or its inputs do not fit the declared ones.
    """
    try:
        return _imported(path, plan, output)
    except (OrtcError, OSError, MemoryError):
        raise
    except Exception as error:
        # Libraries raise errors of every kind for graphs that are not well-formed.
        said = shown(str(error.__cause__ or error).strip() or type(error).__name__, MOST_CAUSE)
        raise StageError(
            f"`{path.name}` cannot be imported: {type(error).__name__}: {said}",
            help="export the model again; if `onnx.checker.check_model` accepts the file, please report it with what "
            "`ortc --debug` shows",
        ) from error


def _imported(path: Path, plan: ExportPlan, output: Path) -> Exported:
    from onnx_ir.passes.common import LiftConstantsToInitializersPass

    model, labels = _load(path, plan)
    left_out = _drop_defaults(model, plan)
    inline(model)
    split_group_normalization(model, min(plan.opset, model.opset_imports.get("", plan.opset)))
    # Weights are found among initializers, by quantization and by everything else.
    LiftConstantsToInitializersPass()(model)
    fold_weights(model)
    model, conversion = _convert(model, plan)
    inputs = plan.inputs or _declared_inputs(model, plan)
    _order_inputs(model, inputs)
    _keep_outputs(model, plan)
    strip(model)
    model.ir_version = plan.ir_version
    name_dimensions(model, inputs, plan.axes, keep_open=True)
    infer_shapes(model)
    gelu(model)
    fold_computed_weights(model)
    write(model, output)
    check_file(output / MODEL_FILE, ONNX_SOURCE)
    operators = count_operators(model)
    return Exported(
        exporter="onnx",
        opset=plan.opset,
        ir_version=plan.ir_version,
        domains={domain: version for domain, version in sorted(model.opset_imports.items()) if domain},
        inputs=inputs,
        outputs=tuple(
            output_info(value, plan.axes).model_copy(update={"labels": labels.get(str(value.name))})
            for value in model.graph.outputs
        ),
        operators=operators,
        warnings=tuple(_warnings(conversion, left_out, operators)),
        conversion=conversion,
        inputs_left_out=left_out,
    )


def _load(path: Path, plan: ExportPlan) -> tuple[ir.Model, Labels]:
    """The model of a file and the names of its classes; initializers in other files are read when they are needed.

    Raises:
        StageError: the file has an input or a kept output that no bundle can have, or is not well-formed.
    """
    import onnx
    import onnx_ir as ir

    proto = load_graph(path)
    _expect_form(proto, path.name)
    if not has_default_domain(proto):
        proto.opset_import.append(onnx.helper.make_opsetid("", plan.opset))
    labels = number_classes(proto)
    expect_places(proto, path.parent)
    expect_few_nodes(proto)
    keep_usable(proto, plan.outputs, None if plan.inputs is None else [tensor.name for tensor in plan.inputs])
    load_attributes(proto, path.parent)
    open_dimensions(proto)
    name_portable_locales(proto)
    write_out_sparse(proto)
    proto = inline_functions(proto)
    # It logs names that nothing defines, which the check of the written file refuses.
    logging.getLogger(ir.serde.__name__).setLevel(logging.ERROR)
    try:
        model = ir.from_proto(proto)
    except (ir.serde.SerdeError, ValueError, KeyError) as error:
        cause = error.__cause__ or error
        raise StageError(f"`{path.name}` cannot be read: {shown(str(cause).strip(), MOST_CAUSE)}") from error
    ir.external_data.set_base_dir(model.graph, path.parent)
    return model, labels


def _expect_form(model: onnx.ModelProto, name: str) -> None:
    """Refuse nodes without outputs, attributes and tensors without a type, and sizes below zero.

    Libraries raise errors of many kinds for them. The first version of the format had no types of attributes.

    Raises:
        StageError: naming one.
    """

    def refused(what: str) -> StageError:
        return StageError(f"`{name}` cannot be read: {what}", help="export it again")

    for node in graph_nodes(model):
        if not node.output:
            raise refused(f"{shown(node.op_type)} `{shown(node.name)}` has no outputs")
        for attribute in node.attribute:
            if attribute.type == attribute.UNDEFINED:
                label = f"`{shown(attribute.name)}` of {shown(node.op_type)} `{shown(node.name)}`"
                raise refused(f"the attribute {label} has no type")
            held = (attribute.t,) if attribute.type == attribute.TENSOR else attribute.tensors
            for tensor in held:
                if _is_odd(tensor):
                    raise refused(
                        f"a tensor of {shown(node.op_type)} `{shown(node.name)}` has no type, or a size below 0"
                    )
    for tensor in initializers(model):
        if _is_odd(tensor):
            raise refused(f"the initializer `{shown(tensor.name)}` has no type, or a size below 0")


def _is_odd(tensor: onnx.TensorProto) -> bool:
    return tensor.data_type == tensor.UNDEFINED or any(size < 0 for size in tensor.dims)


def _drop_defaults(model: ir.Model, plan: ExportPlan) -> tuple[str, ...]:
    """Make constants of the inputs that have a default, unless the plan declares them; the names of those.

    Before IR version 4 every initializer was listed as an input, and no runtime lets anybody feed one.
    """
    declared = set() if model.ir_version < DEFAULTS_IR else {tensor.name for tensor in plan.inputs or ()}
    dropped = [
        value for value in model.graph.inputs if value.name in model.graph.initializers and value.name not in declared
    ]
    for value in dropped:
        model.graph.inputs.remove(value)
    for name in declared & model.graph.initializers.keys():
        value = model.graph.initializers.pop(name)
        value.const_value = None
    return () if model.ir_version < DEFAULTS_IR else tuple(str(value.name) for value in dropped)


def _warnings(conversion: Conversion | None, left_out: tuple[str, ...], operators: dict[str, int]) -> Iterator[str]:
    if conversion is not None:
        touched = ", ".join(conversion.operators) or "no operator by its version"
        opsets = f"from opset {conversion.source} to {conversion.target}"
        yield f"the ONNX file was converted {opsets}, which touches {touched}"
    if (done := quantized_already(operators)) is not None:
        yield f"{done}: every variant ships its integers, and is compared with the file, not with the model before that"
    if left_out:
        yield (
            f"inputs with a default value that became constants: {', '.join(left_out)}; declare them in "
            "`export.inputs` to keep them"
        )


def _convert(model: ir.Model, plan: ExportPlan) -> tuple[ir.Model, Conversion | None]:
    """The model at the plan's opset.

    Raises:
        StageError: ONNX's version converter cannot.
    """
    import onnx
    import onnx_ir as ir

    found = model.opset_imports.get("", 0)
    if found == plan.opset:
        return model, None
    keeps = found >= LEAST_OPSET
    touched = differently_defined(nodes(model), found, plan.opset)
    conversion = Conversion(source=found, target=plan.opset, operators=touched, keeps=keeps)
    ir.external_data.load_to_model(model)
    # The converter takes every initializer for an input of a lower version, and finds none.
    model.ir_version = max(model.ir_version, DEFAULTS_IR)
    try:
        return ir.from_proto(onnx.version_converter.convert_version(ir.to_proto(model), plan.opset)), conversion
    except (*CONVERTER_ERRORS, onnx.version_converter.ConvertError, onnx.shape_inference.InferenceError) as error:
        raise StageError(
            f"the graph has opset {found} and cannot be converted to {plan.opset}: "
            f"{shown(_PLACE.sub('', str(error).strip().splitlines()[0]), MOST_CAUSE)}",
            help="leave out `export.opset`, which keeps the file's own"
            if keeps
            else f"export the model again, at opset {LEAST_OPSET} or higher",
        ) from error


def _order_inputs(model: ir.Model, inputs: tuple[InputPlan, ...]) -> None:
    """Put the graph's inputs into the order of the declared ones; their names are the same."""
    found = {str(value.name): value for value in model.graph.inputs}
    model.graph.inputs.clear()
    model.graph.inputs.extend(found[tensor.name] for tensor in inputs)


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
                    f"the graph's input `{value.name}` has a dynamic dimension `{shown(str(entry))}` that is no "
                    "declared axis",
                    help="declare it in `export.dynamic_axes`, or name the dimensions in `export.inputs`",
                )
        inputs.append(
            InputPlan.model_validate({"name": value.name, "dtype": _dtype(ir.DataType(value.dtype)), "shape": shape})
        )
    return tuple(inputs)


def _dtype(dtype: ir.DataType) -> str:
    """The dtype of the spec language for one of ONNX."""
    return STRING if dtype.name == "STRING" else str(dtype.numpy())


def _keep_outputs(model: ir.Model, plan: ExportPlan) -> None:
    if plan.outputs is None:
        return
    found = {value.name: value for value in model.graph.outputs}
    model.graph.outputs.clear()
    model.graph.outputs.extend(found[name] for name in plan.outputs)
