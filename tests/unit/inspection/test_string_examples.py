"""Examples of string inputs, from the strings that a graph knows."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from ortc.inspection.string_examples import MOST, string_examples

ML = {"domain": "ai.onnx.ml"}


def text(name: str, *shape: str | int) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.STRING, shape)


def graph(inputs: list[Any], *nodes: Any, constants: dict[str, Any] | None = None) -> Any:
    stored = [numpy_helper.from_array(np.array(value), name) for name, value in (constants or {}).items()]
    return helper.make_graph(list(nodes), "g", inputs, [], initializer=stored)


def test_texts_are_made_of_a_vocabulary() -> None:
    words = [f"word{number}" for number in range(1000)]
    nodes = (
        helper.make_node("Reshape", ["text", "shape"], ["flat"]),
        helper.make_node("Tokenizer", ["flat"], ["tokens"], domain="com.microsoft"),
        helper.make_node("TfIdfVectorizer", ["tokens"], ["y"], pool_strings=words),
    )
    found = string_examples(graph([text("text", "n", 1)], *nodes))["text"]
    assert found[0] == ""
    assert len(found) == MOST
    assert all(set(str(example).split()) <= set(words) for example in found)
    letters = helper.make_node("TfIdfVectorizer", ["text"], ["y"], pool_strings=["a", "b", "c"])
    assert string_examples(graph([text("text", "n")], letters)) == {"text": ["", "a", "b", "c"]}


def test_columns_have_the_strings_of_what_reads_them() -> None:
    nodes = (
        helper.make_node("Concat", ["a", "b"], ["both"], axis=1),
        helper.make_node("ArrayFeatureExtractor", ["both", "two"], ["c"], **ML),
        helper.make_node("OneHotEncoder", ["c"], ["y"], cats_strings=["x", "y"], **ML),
        helper.make_node("ArrayFeatureExtractor", ["both", "zero"], ["d"], **ML),
        helper.make_node("LabelEncoder", ["d"], ["z"], keys_strings=["p", "q", "r"], **ML),
    )
    made = graph([text("a", "n", 1), text("b", "n", 2)], *nodes, constants={"two": [2], "zero": [0]})
    assert string_examples(made) == {"a": ["p", "q", "r"], "b": [["", "x"], ["", "y"]]}


def test_strings_of_which_nothing_is_known_have_no_examples() -> None:
    assert string_examples(graph([text("a", "n")], helper.make_node("StringConcat", ["a", "a"], ["y"]))) == {}
    assert string_examples(graph([helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])])) == {}
