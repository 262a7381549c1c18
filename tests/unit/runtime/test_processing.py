"""Texts to token ids and back to answers, by the modules that bundles carry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.bundles import runtime_module
from tokenizers import Tokenizer, models, pre_tokenizers, processors

WORDS = {"[PAD]": 9, "[CLS]": 1, "[SEP]": 2, "[UNK]": 0, "a": 3, "b": 4, "c": 5, "query": 6, ":": 7}
INT64 = np.dtype("int64")


def tokenizer(**stored: Any) -> bytes:
    """A tokenizer of words in the frame of BERT."""
    made = Tokenizer(models.WordLevel(WORDS, unk_token="[UNK]"))  # noqa: S106
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    return json.dumps(json.loads(made.to_str()) | stored).encode()


def processing(
    *,
    shape: tuple[str | int, ...] = ("batch", "sequence"),
    bounds: dict[str, tuple[int, int, int]] | None = None,
    inputs: tuple[str, ...] = ("input_ids", "attention_mask", "token_type_ids"),
    kind: str = "embedding",
    labels: tuple[str, ...] = (),
    together: bool = True,
    aggregation: str | None = None,
    **text: Any,
) -> Any:
    settings: dict[str, Any] = {
        "max_length": 6,
        "truncation": "right",
        "padding": {"side": "right", "token": 9, "type": 8},
        "prompt": "",
        "prompts": {"query": "query: "},
        "pairs": False,
        **text,
    }
    document = {
        "format_version": 1,
        "task": "feature-extraction",
        "text": settings,
        "answer": {"kind": kind, "output": "out", "labels": list(labels), "aggregation": aggregation},
    }
    return runtime_module("processing.answers").Processing(
        document,
        tokenizer(),
        dict.fromkeys(inputs, (shape, INT64)),
        {"batch": (1, 2, 1), "sequence": (1, 8, 1)} if bounds is None else bounds,
        together=together,
    )


def rows(made: Any, *texts: Any) -> list[list[int]]:
    return [list(row.ids) for row in made.rows(list(texts))]


def test_texts_are_framed_and_cut() -> None:
    made = processing()
    assert rows(made, "a b", "", "a b c a b c") == [[1, 3, 4, 2], [1, 2], [1, 3, 4, 5, 3, 2]]
    assert rows(processing(truncation="left"), "a b c a b c") == [[1, 5, 3, 4, 5, 2]]
    with pytest.raises(runtime_module("loading.errors").InputError, match="8 tokens, at most 6 are taken"):
        processing(truncation="refuse").rows("a b c a b c")


def test_what_a_tokenizer_stores_of_padding_is_not_used() -> None:
    pads = {"strategy": {"Fixed": 5}, "direction": "Right", "pad_to_multiple_of": None}
    pads |= {"pad_id": 9, "pad_type_id": 0, "pad_token": "[PAD]"}
    cuts = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    texts = runtime_module("processing.texts")
    settings = {"max_length": 6, "truncation": "right", "prompt": "", "prompts": {}}
    settings["padding"] = {"side": "right", "token": 9, "type": 0}
    content = tokenizer(padding=pads, truncation=cuts)
    made = texts.Texts(settings, content, {"input_ids": (1, 6)}, {"input_ids": INT64}, {})
    assert made.row("a b c").ids == (1, 3, 4, 5, 2)


@pytest.mark.parametrize(
    ("side", "ids", "mask", "types"),
    [
        ("right", [[1, 3, 2, 9], [1, 3, 4, 2]], [[1, 1, 1, 0], [1, 1, 1, 1]], [[0, 0, 0, 8], [0, 0, 0, 0]]),
        ("left", [[9, 1, 3, 2], [1, 3, 4, 2]], [[0, 1, 1, 1], [1, 1, 1, 1]], [[8, 0, 0, 0], [0, 0, 0, 0]]),
    ],
)
def test_rows_are_padded_on_their_side(side: str, ids: Any, mask: Any, types: Any) -> None:
    made = processing(padding={"side": side, "token": 9, "type": 8})
    inputs = made.texts.inputs(made.rows(["a", "a b"]))
    assert inputs["input_ids"].tolist() == ids
    assert inputs["attention_mask"].tolist() == mask
    assert inputs["token_type_ids"].tolist() == types


@pytest.mark.parametrize(
    ("shape", "bounds", "expected"),
    [
        (("batch", "sequence"), {"batch": (1, 2, 1), "sequence": (5, 8, 1)}, (1, 5)),
        (("batch", "sequence"), {"batch": (2, 4, 2), "sequence": (1, 8, 4)}, (2, 4)),
        ((1, 8), {}, (1, 8)),
    ],
)
def test_rows_fit_the_axes(shape: Any, bounds: Any, expected: tuple[int, int]) -> None:
    made = processing(shape=shape, bounds=bounds)
    assert made.texts.inputs(made.rows("a"))["input_ids"].shape == expected


def test_prompts_are_put_before_a_text() -> None:
    made = processing(prompt="query: ")
    assert rows(made, "a") == [[1, 6, 7, 3, 2]]
    assert [list(row.ids) for row in made.rows("a", "")] == [[1, 3, 2]]
    assert [list(row.ids) for row in processing().rows("a", "query")] == [[1, 6, 7, 3, 2]]
    # Places in the text do not count the prompt.
    (row,) = processing(prompt="query: ", kind="entities", aggregation="none").rows("a b")
    assert row.offsets[3:5] == ((0, 1), (2, 3))
    with pytest.raises(runtime_module("loading.errors").InputError, match="there is no prompt 'passage'"):
        made.rows("a", "passage")


@pytest.mark.parametrize("text", ["a b", "", "a b c a b c a b c", "\u00e9 [SEP] \U0001f600 query: a"])
@pytest.mark.parametrize("truncation", ["left", "right"])
def test_tokens_are_the_same_with_and_without_their_places(text: str, truncation: str) -> None:
    (plain,), (placed,) = (
        processing(kind=kind, aggregation="none", truncation=truncation).rows(text) for kind in ("labels", "entities")
    )
    assert (plain.ids, plain.types) == (placed.ids, placed.types)
    assert plain.offsets == plain.special == ()
    assert len(placed.offsets) == len(placed.special) == len(placed.ids)


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ("\ud800", "a lone surrogate at character 0"),
        (3, "the request is a int"),
        ([None], "a text is a NoneType"),
        ({"text": "a", "text_pair": "b"}, "single texts, not pairs"),
        ({"text_pair": "a"}, "a pair has"),
    ],
)
def test_what_is_no_text_is_refused(request_: Any, said: str) -> None:
    with pytest.raises(runtime_module("loading.errors").InputError, match=said):
        processing().rows(request_)


@pytest.mark.parametrize("together", [True, False])
def test_answers_come_in_the_order_of_the_texts(together: bool) -> None:
    made, runs = processing(together=together), []

    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        runs.append(inputs["input_ids"].shape)
        return {"out": (inputs["input_ids"] * inputs["attention_mask"]).sum(axis=1, keepdims=True).astype(np.float32)}

    found = made.answer(["a", "a b c", "b"], run)
    assert found.tolist() == [[6.0], [15.0], [7.0]]
    assert runs == ([(2, 5), (1, 3)] if together else [(1, 5), (1, 3), (1, 3)])
    assert made.answer("a", run).tolist() == [6.0]
    assert made.answer([], run) == []


def test_classes_are_sorted_by_their_scores() -> None:
    made = processing(kind="labels", labels=("no", "yes"))
    found = made.answer("a", lambda inputs: {"out": np.array([[0.25, 0.75]])})
    assert found == [{"label": "yes", "score": 0.75}, {"label": "no", "score": 0.25}]


def golden(place: Path, answer: Any, ids: list[int]) -> Path:
    case = {"text": "a", "ids": ids, "types": [0] * len(ids), "answer": answer}
    (place / "answers.json").write_text(json.dumps({"format_version": 1, "cases": [case]}), "utf-8")
    return place / "answers.json"


@pytest.mark.parametrize(
    ("answer", "labels", "ids", "said"),
    [
        ([("yes", 0.9), ("no", 0.1)], ("no", "yes"), [1, 3, 2], None),
        ([("yes", 0.9), ("no", 0.1)], ("yes", "no"), [1, 3, 2], "has cosine"),
        ([("yes", 0.9), ("no", 0.1)], ("no", "maybe"), [1, 3, 2], "has cosine -1"),
        ([("yes", 0.9), ("no", 0.1)], ("no", "yes"), [1, 4, 2], r"expected \[4, 2\] at token 1, found \[3, 2\]"),
    ],
    ids=["same", "permuted labels", "other labels", "other ids"],
)
def test_golden_answers_are_compared(tmp_path: Path, answer: Any, labels: Any, ids: Any, said: str | None) -> None:
    made = processing(kind="labels", labels=labels)
    path = golden(tmp_path, [{"label": name, "score": score} for name, score in answer], ids)
    check = runtime_module("processing.golden").check

    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        return {"out": np.array([[0.1, 0.9]])}

    if said is None:
        assert check(made, path, {"cosine": 0.99999}, run) > 0.99999
        return
    with pytest.raises(runtime_module("loading.errors").GoldenError, match=said):
        check(made, path, {"cosine": 0.99999}, run)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"max_length": 9}, "max_length is 9, the model takes 8 tokens"),
        ({"truncation": "both"}, "truncation"),
        ({"padding": {"side": "up", "token": 0, "type": 0}}, "side of padding"),
        ({"padding": {}}, "is malformed"),
    ],
)
def test_a_malformed_document_is_refused(change: Any, said: str) -> None:
    with pytest.raises(runtime_module("loading.errors").FormatError, match=said):
        processing(**change)
