"""Answers to texts and images: how close a bundle's are to those of PyTorch, from the text to what its user reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ortc.common.arrays import Array
from ortc.common.values import Frozen
from ortc.evaluation.agreement import GATES, LABELS, common_scores, f1, shares
from ortc.evaluation.report import AnswerCheck
from ortc.execution.worker import Worker
from ortc.plan.processing import Kind


class TextAnswer(Frozen):
    """A request of texts, or the path of an image with its name, and what PyTorch answers, as JSON has it."""

    text: str | dict[str, Any]
    answer: Any
    kind: Kind = "embedding"
    name: str | None = None

    @property
    def shown(self) -> str:
        """The request as messages name it."""
        return str(self.text) if self.name is None else self.name


def check_answers(expected: Sequence[TextAnswer], worker: Worker) -> AnswerCheck:
    """Have a loaded bundle answer texts, and compare.

    Raises:
        WorkerError: a text cannot be answered.
    """
    found = worker.call("answers", texts=[entry.text for entry in expected])["answers"]
    return compare_answers(expected, found)


def compare_answers(expected: Sequence[TextAnswer], found: Sequence[Any]) -> AnswerCheck:
    """Compare answers to the same texts with PyTorch's; at least one."""
    kind, pairs = expected[0].kind, list(zip(expected, found, strict=True))
    least, worst = min((similar(kind, entry.answer, answer), entry.shown) for entry, answer in pairs)
    unit = "texts" if expected[0].name is None else "images"
    check = AnswerCheck(texts=len(expected), unit=unit, cosine_min=least, worst=worst)
    if (gate := GATES.get(kind)) is None:
        return check
    counts = [shares(kind, entry.answer, answer) for entry, answer in pairs]
    both, named, other = (sum(column) for column in zip(*counts, strict=True))
    furthest = min(zip(map(f1, counts), (entry.shown for entry in expected), strict=True))
    return check.model_copy(
        update={
            "gate": gate,
            "agreement": f1((both, named, other)),
            "named": int(named),
            "worst": worst if furthest[0] == 1 else furthest[1],
        }
    )


def similar(kind: Kind, expected: Any, found: Any) -> float:
    """Cosine similarity of two answers of one kind; of named things, of the scores that both have, and 1."""
    if kind not in GATES or kind == LABELS:
        return cosine(expected, found)
    left, right = common_scores(kind, expected, found)
    return cosine([*left, 1.0], [*right, 1.0])


def cosine(expected: Any, found: Any) -> float:
    """Cosine similarity of two answers; -1 where they are of different shape, of other labels, or not finite.

    Scores of classes are compared in the order of their labels. A single score x is compared as (x, 1): the cosine of
    one number alone is its sign.
    """
    if labels_of(expected) != labels_of(found):
        return -1.0
    left, right = numbers(expected), numbers(found)
    if left.shape != right.shape or not (np.isfinite(left).all() and np.isfinite(right).all()):
        return -1.0
    norms = float(np.linalg.norm(left) * np.linalg.norm(right))
    if norms == 0.0:
        return 1.0 if np.array_equal(left, right) else -1.0
    return min(1.0, float((left * right).sum()) / norms)


def labels_of(answer: Any) -> list[str] | None:
    """The labels of an answer of classes, sorted; None for other answers."""
    if isinstance(answer, list) and answer and isinstance(answer[0], dict):
        return sorted(entry["label"] for entry in answer)
    return None


def numbers(answer: Any) -> Array:
    """The numbers of an answer, float64."""
    if labels_of(answer) is not None:
        scores = [entry["score"] for entry in sorted(answer, key=lambda entry: str(entry["label"]))]
        answer = scores[0] if len(scores) == 1 else scores
    return np.asarray([answer, 1.0] if isinstance(answer, float | int) else answer, dtype=np.float64)
