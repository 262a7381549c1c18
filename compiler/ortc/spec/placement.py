"""Move the former `placement` of a profile into its `gates`, in the text of the file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from ortc.spec.diagnostics.source import Entry, Mapping, Position, Scalar, to_data
from ortc.spec.former_keys import GATES
from ortc.spec.rewriting import Edit, parts_of

Offset = Callable[[Position], int]
_COMMENT = re.compile(r"[ \t](#.*)")


def unmovable(placement: Entry, gates: Entry | None) -> str | None:
    """Why `placement` cannot join the `gates` that a profile has already; None where it can, or has none."""
    if gates is None:
        return None
    former, present = _limits(placement), _limits(gates)
    if former is None or present is None:
        return "one of `placement` and `gates` is not a mapping"
    differing = [key for key in former if key in present and former[key] != present[key]]
    return f"`gates` has another `{differing[0]}`" if differing else None


def moved(text: str, placement: Entry, gates: Entry | None, offset: Offset) -> Iterator[Edit]:
    """Edits that leave a profile with one `gates`, for a `placement` that `unmovable` has nothing against."""
    start, end = offset(placement.key.start), offset(placement.key.end)
    if gates is None:
        nothing = _limits(placement) == {} and not isinstance(placement.value, Mapping)
        yield Edit(start, _end(text, placement, offset), f"{GATES}: {{}}") if nothing else Edit(start, end, GATES)
    elif not _limits(gates):
        yield Edit(start, end, GATES)
        yield _removed(text, gates, offset, kept=True)
    elif not _limits(placement):
        yield _removed(text, placement, offset, kept=True)
    else:
        yield from _joined(text, placement, gates, offset)


def _joined(text: str, placement: Entry, gates: Entry, offset: Offset) -> Iterator[Edit]:
    assert isinstance(placement.value, Mapping)  # noqa: S101  # it has entries
    assert isinstance(gates.value, Mapping)  # noqa: S101
    there, newline = parts_of(text, gates.value, offset), "\r\n" if "\r\n" in text else "\n"
    former = [part for part in parts_of(text, placement.value, offset) if part.key not in gates.value.entries]
    if text[offset(gates.value.span.start)] == "{":
        yield Edit(there[-1].end, there[-1].end, "".join(f", {part.text}" for part in former))
        yield _removed(text, placement, offset, kept=True)
        return
    first, last = there[0], there[-1]
    indent = text[text.rfind("\n", 0, first.start) + 1 : first.start]
    gone = _removed(text, placement, offset, kept=False)
    comments = [f"{indent}{found.rstrip()}{newline}" for found in _COMMENT.findall(text[gone.start : gone.end])]
    lines = [f"{indent}{part.text}{newline}" for part in former]
    place = text.find("\n", last.end) + 1
    ahead = "" if place else newline
    place = place or len(text)
    yield Edit(place, place, "".join([ahead, *comments, *lines]))
    yield gone


def _removed(text: str, entry: Entry, offset: Offset, *, kept: bool) -> Edit:
    """Remove the lines of an entry of a block mapping; `kept` are the comments beside it."""
    start = text.rfind("\n", 0, offset(entry.key.start)) + 1
    stop = text.find("\n", _end(text, entry, offset)) + 1 or len(text)
    newline = "\r\n" if "\r\n" in text else "\n"
    comments = [f"{found.rstrip()}{newline}" for found in _COMMENT.findall(text[start:stop])] if kept else []
    is_ended = text[:stop].endswith("\n")
    return Edit(start, stop, "".join(comments) if is_ended else "".join(comments).rstrip())


def _end(text: str, entry: Entry, offset: Offset) -> int:
    """Where the text of an entry ends."""
    if isinstance(entry.value, Mapping) and text[offset(entry.value.span.start)] != "{":
        return max(part.end for part in parts_of(text, entry.value, offset))
    return max(offset(entry.key.end) + 1, offset(entry.value.span.end))


def _limits(entry: Entry) -> dict[str, object] | None:
    """What an entry states, nothing for null; None where it is not a mapping."""
    if isinstance(entry.value, Scalar) and entry.value.value is None:
        return {}
    found = to_data(entry.value)
    return found if isinstance(found, dict) else None
