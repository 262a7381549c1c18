"""Words for people who mistyped one."""

import difflib
import re
from collections.abc import Iterable

_MAX_LENGTH = 64
_MIN_PART = 3
_PART = re.compile(r"[-_.]")


def closest(word: str, candidates: Iterable[str]) -> str | None:
    """The candidate that was probably meant, None when none is near."""
    known = {_normal(candidate): candidate for candidate in candidates}
    wanted = _normal(word)
    if not wanted or len(word) > _MAX_LENGTH:
        return None
    if wanted in known:
        return known[wanted]
    if len(wanted) >= _MIN_PART:
        # `gpu` is meant for `server-gpu`, and `seq` for `sequence`, however many letters differ.
        parts = [name for name in known.values() if wanted in _PART.split(name.lower())]
        parts += [name for normal, name in known.items() if normal.startswith(wanted)]
        if parts:
            return min(parts, key=len)
    # `gpu-server` is meant for `server-gpu`.
    by_parts = {tuple(sorted(_PART.split(name.lower()))): name for name in known.values()}
    if (name := by_parts.get(tuple(sorted(_PART.split(word.lower()))))) is not None:
        return name
    found = difflib.get_close_matches(wanted, known, n=1, cutoff=0.7)
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
