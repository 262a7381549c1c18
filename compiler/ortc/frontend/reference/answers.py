"""What a model answers to texts in PyTorch, by transformers' own pipelines where transformers has one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ortc.frontend.reference.model import Reference
from ortc.frontend.reference.texts import ReferenceTexts, Request
from ortc.plan.processing import AnswerForm, Kind
from ortc.plan.texts import MASK

if TYPE_CHECKING:
    import torch

MOST_WORDS = 12
"""Spans of a window that transformers' question-answering pipeline looks at, for the surest one."""


def reference_answers(texts: ReferenceTexts, requests: Sequence[Request], reference: Reference) -> list[Any]:
    """Return what the model answers to every request by itself, as JSON has it."""
    kind = texts.processing.answer.kind
    if kind in _PIPELINES:
        with warnings.catch_warnings():
            # Pipelines warn about tokenizers without words; what they answer is what is wanted.
            warnings.simplefilter("ignore")
            return _PIPELINES[kind](texts, requests, reference)
    if kind == "span":
        return [_span(texts, request, reference) for request in requests]
    return [_tensor(texts, request, reference) for request in requests]


def labelled_model(form: AnswerForm, reference: Reference) -> Any:
    """Return the model of transformers, with the names of classes that the bundle has."""
    import transformers

    models = (part for part in reference.original.modules() if isinstance(part, transformers.PreTrainedModel))
    model = next(models)
    if form.kind in ("labels", "entities", "boxes", "segments"):
        model.config.id2label = dict(enumerate(form.labels))
    if not model.config.label2id:
        named: dict[Any, Any] = dict(model.config.id2label or {})
        model.config.label2id = {label: index for index, label in named.items()}
    return model


def _classes(texts: ReferenceTexts, requests: Sequence[Request], reference: Reference) -> list[Any]:
    import transformers

    classify: Any = transformers.pipeline(
        "text-classification", model=labelled_model(texts.processing.answer, reference), tokenizer=texts.tokenizer
    )
    found = [classify(dict(one) if isinstance(one, dict) else one, top_k=None, **texts.cuts()) for one in requests]
    return [[{"label": entry["label"], "score": float(entry["score"])} for entry in row] for row in found]


def _entities(texts: ReferenceTexts, requests: Sequence[Request], reference: Reference) -> list[Any]:
    import transformers

    find: Any = transformers.pipeline(
        "token-classification",
        model=labelled_model(texts.processing.answer, reference),
        tokenizer=texts.bounded(),
        aggregation_strategy=texts.processing.answer.aggregation,
    )
    return [[_plain(entry) for entry in find(text)] for text in requests]


def _fillers(texts: ReferenceTexts, requests: Sequence[Request], reference: Reference) -> list[Any]:
    import transformers

    fill: Any = transformers.pipeline(
        "fill-mask", model=labelled_model(texts.processing.answer, reference), tokenizer=texts.tokenizer
    )
    most = texts.processing.answer.top_k
    return [fill(text, top_k=most, tokenizer_kwargs=texts.cuts()) for text in requests]


def _zero_shot(texts: ReferenceTexts, requests: Sequence[Request], reference: Reference) -> list[Any]:
    import transformers

    form = texts.processing.answer
    classify: Any = transformers.pipeline(
        "zero-shot-classification", model=labelled_model(texts.processing.answer, reference), tokenizer=texts.bounded()
    )
    answers = []
    for request in map(_parts, requests):
        found = classify(
            request["text"],
            candidate_labels=request["labels"],
            hypothesis_template=form.hypothesis,
            multi_label=form.multi_label,
        )
        pairs = zip(found["labels"], found["scores"], strict=True)
        answers.append([{"label": label, "score": float(score)} for label, score in pairs])
    return answers


_PIPELINES: Mapping[Kind, Callable[[ReferenceTexts, Sequence[Request], Reference], list[Any]]] = {
    "labels": _classes,
    "entities": _entities,
    "fill-mask": _fillers,
    "zero-shot": _zero_shot,
}


def _plain(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: float(value) if key == "score" else value for key, value in entry.items()}


def _parts(request: Request) -> dict[str, Any]:
    return request if isinstance(request, dict) else {"text": request}


def _run(row: Mapping[str, list[int]], reference: Reference) -> dict[str, torch.Tensor]:
    """Outputs of one row by name, without the axis of rows."""
    import torch

    values = {**row, MASK: [1] * len(row["input_ids"])}
    tensors = tuple(
        torch.tensor([values[tensor.name]], dtype=getattr(torch, tensor.dtype)) for tensor in reference.inputs
    )
    with torch.inference_mode():
        outputs = zip(reference.outputs, reference.module(*tensors), strict=True)
        return {name: value[0] for name, value in outputs}


def _tensor(texts: ReferenceTexts, request: Request, reference: Reference) -> Any:
    form = texts.processing.answer
    (row,) = texts.encoded(request)
    value = _run(row, reference)[form.output]
    return float(value[0]) if form.kind == "score" else value.tolist()


def _span(texts: ReferenceTexts, request: Request, reference: Reference) -> dict[str, Any]:
    """The surest span over all windows, by the rules of the last question-answering pipeline of transformers.

    Spans of the same text add their scores up. A span starts and ends with its words.
    """
    import numpy as np
    from transformers.pipelines.document_question_answering import select_starts_ends

    context, form = _parts(request)["context"], texts.processing.answer
    scores: dict[str, dict[str, Any]] = {}
    encoding = texts.windows(_parts(request))
    for index, window in enumerate(encoding.encodings):
        outputs = _run({"input_ids": window.ids, "token_type_ids": window.type_ids}, reference)
        outside = [
            part != 1 and token != texts.tokenizer.cls_token_id
            for part, token in zip(encoding.sequence_ids(index), window.ids, strict=True)
        ]
        starts, ends, sure, _ = select_starts_ends(
            outputs[form.output].numpy()[None],
            outputs[str(form.ends)].numpy()[None],
            np.array([outside], dtype=np.int64),
            np.ones((1, len(outside)), dtype=np.int64),
            top_k=MOST_WORDS,
        )
        for first, last, score in zip(starts, ends, sure, strict=True):
            start, end = _characters(window, int(first), int(last))
            text = context[start:end]
            entry = scores.setdefault(text.lower(), {"answer": text, "score": 0.0, "start": start, "end": end})
            entry["score"] += float(score)
    empty = {"answer": "", "score": 0.0, "start": 0, "end": 0}
    return max(scores.values(), key=lambda entry: float(entry["score"]), default=empty)


def _characters(window: Any, first: int, last: int) -> tuple[int, int]:
    """Where the words of two tokens start and end in the context; the tokens themselves where they are of no word."""
    words = window.token_to_word(first), window.token_to_word(last)
    if None not in words:
        start, end = (window.word_to_chars(word, 1) for word in words)
        if start is not None and end is not None:
            return int(start[0]), int(end[1])
    return int(window.offsets[first][0]), int(window.offsets[last][1])
