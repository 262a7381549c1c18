"""Words for the masked places of a text, with their probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from loading.errors import FormatError, InputError

from .forms import Arrays, Form, of_tokens, softmax
from .padding import Row
from .texts import Texts


class FillMask(Form):
    """The likeliest tokens for each masked place."""

    def __init__(self, settings: Mapping[str, Any], texts: Texts) -> None:
        super().__init__(settings, texts)
        self._most = int(settings["top_k"])
        if texts.vocabulary.mask is None:
            raise FormatError("there is no mask token")
        self._mask = texts.vocabulary.mask

    def check(self, rows: Sequence[Row]) -> None:
        """Refuse a text without a masked place."""
        if any(self._mask not in row.ids for row in rows):
            mask = self.texts.vocabulary.token(self._mask)
            raise InputError(
                f"a text has no {mask} among its first {self.texts.limit} tokens. Put it where a word is wanted."
            )

    def values(self, outputs: Arrays, index: int, row: Row) -> Any:
        """Of each masked place the likeliest tokens with their probabilities."""
        logits = of_tokens(self.texts, outputs[self.output][index], row)
        found = []
        for place in _masked(row, self._mask):
            scores = softmax(logits[place])
            best = np.argsort(-scores, kind="stable")[: self._most]
            found.append([(int(token), float(scores[token])) for token in best])
        return found

    def answer(self, entry: Any, rows: Sequence[Row], values: Sequence[Any]) -> Any:
        """Candidates as {"score", "token", "token_str", "sequence"}, or a list of such lists for several places."""
        row, places = rows[0], _masked(rows[0], self._mask)
        found = [
            [self._candidate(row, place, token, score, single=len(places) == 1) for token, score in best]
            for place, best in zip(places, values[0], strict=True)
        ]
        return found[0] if len(found) == 1 else found

    def _candidate(self, row: Row, place: int, token: int, score: float, *, single: bool) -> dict[str, Any]:
        vocabulary = self.texts.vocabulary
        ids = [each for each in (*row.ids[:place], token, *row.ids[place + 1 :]) if each != vocabulary.padding]
        sequence = vocabulary.decoded(ids, without_special=single)
        word = vocabulary.decoded([token], without_special=False)
        return {"score": score, "token": token, "token_str": word, "sequence": sequence}


def _masked(row: Row, mask: int) -> list[int]:
    return [place for place, token in enumerate(row.ids) if token == mask]
