"""Requests that a bundle of each kind of answers is judged by, made of texts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from ortc.evaluation.agreement import certainty, gate_of_kind
from ortc.plan.processing import AnswerForm

ODD_PAIRS, SAMPLE_PAIRS = 60, 8
"""Odd texts and sample texts that are also compared as pairs, where a bundle takes pairs."""
CONTEXT, WORDS = 3, 4
"""Sample texts that are the context of a question, and words of a sample text that are a question."""
QUESTION = "What is it?"
CANDIDATES = ("business", "travel", "music", "sport")
"""Labels of zero-shot requests, where the spec names none."""
GOLDEN_ANSWERS = 3
"""Texts with an answer that travel with a bundle: they are answered at every full start."""
Request = str | dict[str, Any]


def requests(
    form: AnswerForm, lines: Sequence[str], odd: Sequence[str], *, pairs: bool, mask: str | None
) -> tuple[list[Request], list[Request]]:
    """Return odd requests, of which token ids are compared, and sample requests, which are answered.

    Args:
        form: how the bundle answers.
        lines: sample texts.
        odd: texts that show whether two tokenizers are the same.
        pairs: whether the bundle takes pairs of texts.
        mask: the text of the mask token, where the kind of answer needs one.
    """
    # Texts that are all cut at the same length would hide how shorter ones are padded, and one may be run alone.
    words = lines[0].split()
    short = words[0]
    lines = [*lines, short, " ".join(words[:2])]
    if form.kind == "span":
        return [asked(QUESTION, text) for text in odd if text], _questions(lines)
    if form.kind == "zero-shot":
        labels = form.labels or CANDIDATES
        return [_labelled(text, labels[:1]) for text in odd], [_labelled(text, labels) for text in lines]
    if form.kind == "fill-mask":
        return list(odd), [masked(text, str(mask)) for text in lines]
    if not pairs:
        return list(odd), list(lines)
    strange = [paired(one, other) for one, other in itertools.pairwise(odd)]
    plain = [paired(short, short), *(paired(one, other) for one, other in itertools.pairwise([*lines, lines[0]]))]
    if form.kind == "score":
        return [*strange], [*plain]
    return [*odd, *strange[:ODD_PAIRS]], [*lines, *plain[:SAMPLE_PAIRS]]


def paired(text: str, other: str) -> dict[str, Any]:
    """A pair of texts, as requests have it."""
    return {"text": text, "text_pair": other}


def asked(question: str, context: str) -> dict[str, Any]:
    """A question, as requests have it."""
    return {"question": question, "context": context}


def masked(text: str, mask: str) -> str:
    """A text with the mask token in the place of its second word."""
    if mask in text:
        return text
    words = text.split()
    return " ".join([*words[:1], mask, *words[2:]])


def _questions(lines: Sequence[str]) -> list[Request]:
    """The first words of every line ask about the lines after it: contexts of more than one window are among them."""
    return [
        asked(
            " ".join(line.split()[:WORDS]), " ".join(lines[(place + 1 + step) % len(lines)] for step in range(CONTEXT))
        )
        for place, line in enumerate(lines)
    ]


def _labelled(text: str, labels: Sequence[str]) -> dict[str, Any]:
    return {"text": text, "labels": list(labels)}


def golden_texts(content: dict[str, Any], form: AnswerForm) -> list[dict[str, Any]]:
    """Texts that travel with a bundle: a few samples with answers, and odd ones that show how texts are cut.

    Where answers agree or not, the surest are taken: an answer near another one may change at reduced precision.
    """
    short = sorted(content["samples"], key=lambda row: len(row["ids"]))
    step = max(1, len(short) // GOLDEN_ANSWERS)
    chosen = short[::step][:GOLDEN_ANSWERS]
    if gate_of_kind(form.kind) is not None:
        surest = sorted(short, key=lambda row: -certainty(form.kind, row["answer"]))
        chosen = surest[:GOLDEN_ANSWERS]
        # Rows of one length need no padding, and do not show its side.
        others = [row for row in surest if len(row["ids"]) != len(chosen[0]["ids"])]
        if others and all(len(row["ids"]) == len(chosen[0]["ids"]) for row in chosen):
            chosen[-1] = others[0]
    odd = content["odd"]
    longest = sorted(odd, key=lambda row: -len(row["ids"]))[:1]
    marked = next((row for row in odd if "before" in str(row["text"])), None)
    plain = [row for row in (*odd[:1], marked, *odd[16:20], *longest, *odd[-1:]) if row is not None]
    return [*chosen, *({**row, "answer": None} for row in plain)]
