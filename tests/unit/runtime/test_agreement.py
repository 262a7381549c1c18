"""What answers name is compared alike by the build and by the self-test of a bundle."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from tests.support.bundles import runtime_module
from tests.support.plans import accuracy

from ortc.build.answer_proof import check_graph
from ortc.common.errors import AccuracyError
from ortc.evaluation.accuracy_gates import accuracy_verdicts
from ortc.evaluation.answers import TextAnswer, compare_answers
from ortc.evaluation.compare import Difference
from ortc.evaluation.report import CaseResult, Check


def entity(label: str, start: int, end: int, score: float = 0.9) -> dict[str, Any]:
    return {"entity_group": label, "score": score, "word": "w", "start": start, "end": end}


def span(start: int, end: int, score: float = 0.5) -> dict[str, Any]:
    return {"answer": "x" * (end - start), "score": score, "start": start, "end": end}


def word(token: int, score: float = 0.5) -> dict[str, Any]:
    return {"score": score, "token": token, "token_str": "w", "sequence": "w"}


def label(name: str, score: float) -> dict[str, Any]:
    return {"label": name, "score": score}


LIMITS = {"cosine": 0.99999, "f1": 0.95, "top1": 0.95, "token_errors": 0.05}
CASES: list[tuple[str, Any, Any, float, bool]] = [
    ("entities", [entity("PER", 0, 3)], [entity("PER", 0, 3)], 1.0, True),
    ("entities", [entity("PER", 0, 3), entity("LOC", 5, 8)], [entity("PER", 0, 3)], 2 / 3, True),
    ("entities", [entity("PER", 0, 3)], [entity("LOC", 0, 3)], 0.0, True),
    ("entities", [entity("PER", 0, 3)], [entity("PER", 0, 4)], 0.0, True),
    ("entities", [entity("PER", 0, 3)], [entity("PER", 0, 3, 0.3)], 1.0, False),
    ("entities", [], [entity("PER", 0, 3)], 0.0, True),
    ("entities", [], [], 1.0, True),
    ("span", span(2, 6), span(2, 6), 1.0, True),
    ("span", span(2, 6), span(4, 8), 0.5, True),
    ("span", span(0, 0), span(0, 0), 1.0, True),
    ("span", span(0, 0), span(0, 2), 0.0, True),
    ("span", span(2, 6), span(2, 6, 0.9), 1.0, False),
    ("fill-mask", [word(3), word(4)], [word(3), word(9)], 1.0, True),
    ("fill-mask", [word(3, 0.5), word(4, 0.4)], [word(4, 0.4), word(3, 0.5)], 0.0, True),
    ("fill-mask", [[word(3)], [word(4)]], [[word(3)], [word(5)]], 0.5, True),
    ("fill-mask", [word(3, 0.1)], [word(3, 0.9)], 1.0, False),
    ("labels", [label("a", 0.6), label("b", 0.4)], [label("a", 0.6), label("b", 0.4)], 1.0, True),
    ("labels", [label("a", 0.6), label("b", 0.4)], [label("b", 0.6), label("a", 0.4)], 0.0, False),
    ("labels", [label("a", 0.6), label("b", 0.4)], [label("a", 0.9), label("b", 0.1)], 1.0, False),
    ("labels", [label("a", 0.5), label("b", 0.5)], [label("b", 0.5), label("a", 0.5)], 1.0, True),
    ("labels", [label("a", 0.51), label("b", 0.49)], [label("b", 0.501), label("a", 0.499)], 0.0, False),
    ("labels", [label("a", 0.6)], [label("c", 0.6)], 0.0, False),
    ("transcript", {"text": "a word"}, {"text": "a word"}, 1.0, True),
    ("transcript", {"text": "a word"}, {"text": "a ward"}, 5 / 6, True),
    ("transcript", {"text": "a word"}, {"text": "the word"}, 0.5, True),
    ("transcript", {"text": "word"}, {"text": ""}, 0.0, True),
    ("transcript", {"text": ""}, {"text": "wo"}, -1.0, True),
    ("transcript", {"text": ""}, {"text": ""}, 1.0, True),
]


@pytest.mark.parametrize(("kind", "expected", "found", "agreement", "scores"), CASES)
def test_both_sides_see_the_same(kind: str, expected: Any, found: Any, agreement: float, scores: bool) -> None:
    judged = TextAnswer.model_validate({"text": "a", "answer": expected, "kind": kind})
    check = compare_answers([judged], [found])
    assert check.agreement == pytest.approx(agreement)
    assert (check.cosine_min > 0.99999) == scores
    module, golden = runtime_module("processing.agreement"), runtime_module("processing.golden")
    assert module.f1(module.shares(kind, expected, found)) == pytest.approx(agreement)
    assert (golden.similar(kind, expected, found) > 0.99999) == scores


@pytest.mark.parametrize(
    ("precision", "given", "agreement", "outcome"),
    [
        ("fp32", {}, 1.0, "pass"),
        ("fp32", {}, 0.99, "fail"),
        ("int8", {}, 0.95, "pass"),
        ("int8", {}, 0.94, "fail"),
        ("int8", {"answer_f1": 0.9}, 0.91, "pass"),
        ("int8", {"answer_top1": 0.9}, 0.91, "fail"),
        ("fp32", {"answer_f1": 0.99}, 0.99, "pass"),
    ],
)
def test_what_answers_name_is_a_gate(precision: str, given: dict[str, Any], agreement: float, outcome: str) -> None:
    judged = TextAnswer(text="a", answer=[entity("PER", 0, 3)], kind="entities")
    answers = compare_answers([judged], [judged.answer]).model_copy(update={"agreement": agreement})
    difference = Difference(output="y", max_abs=0.0, cosine=1.0, relative_error=0.0, top1=1.0)
    check = Check(cases=(CaseResult(case="a", differences=(difference,)),), answers=answers)
    verdicts = accuracy_verdicts(check, precision, accuracy(**given), "linux/amd64", None)
    (found,) = [verdict for verdict in verdicts if verdict.gate == "answer_f1"]
    assert (found.outcome, found.where) == (outcome, "1 texts with 1 answers")


@pytest.mark.parametrize(
    ("precision", "given", "found", "limit", "outcome"),
    [
        ("fp32", {}, "word", 0.0, "pass"),
        ("fp32", {}, "ward", 0.0, "fail"),
        ("int8", {}, "ward", 0.05, "fail"),
        ("int8", {"answer_token_errors": 0.25}, "ward", 0.25, "pass"),
        ("fp32", {"answer_token_errors": 0.2}, "ward", 0.2, "fail"),
    ],
)
def test_token_errors_of_transcripts_are_a_gate(
    precision: str, given: dict[str, Any], found: str, limit: float, outcome: str
) -> None:
    judged = TextAnswer(text="a.wav", name="a.wav", answer={"text": "word"}, kind="transcript", unit="sounds")
    difference = Difference(output="y", max_abs=0.0, cosine=1.0, relative_error=0.0, top1=1.0)
    answers = compare_answers([judged], [{"text": found}])
    check = Check(cases=(CaseResult(case="a", differences=(difference,)),), answers=answers)
    verdicts = accuracy_verdicts(check, precision, accuracy(**given), "linux/amd64", None)
    (verdict,) = [verdict for verdict in verdicts if verdict.gate == "answer_token_errors"]
    assert (verdict.outcome, verdict.where) == (outcome, "1 sounds with 4 answers")
    assert verdict.bound == limit
    with nullcontext() if found == "word" else pytest.raises(AccuracyError, match="answer_token_errors of the exp"):
        check_graph(answers, accuracy())


class Answering:
    """A processing whose token ids are always right."""

    takes, form = "text", None

    def __init__(self, kind: str, answer: Any) -> None:
        self.kind, self._answer = kind, answer

    def rows(self, request: list[Any]) -> list[Any]:
        """One row for each of two labels or windows."""
        row = runtime_module("processing.padding").Row((1, 2), (0, 1), (), (), (), ())
        return [row, row]

    def answer(self, requests: list[Any], run: Any) -> list[Any]:
        return [self._answer for _ in requests]


@pytest.mark.parametrize(("kind", "expected", "found", "agreement", "scores"), CASES)
def test_golden_answers_have_to_agree(
    tmp_path: Path, kind: str, expected: Any, found: Any, agreement: float, scores: bool
) -> None:
    case = {"text": "a", "ids": [1, 2, 1, 2], "types": [0, 1, 0, 1], "answer": expected}
    (tmp_path / "answers.json").write_text(json.dumps({"format_version": 1, "cases": [case]}), "utf-8")
    check, limits = runtime_module("processing.golden").check, dict(LIMITS)
    if agreement == 1 and scores:
        assert check(Answering(kind, found), tmp_path / "answers.json", limits, None) > 0.99999
        return
    said = r"have (f1|top1) 0\.\d{4} to the recorded ones, expected at least 0\.95"
    if kind == "transcript":
        said = rf"have token_errors {1 - agreement:.4f} to the recorded ones, expected at most 0\.05"
    if agreement == 1:
        said = "has cosine"
    with pytest.raises(runtime_module("loading.errors").GoldenError, match=said):
        check(Answering(kind, found), tmp_path / "answers.json", limits, None)
