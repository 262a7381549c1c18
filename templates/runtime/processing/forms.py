"""Kinds of answers: what each takes of a request, and what it makes of the model's outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from loading.errors import InputError
from numpy.typing import NDArray

from .padding import Row
from .texts import Texts

Arrays = dict[str, NDArray[Any]]
PAIR = ("text", "text_pair")
LEAST_NORM = 1e-12


class Form:
    """Answers to single texts, and to pairs of texts where the model reads them.

    Args:
        settings: `answer` of processing.json.
        texts: Makes the model's inputs.
    """

    scores_pairs, of_one_row = False, False
    """Whether requests are pairs alone, and whether the values of one row are all that an answer needs."""
    places = False
    """Whether an answer needs the places of tokens in the text."""

    def __init__(self, settings: Mapping[str, Any], texts: Texts) -> None:
        self.texts = texts
        self.output = str(settings["output"])
        self.labels = tuple(str(label) for label in settings.get("labels", ()))

    def rows(self, entry: object, prompt: str | None) -> list[Row]:
        """The rows of the model's inputs that an entry of a request stands for.

        Raises:
            InputError: the entry is of another form, or a text cannot be encoded.
        """
        if isinstance(entry, Mapping):
            if set(entry) != set(PAIR):
                raise InputError(f"a pair has {sorted(map(str, entry))}. Expected {' and '.join(PAIR)}.")
            if not self.texts.pairs:
                raise InputError("the model takes single texts, not pairs of texts.")
            return [self.texts.row(entry[PAIR[0]], entry[PAIR[1]], prompt)]
        if not isinstance(entry, str):
            raise InputError(f"a text is a {type(entry).__name__}. Expected a string.")
        if self.scores_pairs:
            raise InputError(f"the model scores pairs of texts. Send {' and '.join(PAIR)}.")
        return [self.texts.row(entry, None, prompt)]

    def most_rows(self, entry: object) -> int:
        """How many rows an entry stands for at most, seen without encoding it."""
        del entry
        return 1

    def check(self, rows: Sequence[Row]) -> None:
        """Refuse rows that have no answer, before the model runs.

        Raises:
            InputError: they have none.
        """

    def values(self, outputs: Arrays, index: int, row: Row) -> Any:
        """What the answer needs of one row of the outputs."""
        del row
        return np.array(outputs[self.output][index])

    def answer(self, entry: Any, rows: Sequence[Row], values: Sequence[Any]) -> Any:
        """The answer to an entry, by the values of its rows."""
        raise NotImplementedError


class Embedding(Form):
    """A vector [hidden]."""

    of_one_row = True

    def __init__(self, settings: Mapping[str, Any], texts: Texts) -> None:
        super().__init__(settings, texts)
        self.dimensions = tuple(int(size) for size in settings.get("dimensions") or ())
        self._normalized = bool(settings.get("normalized"))

    def cut(self, vector: NDArray[Any], size: int) -> NDArray[Any]:
        """The first numbers of a vector, of length 1 again where the model's vectors have it."""
        first: NDArray[Any] = vector[:size]
        return first / max(float(np.linalg.norm(first)), LEAST_NORM) if self._normalized else first

    def answer(self, entry: Any, rows: Sequence[Row], values: Sequence[Any]) -> Any:
        """The vector of the text."""
        return values[0]


class TokenEmbeddings(Form):
    """A vector for each token, [tokens, hidden]."""

    of_one_row = True

    def values(self, outputs: Arrays, index: int, row: Row) -> Any:
        """The vectors of the tokens, without those of padding."""
        return of_tokens(self.texts, outputs[self.output][index], row)

    def answer(self, entry: Any, rows: Sequence[Row], values: Sequence[Any]) -> Any:
        """The vectors of the text."""
        return values[0]


class Score(Form):
    """A number for a pair of texts."""

    scores_pairs, of_one_row = True, True

    def answer(self, entry: Any, rows: Sequence[Row], values: Sequence[Any]) -> Any:
        """The score of the pair."""
        return float(values[0][0])


class Labels(Form):
    """All classes with their scores."""

    of_one_row = True

    def answer(self, entry: Any, rows: Sequence[Row], values: Sequence[Any]) -> Any:
        """Classes as {"label", "score"}, the highest score first."""
        scored = [{"label": name, "score": float(score)} for name, score in zip(self.labels, values[0], strict=True)]
        return sorted(scored, key=lambda entry: -entry["score"])


def of_tokens(texts: Texts, values: NDArray[Any], row: Row) -> NDArray[Any]:
    """The values of a row's tokens, without those of padding."""
    return np.array(values[texts.padding.positions(row, len(values))])


def softmax(values: NDArray[Any]) -> NDArray[Any]:
    """Probabilities over the last axis, float64."""
    shifted = np.exp(values.astype(np.float64) - values.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))
