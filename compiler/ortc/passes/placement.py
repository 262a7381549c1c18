"""Foresee where a GPU's graph will run: which nodes its provider has no kernel for, and leaves to the CPU.

It is a prediction, from the table of kernels that the runtime registers (`ortc.passes.kernel_tables`): what a
session really does is
measured where the GPU is. What ONNX Runtime runs on the CPU by design is not named: arithmetic on shapes, whose numbers
are on the CPU anyway, and what it computes once, while the session is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ortc.passes.canonical import nodes, values
from ortc.passes.kernel_tables import CpuNode, Forecast, Kernels, Types, kernels
from ortc.passes.shape_arithmetic import shape_nodes
from ortc.plan.plan import VariantPlan

if TYPE_CHECKING:
    import onnx_ir as ir

CPU = "CPUExecutionProvider"
SHAPES = ("Shape", "Size")
"""What gives numbers of a tensor's shape, on the CPU."""


def table_for(variant: VariantPlan) -> Kernels | None:
    """The kernels of the provider that a variant's session asks first; None where there is no table."""
    runtime, first = variant.runtime, variant.session.providers[0].name
    return None if first == CPU else kernels(runtime.package, runtime.version, first)


def foresee(model: ir.Model, table: Kernels) -> Forecast:
    """Name the nodes of a graph that a provider has no kernel for.

    Operators that ONNX defines by others are taken apart, as ONNX Runtime does. A type that the graph does not say is
    inferred, where ONNX can, and else taken to be one that there is a kernel for.
    """
    known = _inferred(model)
    opsets = known.opset_imports
    small = _on_cpu_anyway(known)
    shapes = {(operator, name) for operator, names in shape_nodes(known).items() for name in names}
    functions = {(function.domain, function.name) for function in known.functions.values()}
    found = []
    for node in nodes(known):
        if (node.domain, node.op_type) in functions or all(value in small for value in node.outputs):
            continue
        inputs = [_type(value) for value in node.inputs]
        outputs = [_type(value) for value in node.outputs if not _is_left_out(value)]
        if not _has_kernel(table, node.domain, node.op_type, opsets, inputs, outputs):
            types = tuple(dtype or "?" for dtype, value in zip(inputs, node.inputs, strict=True) if value is not None)
            entry = CpuNode(name=node.name or "", operator=_name(node.domain, node.op_type), types=types)
            if (entry.operator, entry.name) not in shapes:
                found.append(entry)
    return Forecast(provider=table.provider, runtime=table.runtime, cpu_nodes=tuple(found))


def _inferred(model: ir.Model) -> ir.Model:
    """The model with the types that ONNX infers, where it lacks some."""
    from onnx_ir.passes.common import ShapeInferencePass

    if all(value.type is not None for value in values(model) if value.uses() or value.is_graph_output()):
        return model
    return ShapeInferencePass(check_type=False, strict_mode=False, data_prop=False)(model.clone()).model


def _on_cpu_anyway(model: ir.Model) -> set[ir.Value]:
    """Values that are constant or made of shapes and constants alone."""
    found: set[ir.Value] = set()
    for value in values(model):
        if value.is_initializer() and not value.is_graph_input():
            found.add(value)
    for node in nodes(model):
        inputs = [value for value in node.inputs if value is not None]
        derived = inputs and node.domain in ("", "ai.onnx") and all(value in found for value in inputs)
        if derived or node.op_type in (*SHAPES, "Constant"):
            found.update(node.outputs)
    return found


def _has_kernel(
    table: Kernels, domain: str, operator: str, opsets: dict[str, int], inputs: Types, outputs: Types
) -> bool:
    import onnx

    domain = "" if domain == "ai.onnx" else domain
    opset, name = opsets.get(domain, 1), _name(domain, operator)
    if not onnx.defs.has(operator, opset, domain):
        # Of ONNX Runtime's own operators there is one version.
        return table.has(name, 1, inputs, outputs)
    schema: Any = onnx.defs.get_schema(operator, opset, domain)
    if table.has(name, schema.since_version, inputs, outputs):
        return True
    if table.keeps(name, schema.since_version, inputs, outputs):
        return False
    if schema.has_function:
        body = schema.function_body
        imports = {entry.domain: entry.version for entry in body.opset_import} or opsets
        others = (node for node in body.node if node.op_type != "Constant")
        return all(_has_kernel(table, node.domain, node.op_type, imports, (), ()) for node in others)
    # A definition that depends on the inputs is of operators that nobody knows here.
    return bool(schema.has_context_dependent_function)


def _is_left_out(value: ir.Value) -> bool:
    return not value.name


def _type(value: ir.Value | None) -> str | None:
    """As the table writes it; None where there is none, where it is unknown, and for what is no tensor."""
    import onnx_ir as ir

    if value is None or not isinstance(value.type, ir.TensorType):
        return None
    return value.type.dtype.name.lower()


def _name(domain: str, operator: str) -> str:
    return f"{domain}::{operator}" if domain not in ("", "ai.onnx") else operator
