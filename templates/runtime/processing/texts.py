"""Texts to token ids, cut and padded as the model's own tokenizer does it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from loading.errors import FormatError, InputError, RuntimeVersionError
from numpy.typing import NDArray

from . import pairs
from .padding import Padding, Row
from .vocabulary import Vocabulary

if TYPE_CHECKING:
    from tokenizers import Encoding

INSTALL = "pip install --no-deps --require-hashes -r requirements.txt"
MOST_WINDOWS = 256  # of one text
LONGEST = 2**20  # characters of texts that are looked at, to say how many windows they have
SHOWN = 60  # characters of a text that a message shows


_Found = TypeVar("_Found")


class Texts:
    """Makes a model's inputs of texts.

    Args:
        settings: `text` of processing.json.
        tokenizer: The content of tokenizer.json.
        shapes: Shapes of the model's inputs by name: names of axes and sizes.
        dtypes: Their types by name.
        bounds: Least size, greatest size and step of each axis by name.
        places: Whether answers need the places of tokens in the text.

    Raises:
        FormatError: the settings are malformed, or tokenizer.json is not a tokenizer.
        RuntimeVersionError: tokenizers is not installed.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        tokenizer: bytes,
        shapes: Mapping[str, Sequence[str | int | None]],
        dtypes: Mapping[str, np.dtype[Any]],
        bounds: Mapping[str, tuple[int, int, int]],
        *,
        places: bool = True,
    ) -> None:
        self.padding = Padding(settings["padding"], shapes, dtypes, bounds)
        self._places = places
        self._limit = int(settings["max_length"])
        self._truncation = str(settings["truncation"])
        self.pairs = bool(settings.get("pairs"))
        self._stride = int(settings.get("stride", 0))
        self._prompt = str(settings["prompt"])
        self._prompts = {str(name): str(text) for name, text in settings["prompts"].items()}
        if self._limit > self.padding.most_tokens:
            raise FormatError(f"max_length is {self._limit}, the model takes {self.padding.most_tokens} tokens")
        if self._truncation not in ("left", "right", "refuse"):
            raise FormatError("truncation is unknown")
        self._tokenizer = _read(tokenizer)
        self.vocabulary = Vocabulary(self._tokenizer, settings)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        strategy = str(settings.get("strategy", "longest_first"))
        self._cuts_longest = self._truncation != "refuse" and strategy == "longest_first"
        if self._truncation != "refuse":
            self._tokenizer.enable_truncation(
                self._limit, stride=self._stride, direction=self._truncation, strategy=strategy
            )

    @property
    def limit(self) -> int:
        """The most tokens of a text, special ones included."""
        return self._limit

    @property
    def most_rows(self) -> int:
        """The most texts of one run."""
        return self.padding.most_rows

    def row(self, text: str, pair: str | None = None, prompt: str | None = None) -> Row:
        """The tokens of a text, or of a pair of texts.

        Args:
            text: Any text without lone surrogates.
            pair: The second text of a pair.
            prompt: The name of one of the model's prompts; the default one when None, none when empty.

        Raises:
            InputError: the text cannot be encoded, is too long where nothing is cut, or the prompt is unknown.
        """
        return self._row(*self._encoded(text, pair, prompt))

    def rows_beside(self, text: str, others: Sequence[str], prompt: str | None = None) -> list[Row]:
        """The tokens of the pairs of one text with each of several others, as `row` gives them.

        Raises:
            InputError: as `row`.
        """
        if self._truncation == "refuse":
            return [self.row(text, other, prompt) for other in others]
        before = self._prompt if prompt is None else self._named(prompt)
        for part in (text, *others):
            _check(part)
        left, longest = self._truncation == "left", self._cuts_longest
        found = _library(
            lambda: pairs.encode_beside(
                self._tokenizer, before + text, others, self._limit, left=left, longest=longest
            ),
            text,
        )
        return [self._row(pair, len(before)) for pair in found]

    def windows(self, text: str, pair: str, prompt: str | None = None) -> list[Row]:
        """The tokens of a pair of texts, of which the second is cut into windows that overlap.

        Args:
            text: As that of `row`; it stands in every window.
            pair: The text that is cut.
            prompt: As that of `row`.

        Raises:
            InputError: as `row`; or the first text leaves no room for a window.
        """
        for part in (text, pair):
            _check(part)
        if self._truncation != "refuse":
            self._check_room(text, pair)
        found, before = self._encoded(text, pair, prompt)
        return [self._row(window, before) for window in (found, *found.overflowing)]

    def most_windows(self, text: str, pair: str) -> int:
        """How many windows a text has beside another, if every byte of both is a token; no more than are taken."""
        if len(text) + len(pair) > LONGEST:
            return MOST_WINDOWS
        first, second = (len(part.encode("utf-8", "replace")) for part in (text, pair))
        room = self._limit - first - int(self._tokenizer.num_special_tokens_to_add(True))
        if second <= room:
            return 1
        return min(MOST_WINDOWS, 1 + second // max(1, room - self._stride))

    def _check_room(self, text: str, pair: str) -> None:
        """Refuse a text beside which no window of another advances, or windows are too many.

        Raises:
            InputError: one of the texts is too long.
        """
        room = self._limit - self._length(text) - int(self._tokenizer.num_special_tokens_to_add(True))
        length = self._length(pair)
        if room <= self._stride and length > room:
            raise InputError(
                f"a text leaves {max(0, room)} of {self._limit} tokens for the other, more than {self._stride} are "
                f"needed: {_shown(text)}. Send a shorter text."
            )
        if length > room + (MOST_WINDOWS - 1) * (room - self._stride):
            raise InputError(
                f"a text of {length} tokens has more than {MOST_WINDOWS} windows of {room}: {_shown(pair)}. Send it in "
                "parts."
            )

    def _length(self, text: str) -> int:
        """How many tokens a text has by itself."""
        # As the second of a pair, which alone is cut.
        (found,) = _library(lambda: self._tokenizer.encode_batch([("", text)], add_special_tokens=False), text)
        return pairs.count(found, self._stride)

    def _encoded(self, text: str, pair: str | None, prompt: str | None) -> tuple[Encoding, int]:
        """The encoding of a text or a pair, and the characters of the prompt before it."""
        before = self._prompt if prompt is None else self._named(prompt)
        for part in (text, pair):
            if part is not None:
                _check(part)
        given = before + text
        # Other threads run while a batch is encoded, and wait where a text is.
        found = _library(lambda: self._found(given, pair), text)
        if len(found.ids) > self._limit:
            raise InputError(
                f"a text has {len(found.ids)} tokens, at most {self._limit} are taken: {_shown(text)}. Send a shorter "
                "text."
            )
        return found, len(before)

    def _found(self, given: str, pair: str | None) -> Encoding:
        if pair is not None and self._cuts_longest:
            return pairs.encode(self._tokenizer, given, pair, self._limit, left=self._truncation == "left")
        encode = self._tokenizer.encode_batch if self._places else self._tokenizer.encode_batch_fast
        (found,) = encode([given if pair is None else (given, pair)])
        return found  # type: ignore[no-any-return]

    def row_of(self, ids: tuple[int, ...]) -> Row:
        """The row of token ids, special tokens included, as the model's own tokenizer gives them.

        Raises:
            InputError: there are none or too many, or the tokenizer does not have one of them.
        """
        if not 0 < len(ids) <= self._limit:
            raise InputError(f"there are {len(ids)} token ids. Send 1 to {self._limit}.")
        size = self._tokenizer.get_vocab_size()
        if unknown := [token for token in ids if not 0 <= token < size]:
            raise InputError(f"there is no token {unknown[0]}. Send token ids from 0 to {size - 1}.")
        return Row(ids, (0,) * len(ids))

    def _row(self, found: Encoding, before: int) -> Row:
        """An encoding without padding; its text begins with so many characters of a prompt."""
        return _with_places(found, before) if self._places else Row(tuple(found.ids), tuple(found.type_ids))

    def inputs(self, rows: Sequence[Row]) -> dict[str, NDArray[Any]]:
        """The model's inputs for some rows, see `Padding.inputs`."""
        return self.padding.inputs(rows)

    def _named(self, name: str) -> str:
        if not name:
            return ""
        if name not in self._prompts:
            known = ", ".join(map(repr, self._prompts)) or "none"
            raise InputError(f"there is no prompt {name!r}. The model's prompts: {known}.")
        return self._prompts[name]


def _library(encode: Callable[[], _Found], text: str) -> _Found:
    """What the library makes of texts.

    Raises:
        InputError: it makes nothing of them.
    """
    try:
        return encode()
    except Exception as error:
        # The library raises Exception itself where only one text of a pair may be cut, and that is too short.
        if "truncat" in str(error).lower():
            raise InputError(f"a text leaves no room for the other: {_shown(text)}. Send shorter texts.") from error
        raise InputError(f"the tokenizer makes nothing of a text: {error}: {_shown(text)}.") from error
    except BaseException as error:
        # What the library did not foresee is no Exception.
        if type(error).__name__ != "PanicException":
            raise
        raise InputError(f"the tokenizer fails on a text: {error}: {_shown(text)}.") from error


def _with_places(found: Encoding, before: int) -> Row:
    """An encoding without padding; places in the text do not count the prompt before it."""
    sequence = tuple(found.sequence_ids)
    offsets = tuple(
        (max(0, start - before), max(0, end - before)) if part == 0 else (start, end)
        for (start, end), part in zip(found.offsets, sequence, strict=True)
    )
    special = tuple(map(bool, found.special_tokens_mask))
    return Row(tuple(found.ids), tuple(found.type_ids), offsets, sequence, special, tuple(found.word_ids))


def _read(content: bytes) -> Any:
    module = _package()
    try:
        return module.Tokenizer.from_buffer(content)
    except Exception as error:
        # The library raises Exception itself, with the reason.
        raise FormatError(f"tokenizer.json is not a tokenizer that this loader reads: {error}") from error


def _package() -> ModuleType:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads would be more than the session's
    try:
        import tokenizers
    except ImportError as error:
        raise RuntimeVersionError(f"tokenizers cannot be imported: {error}. Install it: {INSTALL}") from error
    return tokenizers


def _check(text: object) -> None:
    if not isinstance(text, str):
        raise InputError(f"a text is a {type(text).__name__}. Expected a string.")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"a text holds a lone surrogate at character {error.start}, which is no text: {_shown(text)}. Send text "
            "that can be written as UTF-8."
        ) from error


def _shown(text: str) -> str:
    cut = text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
    return ascii(cut)
