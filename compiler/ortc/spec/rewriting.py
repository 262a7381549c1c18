"""Rewrite the quantization of one variant in the text of a profile; comments, blank lines and other values stay."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from ortc.spec.diagnostics.source import Entry, Mapping, Position
from ortc.spec.former_keys import QUANTIZATION, RELATED, Rewritten, flow

_NAMED = re.compile(r":\s*[&*]")
_COMMA = re.compile(r"\s*,[ \t]*")
_LINE_END = re.compile(r"\r?\n")
_STEP = "  "


@dataclass(frozen=True, slots=True)
class Edit:
    """A stretch of a text, by offsets, and what takes its place."""

    start: int
    end: int
    text: str


class Offsets:
    """Offsets of positions in a text."""

    def __init__(self, text: str) -> None:
        self._starts = [0, *(match.end() for match in re.finditer(r"\r\n|\n|\r", text))]

    def __call__(self, position: Position) -> int:
        """Return the offset of a position."""
        return self._starts[position.line - 1] + position.column - 1


@dataclass(frozen=True, slots=True)
class Part:
    """An entry of a variant: its key, its text from key to value, and where that is."""

    key: str
    text: str
    start: int
    end: int


def is_named(text: str) -> bool:
    """Whether the value of an entry has an anchor or is an alias: others may depend on its text."""
    return _NAMED.search(text) is not None


def parts_of(text: str, variant: Mapping, offset: Callable[[Position], int]) -> list[Part]:
    """Return the entries of a variant in the order of the text."""

    def part(key: str, entry: Entry) -> Part:
        start, end = offset(entry.key.start), max(offset(entry.key.end) + 1, offset(entry.value.span.end))
        return Part(key, text[start:end], start, end)

    return sorted((part(key, entry) for key, entry in variant.entries.items()), key=lambda found: found.start)


def edits(text: str, parts: list[Part], found: Rewritten, *, is_flow: bool) -> list[Edit]:
    """Return the edits that give a variant its present spelling."""
    return _in_flow(text, parts, found) if is_flow else [_in_block(text, parts, found)]


def _written(part: Part, found: Rewritten) -> list[str]:
    """The present entries of a former one: as they were written where only their place changes."""
    entries = found.lines.get(part.key, {})
    if list(entries) == [part.key]:
        return [part.text]
    return [f"{key}: {flow(value)}" for key, value in entries.items()]


def _inner(parts: list[Part], found: Rewritten) -> list[Part]:
    """Former entries that stay, the one with the kind first."""
    kept = [part for part in parts if part.key in found.lines]
    return sorted(kept, key=lambda part: part.key != QUANTIZATION)


def _in_flow(text: str, parts: list[Part], found: Rewritten) -> list[Edit]:
    related = [part for part in parts if part.key in RELATED]
    inner = ", ".join(entry for part in _inner(parts, found) for entry in _written(part, found))
    anchor = related[0] if found.quantization is not None else None
    result = []
    for index, part in enumerate(parts):
        if part is anchor:
            result.append(Edit(part.start, part.end, f"{QUANTIZATION}: {{{inner}}}"))
        elif part.key in RELATED:
            is_first = index > 0 and (parts[index - 1] is anchor or parts[index - 1].key not in RELATED)
            is_open = is_first and all(other.key in RELATED for other in parts[index:])
            result.append(_without(text, part, before=is_open))
    return result


def _without(text: str, part: Part, *, before: bool) -> Edit:
    """Remove an entry of a flow mapping with the comma behind it, and its line where nothing else is on it.

    `before`: also the comma in front of it, since no entry follows that stays.
    """
    start, end = part.start, part.end
    if (comma := _COMMA.match(text, end)) is not None:
        end = comma.end()
    if before and (ahead := re.search(r",[ \t]*\Z", text[:start])) is not None:
        start = ahead.start()
    line = text.rfind("\n", 0, start) + 1
    if not text[line:start].strip() and (rest := _LINE_END.match(text, end)) is not None:
        return Edit(line, rest.end(), "")
    # A comment begins behind a space, also where other entries between it and the text that stays are removed, too.
    is_glued = text[end : end + 1] == "#" and text[line:start].strip()
    return Edit(start, end, " " if is_glued else "")


def _in_block(text: str, parts: list[Part], found: Rewritten) -> Edit:
    """Put the related lines of a block mapping below `quantization:`, each with the comments above and beside it."""
    newline = "\r\n" if "\r\n" in text else "\n"
    first = parts[0]
    begin = text.rfind("\n", 0, first.start) + 1
    prefix = text[begin : first.start]
    indent = " " * len(prefix)
    leads, rests, end = _around(text, parts)
    output: list[str] = []
    pending = ""

    def emit(body: str) -> None:
        nonlocal pending
        head = indent if any(output) else prefix
        output.append(f"{pending}{head}{body}{newline}")
        pending = ""

    anchor = next(part for part in parts if part.key in RELATED)
    for part in parts:
        pending += leads[part.key]
        if part.key not in RELATED:
            emit(part.text + rests[part.key])
        elif part.key not in found.lines and rests[part.key].strip():
            pending += f"{indent}{rests[part.key].strip()}{newline}"
        if part is anchor and found.quantization is not None:
            emit(f"{QUANTIZATION}:")
            for inner in _inner(parts, found):
                above = "" if inner is anchor else leads[inner.key]
                output.append(_deeper(above))
                written, *more = _written(inner, found)
                lines = [_deeper(f"{indent}{written}{rests[inner.key]}", newline)]
                lines += [f"{indent}{_STEP}{entry}{newline}" for entry in more]
                output.extend(lines)
        if part.key in found.lines and part is not anchor:
            # Its comments have gone with it.
            pending = pending.removesuffix(leads[part.key])
    return Edit(begin, end, ("".join(output) + pending).removesuffix(newline))


def _around(text: str, parts: list[Part]) -> tuple[dict[str, str], dict[str, str], int]:
    """The whole lines above each entry, what follows it on its last line, and where the last line ends."""
    leads: dict[str, str] = {}
    rests: dict[str, str] = {}
    end = parts[0].start
    for part in parts:
        line = text.rfind("\n", 0, part.start) + 1
        leads[part.key] = "" if part is parts[0] else text[end + 1 : line]
        stop = text.find("\n", part.end)
        end = len(text) if stop < 0 else stop
        rests[part.key] = text[part.end : end].rstrip("\r")
    return leads, rests, end - (1 if text[end - 1 : end] == "\r" else 0)


def _deeper(text: str, newline: str = "") -> str:
    """Indent the lines of a text by one more step; empty ones stay empty."""
    lines = (text + newline).splitlines(keepends=True)
    return "".join(_STEP + line if line.strip() else line for line in lines)
