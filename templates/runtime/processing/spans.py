"""Answers to questions: the span of a context that the model points at, as transformers' pipeline chose it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from loading.errors import FormatError, InputError
from numpy.typing import NDArray

from .forms import Arrays, Form, of_tokens
from .padding import Row
from .texts import Texts

QUESTION = ("question", "context")
CANDIDATES = 12
"""Spans of a window that are looked at: the first may start or end in the same words as others."""
LONGEST = 15
"""Most tokens of an answer."""
OUT_OF_REACH = -10_000.0
"""The value of tokens that no answer holds, before softmax."""


class Span(Form):
    """The surest span of a context."""

    places = True

    def __init__(self, settings: Mapping[str, Any], texts: Texts) -> None:
        super().__init__(settings, texts)
        if texts.padding.is_left:
            raise FormatError("questions of a tokenizer that pads on the left are not answered")
        self._ends = str(settings["ends"])

    def rows(self, entry: object, prompt: str | None) -> list[Row]:
        """A row for each window of the context."""
        if not isinstance(entry, Mapping) or set(entry) != set(QUESTION):
            raise InputError(f"the model answers questions. Send an object with {' and '.join(QUESTION)}.")
        question, context = entry[QUESTION[0]], entry[QUESTION[1]]
        rows = self.texts.windows(question, context, prompt)
        if not question or not context:
            raise InputError("the question or the context is empty. Send both.")
        return rows

    def most_rows(self, entry: object) -> int:
        """The windows of a context in which every byte is a token."""
        parts = [entry.get(name) for name in QUESTION] if isinstance(entry, Mapping) else []
        if not parts or not all(isinstance(part, str) for part in parts):
            return 1
        return self.texts.most_windows(str(parts[0]), str(parts[1]))

    def values(self, outputs: Arrays, index: int, row: Row) -> Any:
        """Whether the answer starts at each token, and whether it ends there, as logits [2, tokens]."""
        return np.stack([of_tokens(self.texts, outputs[name][index], row) for name in (self.output, self._ends)])

    def answer(self, entry: Any, rows: Sequence[Row], values: Sequence[Any]) -> dict[str, Any]:
        """{"answer", "score", "start", "end"}; the last two count characters of the context."""
        context, found = str(entry[QUESTION[1]]), list[dict[str, Any]]()
        for row, (starts, ends) in zip(rows, values, strict=True):
            for first, last, score in _best(row, starts, ends, self.texts.vocabulary.first):
                start, end = _characters(row, first, last)
                text = context[start:end]
                same = next((entry for entry in found if entry["answer"].lower() == text.lower()), None)
                if same is None:
                    found.append({"answer": text, "score": score, "start": start, "end": end})
                else:
                    same["score"] += score
        empty = {"answer": "", "score": 0.0, "start": 0, "end": 0}
        return max(found, key=lambda entry: float(entry["score"]), default=empty)


def _best(
    row: Row, starts: NDArray[Any], ends: NDArray[Any], first_token: int | None
) -> Iterator[tuple[int, int, float]]:
    """Places of the first and the last token of likely answers, with their scores."""
    allowed = np.array([part == 1 for part in row.sequence]) | (np.array(row.ids) == first_token)
    before, after = (_probabilities(values, allowed) for values in (starts, ends))
    pairs = np.tril(np.triu(np.outer(before, after)), LONGEST - 1).ravel()
    if len(pairs) > CANDIDATES:
        places = np.argpartition(-pairs, CANDIDATES)[:CANDIDATES]
        places = places[np.argsort(-pairs[places])]
    else:
        places = np.argsort(-pairs)
    for place in places:
        first, last = divmod(int(place), len(row.ids))
        # The first place of a row counts as one of its answers, with the score 0.
        if (allowed[first] or first == 0) and (allowed[last] or last == 0):
            yield first, last, float(pairs[place])


def _probabilities(values: NDArray[Any], allowed: NDArray[Any]) -> NDArray[Any]:
    masked = np.where(allowed, values.astype(np.float64), OUT_OF_REACH)
    found = np.exp(masked - masked.max())
    found /= found.sum()
    found[0] = 0.0
    return np.asarray(found)


def _characters(row: Row, first: int, last: int) -> tuple[int, int]:
    """Where the words of two tokens start and end in the context; the tokens themselves where they are of no word."""
    words = row.words[first], row.words[last]
    context = [at for at, part in enumerate(row.sequence) if part == 1]
    places = [[at for at in context if row.words[at] == wanted] for wanted in words]
    if None in words or not all(places):
        return row.offsets[first][0], row.offsets[last][1]
    return row.offsets[places[0][0]][0], row.offsets[places[1][-1]][1]
