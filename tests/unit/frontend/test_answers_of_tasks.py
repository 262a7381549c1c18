"""Answers of each task equal those of transformers' own pipelines, from the text to the label."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tests.support.answering import LENGTH, TEXTS, answers, make, parts
from tests.support.make_sentence_models import tokenizer
from tokenizers import Tokenizer, processors

from ortc.common.errors import StageError
from ortc.frontend.reference.answers import reference_answers

CLASSES = {0: "negative", 1: "neutral", 2: "positive"}


@pytest.fixture(autouse=True)
def _gradients() -> Iterator[None]:
    """Loading a model switches gradients off for the whole process."""
    with torch.inference_mode(False), torch.set_grad_enabled(torch.is_grad_enabled()):
        yield


@pytest.mark.parametrize(
    ("config", "outputs"),
    [
        ({"id2label": CLASSES}, ("logits", "probabilities")),
        ({"id2label": CLASSES, "problem_type": "multi_label_classification"}, ("logits", "probabilities")),
        ({"id2label": CLASSES, "problem_type": "regression"}, ("logits",)),
        ({"num_labels": 1}, ("logits", "probabilities")),
        ({}, ("logits", "probabilities")),
    ],
    ids=["single label", "multi-label", "regression", "one class", "no names"],
)
def test_classes_are_those_of_the_pipeline(tmp_path: Path, config: dict[str, Any], outputs: tuple[str, ...]) -> None:
    place = make(tmp_path / "model", **config)
    reference, own = parts(place, task="text-classification")
    assert reference.outputs == outputs
    requests: list[Any] = [*TEXTS, {"text": TEXTS[0], "text_pair": TEXTS[1]}]
    assert len(requests) > 50
    found = answers(place, reference, own, requests)
    model = transformers.BertForSequenceClassification.from_pretrained(place)
    words = transformers.AutoTokenizer.from_pretrained(place)
    pipeline: Any = transformers.pipeline("text-classification", model=model, tokenizer=words)
    for request, answer in zip(requests, found, strict=True):
        expected = pipeline(request, top_k=None, truncation=True, max_length=LENGTH)
        assert [entry["label"] for entry in answer] == [entry["label"] for entry in expected]
        scores = ([entry["score"] for entry in answer], [entry["score"] for entry in expected])
        assert np.allclose(*scores, rtol=1e-5, atol=1e-5)
    # The reference that bundles are judged by gives the same.
    judged = reference_answers(own, requests[:3], reference)
    assert [[entry["label"] for entry in row] for row in judged] == [[e["label"] for e in row] for row in found[:3]]


PROCESSORS: dict[str, Any] = {
    "template": processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    ),
    "BERT's": processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2)),
    "none": None,
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_a_tokenizer_that_gives_no_types_gives_none_to_pairs(tmp_path: Path, name: str) -> None:
    words = tokenizer()
    assert [words.token_to_id(token) for token in ("[CLS]", "[SEP]")] == [2, 3]
    stored = {**json.loads(words.to_str()), "post_processor": None}
    words = Tokenizer.from_str(json.dumps(stored))
    if PROCESSORS[name] is not None:
        words.post_processor = PROCESSORS[name]
    given = {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": ["input_ids", "attention_mask"]}
    place = make(tmp_path / "model", words=words, tokens=given, id2label=CLASSES)
    reference, own = parts(place, task="text-classification")
    assert "token_type_ids" in [tensor.name for tensor in reference.inputs]
    pairs = [{"text": one, "text_pair": other} for one, other in zip(TEXTS, reversed(TEXTS), strict=True)]
    found = answers(place, reference, own, pairs)
    model = transformers.BertForSequenceClassification.from_pretrained(place)
    pipeline: Any = transformers.pipeline(
        "text-classification", model=model, tokenizer=transformers.AutoTokenizer.from_pretrained(place)
    )
    for pair, answer in zip(pairs, found, strict=True):
        expected = pipeline(pair, top_k=None, truncation=True, max_length=LENGTH)
        assert [entry["label"] for entry in answer] == [entry["label"] for entry in expected]
        scores = ([entry["score"] for entry in answer], [entry["score"] for entry in expected])
        assert np.allclose(*scores, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "function"),
    [
        ({"num_labels": 1}, torch.sigmoid),
        (
            {"num_labels": 1, "sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}},
            lambda logits: logits,
        ),
    ],
    ids=["sigmoid", "identity"],
)
def test_a_ranking_scores_pairs(tmp_path: Path, config: dict[str, Any], function: Any) -> None:
    place = make(tmp_path / "model", **config)
    reference, own = parts(place, task="text-ranking")
    pairs = [{"text": one, "text_pair": other} for one, other in zip(TEXTS, reversed(TEXTS), strict=True)]
    found = answers(place, reference, own, pairs)
    model = transformers.BertForSequenceClassification.from_pretrained(place)
    words = transformers.AutoTokenizer.from_pretrained(place)
    for pair, score in zip(pairs, found, strict=True):
        row = words(**pair, truncation=True, max_length=LENGTH, return_tensors="pt")
        assert abs(float(function(model(**row).logits[0, 0])) - score) < 1e-4
    with pytest.raises(Exception, match="the model scores pairs of texts"):
        answers(place, reference, own, ["a text"])


@pytest.mark.parametrize(
    ("task", "config", "said"),
    [
        ("text-ranking", {"id2label": CLASSES}, "a ranking has one score, and the model has 3 classes"),
        ("text-ranking", {"num_labels": 1, "sbert_ce_default_activation_function": "mine.Swish"}, "`mine.Swish`"),
    ],
)
def test_what_is_not_reproduced_is_refused(tmp_path: Path, task: str, config: dict[str, Any], said: str) -> None:
    place = make(tmp_path / "model", **config)
    with pytest.raises(StageError, match=said):
        parts(place, task=task)


def test_names_of_classes_come_from_the_spec(tmp_path: Path) -> None:
    place = make(tmp_path / "model", id2label=CLASSES)
    reference, own = parts(place, task="text-classification", interface={"labels": ("bad", "so-so", "good")})
    (answer,) = answers(place, reference, own, ["Great value!"])
    assert {entry["label"] for entry in answer} == {"bad", "so-so", "good"}
    with pytest.raises(StageError, match="2 names of classes are given for 3 classes"):
        parts(place, task="text-classification", interface={"labels": ("bad", "good")})
