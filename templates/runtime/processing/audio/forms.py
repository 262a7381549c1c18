"""Kinds of answers to sounds, and what each makes of the model's outputs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from loading.errors import FormatError, InputError
from numpy.typing import NDArray

from .inputs import Audio, Sound

Arrays = dict[str, NDArray[Any]]
FIELD = "audio"
CLEANED = ((" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"))
CLEANED_WORDS = ((" 's", "'s"), (" 've", "'ve"), (" 're", "'re"))
"""What becomes of spaces before punctuation, where a tokenizer cleans up."""


class AudioForm:
    """Answers to single sounds.

    Args:
        settings: `answer` of processing.json.
        audio: Makes the model's inputs.
    """

    of_one_row = True
    """Whether the values of one row are all that an answer needs."""

    def __init__(self, settings: Mapping[str, Any], audio: Audio) -> None:
        self.audio = audio
        self.output = str(settings["output"])
        self.labels = tuple(str(label) for label in settings.get("labels", ()))

    def rows(self, entry: object, prompt: str | None) -> list[Sound]:
        """What the model takes of a sound, or of {"audio"}.

        Raises:
            InputError: the entry is of another form, or cannot be read.
        """
        if prompt:
            raise InputError("the model takes sounds and has no prompts.")
        if isinstance(entry, Mapping):
            if set(entry) != {FIELD}:
                raise InputError(f"a request has {sorted(map(str, entry))}. Expected {FIELD}.")
            entry = entry[FIELD]
        return [self.audio.row(entry)]

    def most_rows(self, entry: object) -> int:
        """Every sound is one row."""
        del entry
        return 1

    def check(self, rows: Sequence[Sound]) -> None:
        """Refuse rows that have no answer; every sound has one."""

    def values(self, outputs: Arrays, index: int, row: Sound) -> Any:
        """What the answer needs of one row of the outputs."""
        del row
        return np.array(outputs[self.output][index])

    def answer(self, entry: Any, rows: Sequence[Sound], values: Sequence[Any]) -> Any:
        """The answer to a sound, by the values of its row."""
        raise NotImplementedError


class AudioLabels(AudioForm):
    """All classes with their scores."""

    def answer(self, entry: Any, rows: Sequence[Sound], values: Sequence[Any]) -> Any:
        """Classes as {"label", "score"}, the highest score first."""
        scored = [{"label": name, "score": float(score)} for name, score in zip(self.labels, values[0], strict=True)]
        return sorted(scored, key=lambda entry: -entry["score"])


class Transcript(AudioForm):
    """The text that is spoken, by the likeliest token of each moment (CTC).

    Equal tokens in a row are one, and the blank parts them; what is left is joined as the model's own tokenizer joins
    it.
    """

    def __init__(self, settings: Mapping[str, Any], audio: Audio) -> None:
        super().__init__(settings, audio)
        spelling = settings["spelling"]
        self._tokens = tuple(str(token) for token in spelling["tokens"])
        self._blank, self._delimiter = int(spelling["blank"]), str(spelling["delimiter"])
        self._space, self._lower = str(spelling["space"]), bool(spelling["lower_case"])
        self._clean_up = bool(spelling["clean_up"])
        if not 0 <= self._blank < len(self._tokens):
            raise FormatError(f"the blank is token {self._blank} of {len(self._tokens)}")

    def values(self, outputs: Arrays, index: int, row: Sound) -> Any:
        """The likeliest token of each moment."""
        del row
        scores = outputs[self.output][index]
        if scores.shape[-1] != len(self._tokens):
            raise FormatError(f"{self.output} has scores of {scores.shape[-1]} tokens, expected {len(self._tokens)}")
        return scores.argmax(axis=-1)

    def answer(self, entry: Any, rows: Sequence[Sound], values: Sequence[Any]) -> Any:
        """{"text"}."""
        return {"text": self.text(values[0])}

    def text(self, tokens: Sequence[int]) -> str:
        """The text of the tokens of all moments."""
        names = (self._tokens[token] for token in tokens)
        blank = self._tokens[self._blank]
        kept = (name for name, _ in itertools.groupby(names) if name != blank)
        text = "".join(self._space if name == self._delimiter else name for name in kept).strip()
        if self._lower:
            text = text.lower()
        for old, new in (*CLEANED, *CLEANED_WORDS) if self._clean_up else ():
            text = text.replace(old, new)
        return text


KINDS: Mapping[str, type[AudioForm]] = {"labels": AudioLabels, "transcript": Transcript}
