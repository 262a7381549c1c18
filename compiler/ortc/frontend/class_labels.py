"""Classifiers of ai.onnx.ml: numbers in place of names of classes, and tensors in place of maps.

A bundle gives tensors of numbers. The names go into the manifest, and both are compared with what the file answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ortc.inspection.onnx_interface import CLASSIFIERS, PASSES_ON, text_of

if TYPE_CHECKING:
    import onnx

Labels = dict[str, tuple[str, ...]]
_INTEGERS = {"TreeEnsembleClassifier": "classlabels_int64s"}
"""The attribute of numbers of classes; others call it `classlabels_ints`."""


def number_classes(model: onnx.ModelProto) -> Labels:
    """Make outputs that name classes give their numbers, and remove ZipMap, in place.

    Returns:
        The names of the classes by output: of the numbers, or of the columns of scores.
    """
    labels = _remove_zip_maps(model.graph)
    for output in model.graph.output:
        if output.type.tensor_type.elem_type == _string() and (found := _number(model.graph, output.name)) is not None:
            output.type.tensor_type.elem_type = _int64()
            labels[text_of(output.name)] = found
    if labels:
        # What was noted of inner values is no longer true.
        del model.graph.value_info[:]
    return labels


def _remove_zip_maps(graph: onnx.GraphProto) -> Labels:
    import onnx

    labels: Labels = {}
    outputs = {value.name: value for value in graph.output}
    for node in list(graph.node):
        if node.op_type != "ZipMap" or not node.output or node.output[0] not in outputs:
            continue
        given = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        names = [*(_text(name) for name in given.get("classlabels_strings", ())), *given.get("classlabels_int64s", ())]
        output = outputs[node.output[0]]
        scores = onnx.helper.make_tensor_value_info(output.name, onnx.TensorProto.FLOAT, ["batch", len(names)])
        output.CopyFrom(scores)
        labels[output.name] = tuple(map(str, names))
        node.op_type, node.domain = "Identity", ""
        del node.attribute[:]
    return labels


def _number(graph: onnx.GraphProto, name: str) -> tuple[str, ...] | None:
    """Make what leads to an output give numbers; the names, or None where that cannot be done."""
    makers = {output: node for node in graph.node for output in node.output}
    chain: list[onnx.NodeProto] = []
    while (node := makers.get(name)) is not None and node.op_type in PASSES_ON and node.input:
        if _readers(graph, name) > 1:
            return None
        chain.append(node)
        name = node.input[0]
    if node is None or _readers(graph, name) > 1:
        return None
    labels = _names(graph, node)
    if labels is None:
        return None
    for entry in chain:
        for attribute in entry.attribute:
            if entry.op_type == "Cast" and attribute.name == "to":
                attribute.i = _int64()
    return labels


def _names(graph: onnx.GraphProto, node: onnx.NodeProto) -> tuple[str, ...] | None:
    attributes = {attribute.name: attribute for attribute in node.attribute}
    if node.op_type in CLASSIFIERS and "classlabels_strings" in attributes:
        names = [_text(name) for name in attributes["classlabels_strings"].strings]
        _replace(node, "classlabels_strings", _INTEGERS.get(node.op_type, "classlabels_ints"), range(len(names)))
        return tuple(names)
    if node.op_type == "LabelEncoder" and "values_strings" in attributes:
        values = [_text(name) for name in attributes["values_strings"].strings]
        default = attributes.get("default_string")
        other = "_Unused" if default is None else _text(default.s)
        names = list(dict.fromkeys([*values, other]))
        _replace(node, "values_strings", "values_int64s", [names.index(name) for name in values])
        _replace(node, "default_string", "default_int64", names.index(other))
        return tuple(names)
    if node.op_type == "ArrayFeatureExtractor":
        return _of_array(graph, node.input[0])
    return None


def _of_array(graph: onnx.GraphProto, name: str) -> tuple[str, ...] | None:
    """Replace a constant array of names by one of numbers."""
    import numpy as np
    from onnx import numpy_helper

    tensor = next((entry for entry in graph.initializer if entry.name == name), None)
    if tensor is None or tensor.data_type != _string() or _readers(graph, name) > 1:
        return None
    names = [_text(value) for value in tensor.string_data]
    tensor.CopyFrom(numpy_helper.from_array(np.arange(len(names)).reshape(tuple(tensor.dims)), name))
    return tuple(names)


def _replace(node: onnx.NodeProto, former: str, name: str, value: int | Sequence[int]) -> None:
    import onnx

    kept = [attribute for attribute in node.attribute if attribute.name not in (former, name)]
    del node.attribute[:]
    value = value if isinstance(value, int) else list(value)
    node.attribute.extend([*kept, onnx.helper.make_attribute(name, value)])


def _readers(graph: onnx.GraphProto, name: str) -> int:
    """How often a value is read, as an output too."""
    reads: list[str] = [read for node in graph.node for read in node.input]
    return [*reads, *(value.name for value in graph.output)].count(name)


def _text(name: bytes | str) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else name


def _string() -> int:
    import onnx

    return int(onnx.TensorProto.STRING)


def _int64() -> int:
    import onnx

    return int(onnx.TensorProto.INT64)
