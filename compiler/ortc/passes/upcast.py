"""The float32 form of a graph in half precision, for hosts whose provider has no kernels in 16 bits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ortc.passes.canonical import MODEL_FILE, values, write
from ortc.passes.half_precision import FORMATS, cast

if TYPE_CHECKING:
    import onnx_ir as ir


def upcast(source: Path, output: Path) -> None:
    """Write the float32 form of a graph: see `compute_in_float32`.

    Args:
        source: directory with the graph in float16 or bfloat16.
        output: an existing, other directory.
    """
    import onnx_ir as ir

    model = ir.load(source / MODEL_FILE)
    compute_in_float32(model)
    write(model, output)


def compute_in_float32(model: ir.Model) -> None:
    """Compute in float32 what a graph computes in 16 bits, and round every result as that does; in place.

    The CPU provider has few kernels in float16 and hardly any in bfloat16, and leaves out the rounding between those
    that it runs in float32 instead: it would show neither the errors nor the overflows of a graph that CUDA runs.
    """
    import onnx_ir as ir

    small = {entry.dtype for entry in FORMATS}
    names = {value.name for value in values(model)}
    for node in list(model.graph):
        if node.op_type == "Cast" and node.domain in ("", "ai.onnx"):
            continue
        for index, value in enumerate(node.inputs):
            if value is not None and value.dtype in small:
                wide = cast(value, ir.DataType.FLOAT, names)
                model.graph.insert_before(node, wide)
                node.replace_input_with(index, wide.outputs[0])
        for value in list(node.outputs):
            if value.dtype is not None and value.dtype in small:
                rounded = cast(value, value.dtype, names)
                if value.is_graph_output():
                    value.name, rounded.outputs[0].name = rounded.outputs[0].name, value.name
                ir.convenience.replace_all_uses_with(value, rounded.outputs[0], replace_graph_outputs=True)
                rounded.replace_input_with(0, value)
                value.type = ir.TensorType(ir.DataType.FLOAT)
                model.graph.insert_after(node, rounded)
