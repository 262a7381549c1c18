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
from tests.support.bundles import runtime_module
from tests.support.make_sentence_models import tokenizer

from ortc.common.errors import StageError
from ortc.frontend.reference import huggingface
from ortc.frontend.reference.model import Reference
from ortc.frontend.reference.texts import ReferenceTexts
from ortc.frontend.samples.odd_texts import PLAIN_TEXTS, odd_texts
from ortc.inspection.repository import of_directories
from ortc.plan.plan import AxisPlan, ExportPlan
from ortc.plan.texts import answer_form
from ortc.spec.model_sources import HuggingFaceSource

LENGTH = 16
TEXTS = tuple(text[:2000] for text in (*PLAIN_TEXTS, *odd_texts(("[SEP]",), 90)[2:44]))
CLASSES = {0: "negative", 1: "neutral", 2: "positive"}


@pytest.fixture(autouse=True)
def _gradients() -> Iterator[None]:
    """Loading a model switches gradients off for the whole process."""
    with torch.inference_mode(False), torch.set_grad_enabled(torch.is_grad_enabled()):
        yield


def make(place: Path, **config: Any) -> Path:
    """A tiny seeded classifier with its tokenizer."""
    place.mkdir()
    words = tokenizer()
    words.save(str(place / "tokenizer.json"))
    fields = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    settings = transformers.BertConfig(
        vocab_size=words.get_vocab_size(), max_position_embeddings=32, **fields, **config
    )
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification(settings)
    with torch.no_grad():
        for value in model.parameters():
            value.mul_(6.0)  # answers that differ from text to text
    model.save_pretrained(place)
    own = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": LENGTH}
    (place / "tokenizer_config.json").write_text(json.dumps(own), "utf-8")
    return place


def parts(place: Path, **fields: Any) -> tuple[Reference, ReferenceTexts]:
    """The model in PyTorch with what follows it, and its own tokenizer."""
    source = HuggingFaceSource.model_validate({"source": "huggingface", "path": "model", **fields})
    axes = (AxisPlan(name="batch", min=1, typical=1, max=4), AxisPlan(name="sequence", min=1, typical=8, max=LENGTH))
    export = ExportPlan(opset=17, ir_version=8, exporter="auto", axes=axes, inputs=None, outputs=None)
    torch.set_grad_enabled(False)
    reference = huggingface.load(source, place, export)
    form = answer_form(source, export, of_directories((place,)))
    assert form is not None
    names = [tensor.name for tensor in reference.inputs]
    return reference, ReferenceTexts(source, place, form, LENGTH, names)


def answers(place: Path, reference: Reference, own: ReferenceTexts, requests: list[Any]) -> list[Any]:
    """What a bundle's processing answers, with PyTorch in the place of the graph."""
    module = runtime_module("processing.answers")
    own.write(place / "ready.json")
    made = module.Processing(
        own.processing.model_dump(mode="json"),
        (place / "ready.json").read_bytes(),
        {tensor.name: (tensor.shape, np.dtype(tensor.dtype)) for tensor in reference.inputs},
        {"batch": (1, 4, 1), "sequence": (1, LENGTH, 1)},
        together=True,
    )

    def run(inputs: dict[str, Any]) -> dict[str, Any]:
        found = reference.module(*(torch.from_numpy(inputs[tensor.name]) for tensor in reference.inputs))
        return {name: value.numpy() for name, value in zip(reference.outputs, found, strict=True)}

    found: list[Any] = module.plain(made.answer(requests, run))
    return found


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
    judged = own.answers(requests[:3], reference)
    assert [[entry["label"] for entry in row] for row in judged] == [[e["label"] for e in row] for row in found[:3]]


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
