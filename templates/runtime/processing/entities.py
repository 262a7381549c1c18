"""Entities of a text: classes of its tokens, joined to words and groups as transformers' pipeline joins them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from loading.errors import FormatError
from numpy.typing import NDArray

from .forms import Arrays, Form, of_tokens
from .padding import Row
from .texts import Texts

AGGREGATIONS = ("none", "simple", "first", "average", "max")
OUTSIDE = "O"
"""The class of tokens that belong to no entity."""


@dataclass(frozen=True)
class Token:
    """A token of a text with the probabilities of all classes."""

    index: int
    word: str
    start: int
    end: int
    continues: bool
    scores: NDArray[Any]


@dataclass(frozen=True)
class Piece:
    """A token or a word with its class."""

    label: str
    score: float
    word: str
    start: int
    end: int
    index: int = 0

    @property
    def tag(self) -> str:
        """The class without the mark of a first or a further token."""
        return self.label[2:] if self.label.startswith(("B-", "I-")) else self.label


class Entities(Form):
    """Tokens, words or groups of them with a class other than `O`, and where they stand in the text."""

    places = True

    def __init__(self, settings: Mapping[str, Any], texts: Texts) -> None:
        super().__init__(settings, texts)
        self._aggregation = str(settings["aggregation"])
        if self._aggregation not in AGGREGATIONS:
            raise FormatError(f"the aggregation {self._aggregation!r} is unknown")

    def values(self, outputs: Arrays, index: int, row: Row) -> Any:
        """Probabilities [tokens, classes]."""
        return of_tokens(self.texts, outputs[self.output][index], row)

    def answer(self, entry: Any, rows: Sequence[Row], values: Sequence[Any]) -> list[dict[str, Any]]:
        """Entities in the order of the text.

        Without aggregation: tokens as {"entity", "score", "index", "word", "start", "end"}. With one: groups as
        {"entity_group", "score", "word", "start", "end"}. `start` and `end` count characters of the text.
        """
        tokens = list(self._tokens(str(entry), rows[0], values[0]))
        if self._aggregation == "none":
            return [_of_token(piece) for piece in map(self._piece, tokens) if piece.label != OUTSIDE]
        pieces = [self._piece(token) for token in tokens] if self._aggregation == "simple" else self._words(tokens)
        groups = [self._group(group) for group in _grouped(pieces)]
        return [group for group in groups if group["entity_group"] != OUTSIDE]

    def _tokens(self, text: str, row: Row, scores: NDArray[Any]) -> Iterator[Token]:
        for index, (token, (start, end)) in enumerate(zip(row.ids, row.offsets, strict=True)):
            if row.special[index]:
                continue
            word, given = self.texts.vocabulary.token(token), text[start:end]
            if token == self.texts.vocabulary.unknown:
                word, continues = given, False
            elif self.texts.vocabulary.marks_subwords:
                continues = len(word) != len(given)
            else:
                # Without marks of subwords, a token continues a word where no space is before it.
                continues = start > 0 and " " not in text[start - 1 : start + 1]
            yield Token(index, word, start, end, continues, scores[index])

    def _piece(self, token: Token) -> Piece:
        best = int(token.scores.argmax())
        return Piece(self.labels[best], float(token.scores[best]), token.word, token.start, token.end, token.index)

    def _words(self, tokens: Sequence[Token]) -> list[Piece]:
        words: list[list[Token]] = []
        for token in tokens:
            if words and token.continues:
                words[-1].append(token)
            else:
                words.append([token])
        return [self._word(word) for word in words]

    def _word(self, tokens: Sequence[Token]) -> Piece:
        """One class for a word: of its first token, of its surest token, or by the mean of all."""
        if self._aggregation == "first":
            scores = tokens[0].scores
        elif self._aggregation == "max":
            scores = max((token.scores for token in tokens), key=lambda scores: float(scores.max()))
        else:
            scores = np.stack([token.scores for token in tokens]).mean(axis=0)
        best = int(scores.argmax())
        word = self.texts.vocabulary.joined([token.word for token in tokens])
        return Piece(self.labels[best], float(scores[best]), word, tokens[0].start, tokens[-1].end)

    def _group(self, pieces: Sequence[Piece]) -> dict[str, Any]:
        return {
            "entity_group": pieces[0].label.split("-", 1)[-1],
            "score": float(np.mean([piece.score for piece in pieces])),
            "word": self.texts.vocabulary.joined([piece.word for piece in pieces]),
            "start": pieces[0].start,
            "end": pieces[-1].end,
        }


def _grouped(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """Neighbours of the same class; a class that begins with `B-` opens a new group."""
    groups: list[list[Piece]] = []
    for piece in pieces:
        if groups and piece.tag == groups[-1][-1].tag and not piece.label.startswith("B-"):
            groups[-1].append(piece)
        else:
            groups.append([piece])
    return groups


def _of_token(piece: Piece) -> dict[str, Any]:
    found = {"entity": piece.label, "score": piece.score, "index": piece.index}
    return {**found, "word": piece.word, "start": piece.start, "end": piece.end}
