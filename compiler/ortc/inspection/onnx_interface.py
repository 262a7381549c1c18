"""Inputs and outputs of ONNX files: which of them a bundle can have, and what to do about the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ortc.common.errors import StageError

if TYPE_CHECKING:
    import onnx

DTYPES = {
    "FLOAT": "float32",
    "DOUBLE": "float64",
    "FLOAT16": "float16",
    "INT64": "int64",
    "INT32": "int32",
    "INT16": "int16",
    "INT8": "int8",
    "UINT64": "uint64",
    "UINT32": "uint32",
    "UINT16": "uint16",
    "UINT8": "uint8",
    "BOOL": "bool",
}
"""Types of elements that a bundle takes and gives, by ONNX's names for them."""
_KINDS = {
    "sequence_type": "a sequence",
    "map_type": "a map",
    "optional_type": "an optional value",
    "sparse_tensor_type": "a sparse tensor",
    "opaque_type": "an opaque value",
    None: "a value without a type",
}


def unusable(value: onnx.ValueInfoProto) -> str | None:
    """What an input or output is that no bundle can have, in words; None for a tensor of numbers or booleans."""
    kind = value.type.WhichOneof("value")
    if kind == "sequence_type" and value.type.sequence_type.elem_type.HasField("map_type"):
        return "a sequence of maps"
    if kind != "tensor_type":
        return _KINDS.get(kind, "a value of an unknown kind")
    element = element_type(value)
    if element in DTYPES:
        return None
    return "a tensor of text" if element == "STRING" else f"a tensor of {element.lower() or 'an unknown type'}"


def element_type(value: onnx.ValueInfoProto) -> str:
    """ONNX's name for the type of a tensor's elements; empty for a number that onnx does not know."""
    import onnx

    number, kinds = value.type.tensor_type.elem_type, onnx.TensorProto.DataType
    return kinds.Name(number) if number in kinds.values() else ""


def keep_usable(model: onnx.ModelProto, outputs: tuple[str, ...] | None) -> None:
    """Check what the bundle will take and give, and remove what computes other outputs alone.

    Args:
        model: changed in place.
        outputs: that are kept; all when None.

    Raises:
        StageError: an input, or an output that is kept, is no tensor of numbers or booleans.
    """
    graph = model.graph
    stored = {tensor.name for tensor in graph.initializer}
    for value in graph.input:
        if value.name not in stored and (what := unusable(value)) is not None:
            raise StageError(
                f"the graph's input `{value.name}` is {what}, which a bundle cannot take",
                help="export the model again with tensors of numbers or booleans as inputs"
                + (", and do what turns text into numbers before the model" if what == "a tensor of text" else ""),
            )
    kept = [value for value in graph.output if outputs is None or value.name in outputs]
    for value in kept:
        if (what := unusable(value)) is not None:
            raise StageError(
                f"the graph's output `{value.name}` is {what}, which a bundle cannot give", help=_advice(model, value)
            )
    if outputs is not None and len(kept) < len(graph.output) and {value.name for value in kept} == set(outputs):
        del graph.output[:]
        graph.output.extend(kept)
        _prune(graph)


def _advice(model: onnx.ModelProto, value: onnx.ValueInfoProto) -> str:
    others = [output.name for output in model.graph.output if unusable(output) is None]
    maker = next((node.op_type for node in model.graph.node if value.name in node.output), "")
    ways = []
    if others:
        ways.append(f"keep only the others: `export.outputs: [{', '.join(others)}]`")
    if maker == "ZipMap":
        ways.append("convert the model without ZipMap (`zipmap: False` among the converter's options)")
    else:
        ways.append("export the model again with tensors of numbers or booleans as outputs")
    return "; or ".join(ways)


def _prune(graph: onnx.GraphProto) -> None:
    """Remove nodes that no output needs, last to first, and what was noted of inner values."""
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(_reads(node))
    del graph.node[:]
    graph.node.extend(reversed(kept))
    del graph.value_info[:]


def _reads(node: onnx.NodeProto) -> set[str]:
    """Names that a node reads, those that its branches and bodies read from outside included."""
    names = set(node.input)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            names.update(value.name for value in graph.output)
            for inner in graph.node:
                names |= _reads(inner)
    return names
