"""Answers to requests: how close a bundle's are to those of PyTorch, from the request to what its user reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ortc.common.values import Frozen
from ortc.evaluation.agreement import Shares, f1, gate_of_kind, shares, similar
from ortc.evaluation.details import SampleAnswer, shown_answer, shown_request
from ortc.evaluation.report import AnswerCheck
from ortc.execution.worker import Worker
from ortc.plan.processing import Kind, Unit

_SHOWN = 5
"""Answers that a report shows beside PyTorch's."""


class TextAnswer(Frozen):
    """A request of texts, or the path of a file with its name, and what PyTorch answers, as JSON has it."""

    text: str | dict[str, Any]
    answer: Any
    kind: Kind = "embedding"
    name: str | None = None
    unit: Unit = "texts"
    cuts: tuple[int, ...] = ()
    """Sizes that a request may cut the answer's vector to: each is compared."""

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
    close = [_closeness(entry, answer) for entry, answer in pairs]
    least, worst = min((closeness, entry.shown) for closeness, (entry, _) in zip(close, pairs, strict=True))
    check = AnswerCheck(texts=len(expected), unit=expected[0].unit, cosine_min=least, worst=worst)
    if (gate := gate_of_kind(kind)) is None:
        return check.model_copy(update={"furthest": _furthest(pairs, close, None)})
    counts: list[Shares] = [shares(kind, entry.answer, answer) for entry, answer in pairs]
    both, named, other = (sum(column) for column in zip(*counts, strict=True))
    furthest = min(zip(map(f1, counts), (entry.shown for entry in expected), strict=True))
    return check.model_copy(
        update={
            "gate": gate,
            "agreement": f1((both, named, other)),
            "named": int(named),
            "worst": worst if furthest[0] == 1 else furthest[1],
            "furthest": _furthest(pairs, close, [f1(entry) for entry in counts]),
        }
    )


def _furthest(
    pairs: Sequence[tuple[TextAnswer, Any]], close: Sequence[float], agreement: Sequence[float] | None
) -> tuple[SampleAnswer, ...]:
    """The answers that are furthest from PyTorch's, those first that name another thing."""

    def distance(index: int) -> tuple[float, float, int]:
        return 1.0 if agreement is None else agreement[index], close[index], index

    return tuple(
        SampleAnswer(
            request=shown_request(pairs[index][0].shown),
            expected=shown_answer(pairs[index][0].answer),
            found=shown_answer(pairs[index][1]),
            cosine=close[index],
            agreement=None if agreement is None else agreement[index],
        )
        for index in sorted(range(len(pairs)), key=distance)[:_SHOWN]
    )


def _closeness(entry: TextAnswer, found: Any) -> float:
    """The least similarity of an answer and of every vector that it may be cut to."""
    whole = similar(entry.kind, entry.answer, found)
    return min([whole, *(similar(entry.kind, entry.answer[:size], found[:size]) for size in entry.cuts)])
