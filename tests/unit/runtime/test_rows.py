"""Answers to rows of numbers: names of classes with scores, or values by the names of outputs."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support import bundles
from tests.support.bundles import runtime_module

loader = runtime_module("loader")
columns = runtime_module("loading.columns")
rows = runtime_module("loading.rows")
requests = runtime_module("serving.answer_requests")
errors = runtime_module("serving.errors")
texts = runtime_module("serving.texts")
served = runtime_module("serving.rows")
InputError = loader.InputError
NAMES = ("low", "middle", "high")


def tensor(name: str, dtype: str, *shape: Any, labels: tuple[str, ...] | None = None) -> Any:
    return loader.Tensor(name, np.dtype(dtype), shape, labels=labels)


SCORES = tensor("scores", "float32", "batch", None, labels=NAMES)
CHOICE = tensor("label", "int64", None, labels=NAMES)
X = tensor("x", "float32", "batch", 3)


def processing(
    *outputs: Any, inputs: Any = (X,), bounds: tuple[int, int, int] = (1, 4, 1), together: bool = True
) -> Any:
    return rows.RowProcessing(inputs, outputs, {"batch": bounds}, together=together)


def classify(inputs: Any) -> Any:
    """Scores are the columns, and the choice is the class of the lowest one."""
    x = inputs["x"]
    return {"scores": x, "label": x.argmin(axis=1)}


def test_a_row_is_answered_with_the_models_own_choice_first() -> None:
    made = processing(CHOICE, SCORES)
    assert made.kind == "labels"
    found = made.answer([1, 0.25, 0.5], classify)
    assert found == [
        {"label": "middle", "score": 0.25},
        {"label": "low", "score": 1.0},
        {"label": "high", "score": 0.5},
    ]
    assert made.answer({"x": [1, 0.25, 0.5]}, classify) == found
    assert made.answer(np.array([1, 0.25, 0.5]), classify) == found
    assert made.answer([[1, 0.25, 0.5], (0, 1, 1)], classify)[0] == found
    assert made.answer(np.ones((2, 3)), classify)[1][0] == {"label": "low", "score": 1.0}
    assert made.answer([], classify) == []


def test_numbers_of_classes_without_names_are_their_names() -> None:
    made = processing(tensor("label", "int64", "batch", 1), tensor("scores", "float32", "batch", 2, labels=("7", "9")))
    found = made.answer([1, 2, 3], lambda _: {"label": np.array([[9]]), "scores": np.array([[0.5, 0.5]])})
    assert [entry["label"] for entry in found] == ["9", "7"]


def test_outputs_without_names_of_classes_are_values_by_name() -> None:
    outputs = (tensor("y", "float32", "batch", 1), tensor("p", "float32", "batch", 2), tensor("all", "float32", 7))
    made = processing(*outputs, CHOICE)
    given = {
        "y": np.array([[0.5]]),
        "p": np.array([[0.25, 0.75]]),
        "label": np.array([2]),
        "all": np.zeros(7),
    }
    assert made.kind == "values"
    assert made.answer([1, 2, 3], lambda _: given) == {"y": 0.5, "p": [0.25, 0.75], "label": "high"}


@pytest.mark.parametrize(
    ("bounds", "together", "sizes"),
    [((1, 4, 1), True, [4, 1]), ((1, 4, 1), False, [1] * 5), ((3, 4, 1), True, [4, 3]), ((2, 5, 2), True, [4, 2])],
)
def test_rows_share_runs_of_the_sizes_that_the_model_takes(
    bounds: tuple[int, int, int], together: bool, sizes: list[int]
) -> None:
    found = []

    def run(inputs: Any) -> Any:
        found.append(len(inputs["x"]))
        assert inputs["x"].dtype == np.float32
        return classify(inputs)

    given = [[index, 9, 9] for index in range(5)]
    answers = processing(CHOICE, SCORES, bounds=bounds, together=together).answer(given, run)
    assert [answer[0]["score"] for answer in answers] == [0, 1, 2, 3, 4]
    assert found == sizes


COLUMNS = (tensor("age", "int64", "batch", 1), tensor("is_new", "bool", "batch", 1), tensor("x", "float32", "batch", 2))


def test_columns_are_sent_by_name_or_in_their_order() -> None:
    made = processing(CHOICE, SCORES, inputs=COLUMNS)
    row = made.row({"x": [1, 2.5], "age": 3, "is_new": True})
    assert {name: array.tolist() for name, array in row.items()} == {"age": [3], "is_new": [True], "x": [1, 2.5]}
    assert [array.dtype.name for array in row.values()] == ["int64", "bool", "float32"]
    listed = made.row([3, True, 1, 2.5])
    assert all(np.array_equal(listed[name], array) for name, array in row.items())
    assert made.example(made.inputs([row])) == {"age": 3, "is_new": True, "x": [1.0, 2.5]}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ([3, True, 1], "a row has 3 values. Expected a list of 4 values, or an object with age, is_new, x."),
        ("3,1", "the request is a str. Expected a list of 4 values"),
        ([["a"]], "a row has 1 values"),
        ([[[1], True, 1, 2]], r"column 'age' holds \[1\]. Send a whole number of int64."),
        ([3.5, True, 1, 2], "column 'age' holds 3.5. Send a whole number of int64."),
        ([2**63, True, 1, 2], "column 'age' holds a number beyond int64."),
        ([3, 1, 1, 2], "column 'is_new' holds 1. Send true or false of bool."),
        ([3, True, True, 2], "column 'x' holds True. Send a number of float32."),
        ([3, True, None, 2], "column 'x' holds None. Send a number of float32."),
        ([3, True, "1", 2], "column 'x' holds '1'. Send a number of float32."),
        ([3, True, float("nan"), 2], "column 'x' holds nan. Send a number of float32."),
        ([3, True, 1e300, 2], "column 'x' holds a number beyond float32."),
        ([3, True, 10**400, 2], "column 'x' holds 1000"),
        ({"age": 3, "is_new": True}, "column 'x' is missing. Send a list of 2 numbers."),
        ({"age": 3, "is_new": True, "x": 1}, "column 'x' has 1 values. Send a list of 2 numbers."),
        ({"age": 3, "is_new": True, "x": [1, 2], "agee": 1}, "column 'agee' is unknown.* Did you mean 'age'"),
    ],
)
def test_a_row_that_the_model_cannot_take_is_refused(row: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        processing(CHOICE, SCORES, inputs=COLUMNS).answer(row, classify)


def test_rows_have_neither_prompts_nor_tokens() -> None:
    made = processing(CHOICE, SCORES)
    with pytest.raises(InputError, match="no prompt"):
        made.answer([1, 2, 3], classify, "query")
    with pytest.raises(InputError, match="no tokens"):
        made.rows([1, 2, 3])


@pytest.mark.parametrize(
    ("line", "row"),
    [
        ("5.1, 3,1e-3,true", [5.1, 3, 1e-3, True]),
        ("[1, 2.5]", [1, 2.5]),
        ('{"age": 3}', {"age": 3}),
        ("5", [5]),
        ("red,1", ["red", 1]),
    ],
)
def test_a_line_is_a_row(line: str, row: Any) -> None:
    inputs = [{"name": "x", "dtype": "float32", "shape": ["batch", len(row)]}]
    assert columns.parse_row(line, inputs) == row


COLOUR = {"name": "colour", "dtype": "string", "shape": ["batch", 1]}
SIZE = {"name": "size", "dtype": "float32", "shape": ["batch", 2]}


@pytest.mark.parametrize(
    ("line", "inputs", "row"),
    [
        ("a text, with commas", [COLOUR], "a text, with commas"),
        ("5", [COLOUR], "5"),
        ("[1] see below", [COLOUR], "[1] see below"),
        ('["red"]', [COLOUR], ["red"]),
        ('{"colour": "red"}', [COLOUR], {"colour": "red"}),
        ('{"other": "red"}', [COLOUR], '{"other": "red"}'),
        ("red", [{**COLOUR, "shape": ["batch"]}], "red"),
        ("5,1.5, 2", [COLOUR, SIZE], ["5", 1.5, 2]),
        ('"dark, red",1,2', [COLOUR, SIZE], ["dark, red", 1, 2]),
        ("red,1", [COLOUR, SIZE], ["red", 1]),
        ("", [COLOUR, SIZE], []),
    ],
)
def test_a_line_says_strings_where_columns_hold_them(line: str, inputs: list[dict[str, Any]], row: Any) -> None:
    assert columns.parse_row(line, inputs) == row


def test_a_text_is_a_row_of_one_column_of_strings() -> None:
    text = loader.Tensor("text", np.dtype(str), ("batch",))
    made = processing(tensor("length", "int64", "batch"), inputs=(text,))
    seen: list[Any] = []

    def lengths(inputs: Any) -> Any:
        seen.append(inputs["text"].shape)
        return {"length": np.array([len(value) for value in inputs["text"]])}

    assert made.answer("four", lengths) == {"length": 4}
    assert made.answer(["four", ["three"], {"text": "no"}], lengths) == [{"length": n} for n in (4, 5, 2)]
    assert seen == [(1,), (3,)]
    assert made.example({"text": np.array(["a", "b"])}) == "a"
    for wrong, said in (
        (3, "a row is a int"),
        ([3], "holds 3. Send a string"),
        (["a\0"], "NUL"),
        (["\ud800"], "surrogate"),
    ):
        with pytest.raises(InputError, match=said):
            made.row(wrong)


def test_rows_hold_strings_beside_numbers() -> None:
    inputs = (loader.Tensor("colour", np.dtype(str), ("batch", 1)), tensor("size", "float32", "batch", 2))
    made = processing(tensor("y", "float32", "batch"), inputs=inputs)
    first = made.row(["red", 1, 2.5])
    assert made.row({"size": [1, 2.5], "colour": "red"})["colour"] == first["colour"]
    together = made.inputs([first, made.row(["dark red", 0, 0])])
    assert together["colour"].tolist() == [["red"], ["dark red"]]
    assert together["size"].dtype == np.float32
    assert made.example(together) == {"colour": "red", "size": [1, 2.5]}


def manifest(**changes: Any) -> dict[str, Any]:
    made = {
        "model": {"domains": {"ai.onnx.ml": 3}},
        "inputs": [{"name": "x", "dtype": "float32", "shape": ["batch", 3]}],
        "outputs": [{"name": "y", "shape": [None]}],
    }
    return made | changes


@pytest.mark.parametrize(
    ("changes", "taken"),
    [
        ({}, True),
        ({"model": {"domains": {"": 17}}}, False),
        ({"processing": {"takes": "text"}}, False),
        ({"inputs": [{"name": "x", "dtype": "float32", "shape": ["batch", 3, 3]}]}, False),
        ({"inputs": [{"name": "x", "dtype": "float32", "shape": ["batch", "width"]}]}, False),
        ({"inputs": [{"name": "x", "dtype": "float32", "shape": [1, 3]}]}, True),
        ({"inputs": [{"name": name, "dtype": "bool", "shape": [name, 1]} for name in "ab"]}, False),
        ({"inputs": [COLOUR], "model": {"domains": {"": 17}}}, True),
        ({"inputs": [{**COLOUR, "shape": ["batch"]}]}, True),
        ({"inputs": [{"name": "x", "dtype": "float32", "shape": ["batch"]}]}, False),
        ({"outputs": [{"name": "y", "shape": [7]}]}, False),
        ({"outputs": [{"name": "y", "shape": []}]}, False),
    ],
)
def test_models_of_columns_take_rows(changes: dict[str, Any], taken: bool) -> None:
    assert rows.takes_rows(manifest(**changes)) is taken


def test_a_loaded_bundle_answers_rows(tmp_path: Path) -> None:
    recipe = bundles.linear()
    recipe.manifest["model"]["domains"] = {"": 17, "ai.onnx.ml": 3}
    recipe.manifest["outputs"][0]["labels"] = list(NAMES)
    with loader.Model.load(recipe.write(tmp_path / "bundle")) as model:
        x = recipe.golden[1]["x"]
        expected = model.run({"x": x})
        found = model.answer(x.tolist())
        assert [answer[0]["label"] for answer in found] == [NAMES[place] for place in expected["label"]]
        scores = [{entry["label"]: entry["score"] for entry in answer} for answer in found]
        assert np.allclose([[row[name] for name in NAMES] for row in scores], expected["y"], atol=1e-6)


@pytest.mark.parametrize(
    ("given", "entries"),
    [
        ([1, 2.5], [[1, 2.5]]),
        ([True], [[True]]),
        ([[1, 2.5], {"x": 1}], [[1, 2.5], {"x": 1}]),
        ({"x": 1}, [{"x": 1}]),
        (["a text"], ["a text"]),
        (["red", 1], [["red", 1]]),
    ],
)
def test_a_list_of_numbers_is_one_row_of_a_request(given: Any, entries: Any) -> None:
    assert requests.predict(json.loads(json.dumps({"inputs": given}))).entries == entries


@pytest.mark.parametrize("given", [[], 1, None, [None], ["a", None]])
def test_other_requests_are_refused(given: Any) -> None:
    with pytest.raises(errors.RefusedError, match="inputs"):
        requests.predict({"inputs": given})


def test_models_of_texts_take_no_rows() -> None:
    with pytest.raises(errors.RefusedError, match=r"inputs\[1\] is neither a string nor an object"):
        texts.TextModel.entries(object(), ["a", [1, 2]])


def test_strings_take_memory_by_their_characters() -> None:
    inputs = (loader.Tensor("colour", np.dtype(str), ("batch", 1)), tensor("size", "float32", "batch", 1))
    made = processing(tensor("y", "float32", "batch"), inputs=inputs)
    model = object.__new__(served.RowModel)
    model.processing = made

    def taken(text: str) -> int:
        entries = [[text, 1.0], {"colour": text, "size": 2}]
        columns = model.check_size(entries)
        return int(asyncio.run(model.memory(entries, columns, shaped=False)))

    assert taken("x" * 1000) - taken("") == 2000 * served.TEXT_BYTES
    rows_of = [[made.row([text, 1.0])] for text in ("", "x" * 1000)]
    assert model.kept(rows_of[1]) - model.kept(rows_of[0]) == 1000 * served.TEXT_BYTES
    with pytest.raises(errors.RefusedError, match="at most 65536 characters"):
        model.check_size([["x" * 65537, 1.0]])
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    assert model.check_size([deep]) == 2
    with pytest.raises(InputError, match=r"'colour' holds \[+\.\.\.\]+\. Send a string"):
        made.row([deep, 1.0])
    with pytest.raises(InputError, match=r"'size' holds \[+\.\.\.\]+\. Send a number"):
        made.row(["red", deep])
