"""Words for people who mistyped one."""

import difflib
from collections.abc import Iterable

_MAX_LENGTH = 64


def closest(word: str, candidates: Iterable[str]) -> str | None:
    """The candidate that was probably meant, None when none is near."""
    known = {_normal(candidate): candidate for candidate in candidates}
    if len(word) > _MAX_LENGTH:
        return None
    found = difflib.get_close_matches(_normal(word), known, n=1, cutoff=0.65)
    return known[found[0]] if found else None


def listed(words: Iterable[str], last: str = "or") -> str:
    """`a`, `b` or `c`."""
    return joined([f"`{word}`" for word in words], last)


def joined(phrases: Iterable[str], last: str = "or") -> str:
    """a, b or c."""
    items = list(phrases)
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {last} {items[-1]}" if items else ""


def _normal(word: str) -> str:
    return word.lower().replace("-", "").replace("_", "")
