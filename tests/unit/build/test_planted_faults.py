"""A fault in what surrounds a model's tensors stops the build and the self-test, each by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support.answering import Change, answered, make, parts, processing, runner
from tests.support.bundles import runtime_module
from tests.support.make_sentence_models import HIDDEN
from tests.support.make_sentence_models import main as make_sentence_model
from tests.support.plans import accuracy

from ortc.build.answer_proof import WrongTokensError, check_graph, check_tokens
from ortc.build.requests import golden_texts, requests
from ortc.common.errors import AccuracyError
from ortc.evaluation.answers import TextAnswer, compare_answers
from ortc.frontend.reference.answers import reference_answers
from ortc.frontend.samples.odd_texts import PLAIN_TEXTS, odd_texts

TAGS = {0: "O", 1: "B-PER", 2: "I-PER", 3: "B-LOC", 4: "I-LOC"}
LIMITS = {"cosine": 0.99999, "f1": 1.0, "top1": 1.0}


@dataclass(frozen=True)
class Made:
    """A model with what it answers, from which a bundle is made."""

    place: Path
    fields: dict[str, Any]
    reference: Any
    own: Any
    rows: list[dict[str, Any]]
    golden: list[dict[str, Any]]


@pytest.fixture(autouse=True)
def _gradients() -> Iterator[None]:
    """Loading a model switches gradients off for the whole process."""
    with torch.inference_mode(False), torch.set_grad_enabled(torch.is_grad_enabled()):
        yield


def made(place: Path, **fields: Any) -> Made:
    """What the build takes down of a model: token ids of odd texts, answers of samples, and golden texts."""
    reference, own = parts(place, **fields)
    form = own.processing.answer
    odd, samples = requests(form, PLAIN_TEXTS, odd_texts(own.special, 80), pairs=False, mask=own.tokenizer.mask_token)
    texts = [*samples, *odd]
    rows = [{"text": text, **row} for text, row in zip(texts, own.rows(texts), strict=True)]
    found = reference_answers(own, samples, reference)
    answered = [{**row, "answer": answer} for row, answer in zip(rows, found, strict=False)]
    golden = golden_texts({"odd": rows[len(samples) :], "samples": answered}, form)
    return Made(place, fields, reference, own, [*answered, *rows[len(samples) :]], golden)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    root = tmp_path_factory.mktemp("faults")
    with torch.inference_mode(False), torch.set_grad_enabled(torch.is_grad_enabled()):
        make_sentence_model(root)
        tagger = make(root / "tagger", "ForTokenClassification", id2label=TAGS)
        return {
            "vectors": made(root / "model", task="feature-extraction"),
            "classes": made(make(root / "classes", id2label=TAGS), task="text-classification"),
            "entities": made(tagger, task="token-classification", interface={"aggregation": "simple"}),
        }


def pooling(document: dict[str, Any], tokenizer: dict[str, Any]) -> None:
    """The graph is changed instead; see `other_pooling`."""


def other_pooling(whole: Made, place: Path) -> Any:
    """The model with the greatest of all tokens in the place of their mean."""
    shutil.copytree(whole.place, place / "model")
    modes = {"word_embedding_dimension": HIDDEN, "pooling_mode_cls_token": True, "pooling_mode_max_tokens": True}
    (place / "model" / "1_Pooling" / "config.json").write_text(json.dumps(modes), "utf-8")
    return parts(place / "model", **whole.fields)[0]


def set_text(**values: Any) -> Change:
    return lambda document, tokenizer: document["text"].update(values)


def padding_side(document: dict[str, Any], tokenizer: dict[str, Any]) -> None:
    document["text"]["padding"]["side"] = "left"


def labels(document: dict[str, Any], tokenizer: dict[str, Any]) -> None:
    document["answer"]["labels"] = document["answer"]["labels"][::-1]


def lower_case(document: dict[str, Any], tokenizer: dict[str, Any]) -> None:
    tokenizer["normalizer"]["lowercase"] = not tokenizer["normalizer"]["lowercase"]


def special_tokens(document: dict[str, Any], tokenizer: dict[str, Any]) -> None:
    tokenizer["post_processor"] = None


def aggregation(document: dict[str, Any], tokenizer: dict[str, Any]) -> None:
    document["answer"]["aggregation"] = "max"


TOKENS = "other token ids than the model's own"
COSINE = "has cosine"
FAULTS: list[tuple[str, str, Change, str]] = [
    ("permuted labels", "classes", labels, f"{COSINE}|top1"),
    ("permuted tags", "entities", labels, "f1"),
    ("other aggregation", "entities", aggregation, "f1"),
    ("other padding side", "vectors", padding_side, COSINE),
    ("other padding side", "classes", padding_side, f"{COSINE}|top1"),
    ("other padding side", "entities", padding_side, "f1|has cosine"),
    ("dropped prompt", "vectors", set_text(prompt=""), TOKENS),
    ("other pooling", "vectors", pooling, COSINE),
    ("flipped lower-casing", "vectors", lower_case, TOKENS),
    ("flipped lower-casing", "entities", lower_case, TOKENS),
    ("other max_length", "classes", set_text(max_length=11), TOKENS),
    ("other truncation", "entities", set_text(truncation="left"), TOKENS),
    ("dropped special tokens", "classes", special_tokens, TOKENS),
    ("dropped special tokens", "entities", special_tokens, TOKENS),
]


@pytest.mark.parametrize(
    ("model", "change", "said"),
    [(model, change, said) for _, model, change, said in FAULTS],
    ids=[f"{name} of {model}" for name, model, *_ in FAULTS],
)
def test_a_planted_fault_is_named(
    models: dict[str, Made], tmp_path: Path, model: str, change: Change, said: str
) -> None:
    whole = models[model]
    reference = other_pooling(whole, tmp_path) if change is pooling else whole.reference
    bundle = processing(whole.place, reference, whole.own, change)
    with pytest.raises((WrongTokensError, AccuracyError), match=said):
        build(whole, bundle, reference)
    with pytest.raises(runtime_module("loading.errors").GoldenError, match=said):
        self_test(whole, bundle, reference, tmp_path)


@pytest.mark.parametrize("model", ["vectors", "classes", "entities"])
def test_without_a_fault_both_pass(models: dict[str, Made], tmp_path: Path, model: str) -> None:
    whole = models[model]
    bundle = processing(whole.place, whole.reference, whole.own)
    build(whole, bundle, whole.reference)
    self_test(whole, bundle, whole.reference, tmp_path)


def build(whole: Made, bundle: Any, reference: Any) -> None:
    """What the build proves of a bundle, with PyTorch in the place of the exported graph."""
    encoded = bundle.encoded([row["text"] for row in whole.rows])
    found = [
        {"ids": [token for row in rows for token in row.ids], "types": [kind for row in rows for kind in row.types]}
        for rows in encoded
    ]
    check_tokens(whole.rows, found)
    kind = whole.own.processing.answer.kind
    judged = [TextAnswer(text=row["text"], answer=row["answer"], kind=kind) for row in whole.rows if row.get("answer")]
    texts = [entry.text for entry in judged]
    check_graph(compare_answers(judged, answered(bundle, reference, texts)), accuracy())


def self_test(whole: Made, bundle: Any, reference: Any, place: Path) -> None:
    """What the loader checks at every start."""
    path = place / "answers.json"
    path.write_text(json.dumps({"format_version": 1, "cases": whole.golden}), "utf-8")
    runtime_module("processing.golden").check(bundle, path, LIMITS, runner(reference))
