"""Token ids back to text, and the tokens that have a meaning of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

CLOSED_UP = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")
"""What loses its spaces where a tokenizer cleans up: the apostrophe both, the others the first."""


class Vocabulary:
    """The tokens of a tokenizer.

    Args:
        tokenizer: Of the package tokenizers.
        settings: `text` of processing.json.
    """

    def __init__(self, tokenizer: Any, settings: Mapping[str, Any]) -> None:
        self._tokenizer = tokenizer
        known = settings.get("tokens", {})
        self.unknown, self.mask, self.padding, self.first = (
            None if known.get(name) is None else int(known[name]) for name in ("unknown", "mask", "padding", "first")
        )
        self._cleans_up = bool(settings.get("clean_up"))

    @property
    def marks_subwords(self) -> bool:
        """Whether the tokenizer marks tokens that continue a word."""
        return bool(getattr(self._tokenizer.model, "continuing_subword_prefix", None))

    def token(self, number: int) -> str:
        """A token as the vocabulary has it."""
        return str(self._tokenizer.id_to_token(number))

    def joined(self, tokens: Sequence[str]) -> str:
        """Tokens of the vocabulary as text."""
        decoder = self._tokenizer.decoder
        return " ".join(tokens) if decoder is None else str(decoder.decode(list(tokens)))

    def decoded(self, numbers: Sequence[int], *, without_special: bool) -> str:
        """Token ids as text, with or without special tokens."""
        found = str(self._tokenizer.decode(list(numbers), skip_special_tokens=without_special))
        if self._cleans_up:
            for spaced in CLOSED_UP:
                found = found.replace(spaced, spaced.strip())
        return found
