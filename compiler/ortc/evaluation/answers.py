"""Answers to texts: how close a bundle's are to those of PyTorch, from the text to what its user reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ortc.common.values import Frozen
from ortc.evaluation.report import AnswerCheck
from ortc.execution.worker import Worker


class TextAnswer(Frozen):
    """A text, and what PyTorch answers, as JSON has it."""

    text: str
    answer: Any


def check_answers(expected: Sequence[TextAnswer], worker: Worker) -> AnswerCheck:
    """Have a loaded bundle answer texts, and compare.

    Raises:
        WorkerError: a text cannot be answered.
    """
    found = worker.call("answers", texts=[entry.text for entry in expected])["answers"]
    compared = [(cosine(entry.answer, answer), entry.text) for entry, answer in zip(expected, found, strict=True)]
    least, worst = min(compared)
    return AnswerCheck(texts=len(expected), cosine_min=least, worst=worst)


def cosine(expected: Any, found: Any) -> float:
    """Cosine similarity of two answers of numbers; -1 where they are of different shape or not finite."""
    left, right = np.asarray(expected, dtype=np.float64), np.asarray(found, dtype=np.float64)
    if left.shape != right.shape or not (np.isfinite(left).all() and np.isfinite(right).all()):
        return -1.0
    norms = float(np.linalg.norm(left) * np.linalg.norm(right))
    if norms == 0.0:
        return 1.0 if np.array_equal(left, right) else -1.0
    return min(1.0, float((left * right).sum()) / norms)
