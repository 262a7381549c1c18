"""How large the texts of a request are, before anything is made of them."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence

from serving.bounds import MOST_TEXTS
from serving.errors import RefusedError, bad

MOST_CHARACTERS = 2**18  # of one text


def check_size(entries: Sequence[object]) -> int:
    """The most characters of an entry.

    Raises:
        RefusedError: 400, there are no texts; 413, too many, or one that is too long.
    """
    if not entries:
        raise bad("there is no text; send at least one")
    if len(entries) > MOST_TEXTS:
        raise RefusedError(413, "too-large", f"there are {len(entries)} texts, at most {MOST_TEXTS} are taken at once")
    longest = max(map(characters, entries))
    if longest > MOST_CHARACTERS:
        raise RefusedError(
            413, "too-large", f"a text has {longest} characters, at most {MOST_CHARACTERS} are taken; send it in parts"
        )
    return longest


def characters(entry: object) -> int:
    """The characters of a text, of all texts of an object or a list, or the number of token ids."""
    return _size(entry, len)


def unfolded(entry: object) -> int:
    """The same after the normalization that makes texts the longest: tokenizers normalize in forms of their own."""
    return _size(entry, lambda text: len(text) if text.isascii() else len(unicodedata.normalize("NFKD", text)))


def _size(entry: object, of_text: Callable[[str], int]) -> int:
    if isinstance(entry, dict):
        return sum(_size(value, of_text) for value in entry.values())
    if isinstance(entry, list):
        return sum(_size(value, of_text) for value in entry)
    if isinstance(entry, str):
        return of_text(entry)
    return len(entry) if isinstance(entry, tuple) else 0


def is_ascii(entry: object) -> bool:
    if isinstance(entry, dict | list):
        return all(map(is_ascii, entry.values() if isinstance(entry, dict) else entry))
    return not isinstance(entry, str) or entry.isascii()
