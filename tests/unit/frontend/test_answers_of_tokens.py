"""Entities, spans, words for masked places and labels of a request are those of transformers' own pipelines."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tests.support.answering import LENGTH, TEXTS, answers, make, parts
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from ortc.common.errors import StageError
from ortc.evaluation.answers import TextAnswer, compare_answers
from ortc.frontend.reference.answers import reference_answers

TAGS = {0: "O", 1: "B-PER", 2: "I-PER", 3: "B-LOC", 4: "I-LOC", 5: "MISC"}
AGGREGATIONS = ("none", "simple", "first", "average", "max")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@pytest.fixture(autouse=True)
def _gradients() -> Iterator[None]:
    """Loading a model switches gradients off for the whole process."""
    with torch.inference_mode(False), torch.set_grad_enabled(torch.is_grad_enabled()):
        yield


def bytes_tokenizer() -> Tokenizer:
    """A tokenizer of bytes, whose tokens do not mark that they continue a word."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(TEXTS[:8], trainer)
    ids = [made.token_to_id(token) for token in SPECIAL]
    made.post_processor = processors.BertProcessing(("[SEP]", ids[3]), ("[CLS]", ids[2]))
    return made


def pipeline(place: Path, task: str, head: str, **options: Any) -> Any:
    """A pipeline of transformers over the model and the tokenizer of a directory."""
    model = getattr(transformers, f"Bert{head}").from_pretrained(place)
    words = transformers.AutoTokenizer.from_pretrained(place)
    return transformers.pipeline(task, model=model, tokenizer=words, **options)  # type: ignore[call-overload]


def same(found: Any, expected: Any) -> bool:
    """Whether two answers are equal, their scores to 1e-5."""
    if isinstance(expected, dict):
        return set(found) == set(expected) and all(same(found[key], expected[key]) for key in expected)
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(same, found, expected))
    if isinstance(expected, float | np.floating):
        return abs(found - float(expected)) < 1e-5
    return bool(found == expected)


def agreed(kind: str, requests: list[Any], expected: list[Any], found: list[Any]) -> float:
    """The gate of a bundle's answers against those that it is judged by."""
    pairs = zip(requests, expected, strict=True)
    judged = [TextAnswer.model_validate({"text": text, "answer": answer, "kind": kind}) for text, answer in pairs]
    check = compare_answers(judged, found)
    assert check.cosine_min > 0.99999
    assert check.named > 0
    return check.agreement


@pytest.mark.parametrize(
    ("words", "aggregation"),
    [*((None, name) for name in AGGREGATIONS), (bytes_tokenizer, "first"), (bytes_tokenizer, "average")],
)
def test_entities_are_those_of_the_pipeline(tmp_path: Path, words: Any, aggregation: str) -> None:
    tokens = {} if words is None else {"tokenizer_class": "PreTrainedTokenizerFast"}
    place = make(
        tmp_path / "model",
        "ForTokenClassification",
        None if words is None else words(),
        tokens,
        id2label=TAGS,
    )
    fields = {"task": "token-classification", "interface": {"aggregation": aggregation}}
    reference, own = parts(place, **fields)
    assert reference.outputs == ("logits", "probabilities")
    requests = [*TEXTS, TEXTS[0]]
    assert len(requests) > 50
    found = answers(place, reference, own, requests)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        find = pipeline(place, "token-classification", "ForTokenClassification", aggregation_strategy=aggregation)
        expected = [find(text) for text in requests]
    assert sum(map(len, expected)) > 50
    for text, answer, wanted in zip(requests, found, expected, strict=True):
        assert same(answer, wanted), text
    assert agreed("entities", requests[:9], reference_answers(own, requests[:9], reference), found[:9]) == 1


def questions() -> list[Any]:
    """Questions about odd contexts, and about some of more than one window."""
    long = [" ".join(TEXTS[place : place + 3]) for place in range(6)]
    asked = ("guitar", "due", "Station", "two")
    contexts = [text for text in (*TEXTS, *long) if text]
    return [{"question": asked[place % len(asked)], "context": text} for place, text in enumerate(contexts)]


@pytest.mark.parametrize("stride", [None, 0, 3])
def test_spans_are_those_of_the_rules_of_the_pipeline(tmp_path: Path, stride: int | None) -> None:
    """transformers 5 has no such pipeline: the reference takes its functions that choose spans, over its tokenizer."""
    place = make(tmp_path / "model", "ForQuestionAnswering")
    reference, own = parts(place, task="question-answering", interface={"stride": stride, "max_length": 15})
    assert reference.outputs == ("start_logits", "end_logits")
    requests = questions()
    assert len(requests) > 50
    expected = reference_answers(own, requests, reference)
    found = answers(place, reference, own, requests)
    for request, answer, wanted in zip(requests, found, expected, strict=True):
        assert same(answer, wanted), request
        assert request["context"][answer["start"] : answer["end"]] == answer["answer"]
    assert agreed("span", requests, expected, found) == 1
    assert sum(len(own.encoded(request)) > 1 for request in requests) > 5
    with pytest.raises(Exception, match="a text leaves 0 of 15 tokens for the other"):
        answers(place, reference, own, [{"question": "guitar " * 40, "context": "a guitar"}])
    with pytest.raises(Exception, match="the question or the context is empty"):
        answers(place, reference, own, [{"question": "guitar", "context": ""}])


def test_words_for_masked_places_are_those_of_the_pipeline(tmp_path: Path) -> None:
    place = make(tmp_path / "model", "ForMaskedLM")
    reference, own = parts(place, task="fill-mask", interface={"top_k": 4})
    requests = [f"{' '.join(text.split()[:3])} [MASK] {text}" for text in TEXTS]
    requests = [*(text for text in requests if own.processing.text.tokens.mask in own.encoded(text)[0]["input_ids"])]
    requests += ["[MASK]", "a [MASK] is [MASK] .", "[PAD] [MASK] [UNK] !"]
    assert len(requests) >= 50
    found = answers(place, reference, own, requests)
    fill = pipeline(place, "fill-mask", "ForMaskedLM")
    expected = [fill(text, top_k=4, tokenizer_kwargs={"truncation": True, "max_length": LENGTH}) for text in requests]
    for text, answer, wanted in zip(requests, found, expected, strict=True):
        assert same(answer, wanted), text
    assert agreed("fill-mask", requests, reference_answers(own, requests, reference), found) == 1
    with pytest.raises(Exception, match=r"a text has no \[MASK\] among its first 16 tokens"):
        answers(place, reference, own, ["no place"])


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize(
    "classes",
    [{0: "contradiction", 1: "neutral", 2: "entailment"}, {0: "ENTAILMENT", 1: "other"}],
    ids=["last", "first"],
)
def test_labels_of_a_request_are_those_of_the_pipeline(
    tmp_path: Path, multi_label: bool, classes: dict[int, str]
) -> None:
    place = make(tmp_path / "model", id2label=classes, label2id={name: index for index, name in classes.items()})
    template = "It is {}!"
    interface = {"hypothesis": template, "multi_label": multi_label, "labels": ("music", "sport", "the invoice")}
    reference, own = parts(place, task="zero-shot-classification", interface=interface)
    requests: list[Any] = [{"text": text, "labels": ["music", "station"]} for text in TEXTS if text.strip()]
    requests += [*TEXTS[:6], {"text": TEXTS[0], "labels": ["music"]}]
    assert len(requests) > 50
    found = answers(place, reference, own, requests)
    classify = pipeline(place, "zero-shot-classification", "ForSequenceClassification")
    for request, answer in zip(requests, found, strict=True):
        given = {"text": request, "labels": interface["labels"]} if isinstance(request, str) else request
        options = {"candidate_labels": given["labels"], "hypothesis_template": template, "multi_label": multi_label}
        expected = classify(given["text"], **options)
        wanted = zip(expected["labels"], expected["scores"], strict=True)
        assert same(answer, [{"label": label, "score": score} for label, score in wanted]), request
    judged = reference_answers(own, requests[:3], reference)
    assert all(same(answer, wanted) for answer, wanted in zip(found[:3], judged, strict=True))
    for wrong, said in (
        ({"text": "a", "labels": []}, "a request has 0 labels"),
        ({"text": "a", "labels": ["b"], "hypothesis": "{0.x}"}, "characters with one {}"),
        ({"labels": ["b"]}, "Expected text"),
    ):
        with pytest.raises(Exception, match=said):
            answers(place, reference, own, [wrong])


@pytest.mark.parametrize(
    ("task", "head", "tokens", "said"),
    [
        ("zero-shot-classification", "ForSequenceClassification", {}, "no class has a name that begins with `entail`"),
        ("question-answering", "ForQuestionAnswering", {"padding_side": "left"}, "pads on the left"),
        ("fill-mask", "ForMaskedLM", {"mask_token": None}, "the tokenizer has no mask token"),
    ],
)
def test_what_is_not_reproduced_is_refused(
    tmp_path: Path, task: str, head: str, tokens: dict[str, Any], said: str
) -> None:
    place = make(tmp_path / "model", head, tokens=tokens)
    with pytest.raises(StageError, match=said):
        parts(place, task=task)
