"""What `ortc run` prints of each kind of answer, and how it reads requests of several parts."""

from __future__ import annotations

from typing import Any

import pytest

from ortc.bundle.answering import request_of
from ortc.cli.run import described

GROUP = {"entity_group": "PER", "score": 0.9, "word": "ada", "start": 0, "end": 3}
TOKEN = {"entity": "B-PER", "score": 0.9, "index": 1, "word": "ada", "start": 0, "end": 3}
WORD = {"score": 0.25, "token": 7, "token_str": "tea", "sequence": "a cup of tea"}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (0.5, "0.5000"),
        ([{"label": "yes", "score": 0.75}, {"label": "no", "score": 0.25}], "yes 0.7500, no 0.2500"),
        (
            [{"label": str(place), "score": 0.1} for place in range(6)],
            "0 0.1000, 1 0.1000, 2 0.1000, 3 0.1000, 4 0.1000, …",
        ),
        ([GROUP], "PER 'ada' at 0 to 3, 0.9000"),
        ([TOKEN], "B-PER 'ada' at 0 to 3, 0.9000"),
        ([], "nothing"),
        ({"answer": "ada", "score": 0.5, "start": 2, "end": 5}, "'ada' at 2 to 5, 0.5000"),
        ({"text": "a word"}, "'a word'"),
        ([WORD], "tea 0.2500"),
        ([[WORD], [WORD]], "tea 0.2500 | tea 0.2500"),
        ([[0.5, 0.5], [1.0, 0.0]], "2 tokens, each with a vector of 2 numbers"),
        ([3.0, 4.0], "[3.0000, 4.0000] (2 numbers, length 5.0000)"),
    ],
)
def test_an_answer_is_one_line(answer: Any, said: str) -> None:
    assert described(answer) == said


@pytest.mark.parametrize(
    ("text", "request_"),
    [
        ('{"question": "who?", "context": "ada"}', {"question": "who?", "context": "ada"}),
        ("a text", "a text"),
        ("[1]", "[1]"),
        ('{"question":', '{"question":'),
    ],
)
def test_a_json_object_is_a_request_of_several_parts(text: str, request_: Any) -> None:
    assert request_of(text) == request_


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"y": 0.5, "label": "high", "best": 3}, "y 0.5000, label high, best 3"),
        ({"p": [0.25, 0.5, 0.1, 0.1, 0.05]}, "p [0.2500, 0.5000, 0.1000, 0.1000, …]"),
    ],
)
def test_values_of_a_row_are_one_line(answer: Any, said: str) -> None:
    assert described(answer) == said
