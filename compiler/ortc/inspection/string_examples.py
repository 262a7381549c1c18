"""Strings that the graph of an ONNX file knows, as examples of its string inputs.

Synthetic inputs of other strings would say little: to an encoder they are all unknown, and some encoders refuse them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ortc.inspection.onnx_interface import text_of

if TYPE_CHECKING:
    import onnx

Example = str | list[str]
MOST = 16
"""Most examples of an input."""
_WORDS = 6
"""Words of a text."""
_LONGEST = 200
"""Most characters of a string that is taken."""
_KNOWN = {
    "TfIdfVectorizer": "pool_strings",
    "LabelEncoder": "keys_strings",
    "OneHotEncoder": "cats_strings",
    "CategoryMapper": "cats_strings",
    "DictVectorizer": "string_vocabulary",
}
"""Operators that know strings, and their attributes for them."""
_PASSES_ON = ("Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "StringNormalizer", "Tokenizer", "RegexReplace")
_Column = tuple[str, int]
"""A column of an input."""


def string_examples(graph: onnx.GraphProto) -> dict[str, list[Example]]:
    """Examples of the string inputs of a graph by their names; none for an input of which the graph knows no string.

    Of an input with several columns an example is a list, with a string that is known of each column.
    """
    known: dict[_Column, list[str]] = {}
    for column, words in _known(graph):
        known.setdefault(column, list(dict.fromkeys(words)))
    found: dict[str, list[Example]] = {}
    for name, width in _inputs(graph).items():
        columns = [known.get((name, index), []) for index in range(width)]
        if not any(columns):
            continue
        rows = [[words[row % len(words)] if words else "" for words in columns] for row in range(MOST)]
        rows = list(map(list, dict.fromkeys(map(tuple, rows))))
        found[name] = [row[0] for row in rows] if width == 1 else [list(row) for row in rows]
    return found


def _inputs(graph: onnx.GraphProto) -> dict[str, int]:
    """String inputs by name, with their numbers of columns."""
    stored = {tensor.name for tensor in graph.initializer}
    found = {}
    for value in graph.input:
        tensor = value.type.tensor_type
        if tensor.elem_type == 8 and value.name not in stored:
            sizes = [dim.dim_value if dim.HasField("dim_value") else 1 for dim in tensor.shape.dim]
            found[text_of(value.name)] = max(1, sizes[-1]) if len(sizes) > 1 else 1
    return found


def _known(graph: onnx.GraphProto) -> Iterator[tuple[_Column, list[str]]]:
    """Columns of inputs, and the strings that an operator which reads them knows."""
    columns = {name: [(name, index) for index in range(width)] for name, width in _inputs(graph).items()}
    picks = _indices(graph)
    for node in graph.node:
        read = [columns.get(text_of(name), []) for name in node.input]
        if not any(read):
            continue
        if (attribute := _KNOWN.get(node.op_type)) is not None:
            words = _strings(node, attribute)
            made = _texts(words) if node.op_type == "TfIdfVectorizer" else words
            yield from ((column, made[:MOST]) for column in read[0] if made)
            continue
        passed = read[0]
        if node.op_type == "Concat":
            passed = [column for part in read for column in part]
        elif node.op_type in ("ArrayFeatureExtractor", "Gather") and len(node.input) > 1:
            picked = picks.get(node.input[1], [])
            passed = [passed[index] for index in picked if -len(passed) <= index < len(passed)]
        elif node.op_type == "Split" and len(node.output) > 1:
            for name, column in zip(node.output, passed, strict=False):
                columns[text_of(name)] = [column]
            continue
        elif node.op_type not in _PASSES_ON:
            continue
        columns[text_of(node.output[0])] = passed


def _indices(graph: onnx.GraphProto) -> dict[str, Sequence[int]]:
    """Constant whole numbers by name, a few each."""
    from onnx import numpy_helper

    tensors = {text_of(tensor.name): tensor for tensor in graph.initializer}
    for node in graph.node:
        held = [attribute.t for attribute in node.attribute if attribute.name == "value"]
        if node.op_type == "Constant" and held:
            tensors[text_of(node.output[0])] = held[0]
    return {
        name: numpy_helper.to_array(tensor).ravel().tolist()
        for name, tensor in tensors.items()
        if tensor.data_type in (6, 7) and len(tensor.dims) <= 2 and max(tensor.dims, default=1) <= 4096
    }


def _strings(node: onnx.NodeProto, attribute: str) -> list[str]:
    held = next((entry.strings for entry in node.attribute if entry.name == attribute), ())
    found = (value.decode("utf-8", "replace").replace("\0", "") for value in held)
    return [text for text in found if len(text) <= _LONGEST]


def _texts(words: Sequence[str]) -> list[str]:
    """Texts of a vocabulary: a few words each, from all over it, and one without a word."""
    single = [word for word in dict.fromkeys(words) if word.strip()]
    step = max(1, len(single) // (MOST * _WORDS))
    spread = single[::step][: (MOST - 1) * _WORDS]
    between = "" if all(len(word) == 1 for word in single) else " "
    count = min(_WORDS, max(1, len(spread) // 4))
    return ["", *(between.join(spread[start : start + count]) for start in range(0, len(spread), count))]
