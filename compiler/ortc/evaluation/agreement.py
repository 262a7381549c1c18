"""How far two answers agree in what they name, by the rules that a bundle's self-test goes by."""

from __future__ import annotations

from typing import Any, Literal, get_args

from ortc.common.bundle_runtime import runtime_module
from ortc.plan.processing import Kind

Shares = tuple[float, float, float]
"""What both answers name, what the expected one names, and what the found one names."""
AnswerGate = Literal["answer_f1", "answer_top1", "answer_token_errors"]
SPELLING: AnswerGate = "answer_token_errors"
"""The gate whose number is 1 less the agreement."""
LABELS, TRANSCRIPT = "labels", "transcript"


def gate_of_kind(kind: Kind) -> AnswerGate | None:
    """The gate that says how far answers agree, besides their scores; None of kinds that name nothing."""
    gates: dict[str | None, AnswerGate] = {gate.removeprefix("answer_"): gate for gate in get_args(AnswerGate)}
    return gates.get(_rules().MEASURES.get(kind))


def shares(kind: Kind, expected: Any, found: Any) -> Shares:
    """What two answers of one kind name; see `shares` of templates/runtime/processing/agreement.py."""
    counted: Shares = _rules().shares(kind, expected, found)
    return counted


def f1(found: Shares) -> float:
    """The harmonic mean of precision and recall; 1 where neither answer names anything."""
    return float(_rules().f1(found))


def similar(kind: Kind, expected: Any, found: Any) -> float:
    """Cosine similarity of two answers of one kind; of named things, of the scores that both have, and 1."""
    return float(_rules().similar(kind, expected, found))


def certainty(kind: Kind, answer: Any) -> float:
    """The least score of what an answer names, of labels the lead of the first one; 0 where it names nothing.

    A transcript has no score: one that holds text is as sure as another.
    """
    if kind == LABELS:
        first, *others = (float(entry["score"]) for entry in answer)
        return first - max(others, default=0.0)
    if kind == TRANSCRIPT:
        return float(bool(answer["text"]))
    if kind == "segments":
        return min(float(_rules().pixels(entry["mask"]).mean()) for entry in answer)
    if kind == "fill-mask":
        return min(float(place[0]["score"]) for place in _rules().places(answer))
    return min(
        (float(entry["score"]) for entry in (answer if kind in ("entities", "boxes") else [answer])), default=0.0
    )


def _rules() -> Any:
    return runtime_module("processing.agreement")
