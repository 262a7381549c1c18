"""Text that a user wrote, and where each value of it stands."""

import re
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

_LINE_BREAK = re.compile(r"\r\n|\n|\r")


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in a text; line and column count characters from 1."""

    line: int
    column: int


@dataclass(frozen=True)
class SourceFile:
    """A text and the name that people know it by."""

    name: str
    """The path as the user gave it, or `--set` for an argument of the command line."""
    text: str
    argument: int | None = None
    """Which argument of the command line it is, from 0; None for a file."""

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *(match.end() for match in _LINE_BREAK.finditer(self.text))]

    @cached_property
    def lines(self) -> list[str]:
        """The lines without their line breaks; an empty text has one."""
        return _LINE_BREAK.split(self.text)

    def position(self, offset: int) -> Position:
        """Where the character at `offset` stands."""
        offset = max(0, min(offset, len(self.text)))
        line = bisect_right(self._starts, offset)
        return Position(line, offset - self._starts[line - 1] + 1)

    def span(self, start: int, end: int) -> "Span":
        """The characters from offset `start` up to, not including, offset `end`."""
        return Span(self, self.position(start), self.position(max(start, end)))


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a text; `end` is the place after its last character."""

    source: SourceFile
    start: Position
    end: Position

    def __str__(self) -> str:
        if self.source.argument is not None:
            return f"{self.source.name}:{self.start.column}"
        return f"{self.source.name}:{self.start.line}:{self.start.column}"

    @property
    def sort_key(self) -> tuple[int, str, Position]:
        """Files first, then arguments in their order; within one from top to bottom."""
        return (-1 if self.source.argument is None else self.source.argument, self.source.name, self.start)


@dataclass(frozen=True, slots=True)
class Scalar:
    """A single value."""

    span: Span
    value: str | int | float | bool | None
    text: str
    """As written, without quotes."""
    plain: bool
    """Whether it was written without quotes, so that YAML chose its type."""


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list of values."""

    span: Span
    items: "tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class Entry:
    """A key of a mapping with its value."""

    key: Span
    value: "Node"


@dataclass(frozen=True, slots=True)
class Mapping:
    """Values by name, in the order written."""

    span: Span
    entries: dict[str, Entry]


Node = Scalar | Sequence | Mapping
Path = tuple[str | int, ...]


def to_data(node: Node) -> Any:
    """The plain value of a node: dicts, tuples and scalars."""
    match node:
        case Scalar():
            return node.value
        case Sequence():
            return tuple(to_data(item) for item in node.items)
        case Mapping():
            return {key: to_data(entry.value) for key, entry in node.entries.items()}


@dataclass(frozen=True)
class Document:
    """A parsed text: its values, and where each of them stands."""

    source: SourceFile
    root: Mapping

    @cached_property
    def data(self) -> dict[str, Any]:
        """The values, with tuples for lists."""
        data: dict[str, Any] = to_data(self.root)
        return data

    def find(self, path: Iterable[str | int]) -> Node | None:
        """The node at a path of keys and indices."""
        node: Node | None = self.root
        for step in path:
            node = child(node, step)
            if node is None:
                return None
        return node

    def locate(self, path: Iterable[str | int], *, key: bool = False) -> Span:
        """Where the value at a path stands; when it is not written, its nearest ancestor that is.

        Args:
            path: Keys and indices from the root.
            key: The place of the key instead of its value's. An item of a list has no key: its value is taken.
        """
        node: Node = self.root
        span = first_key(self.root) or self.root.span
        for step in path:
            found = child(node, step)
            if found is None:
                return span if key or isinstance(node, Scalar) else self._short(node, span)
            span = node.entries[step].key if isinstance(node, Mapping) and isinstance(step, str) else found.span
            node = found
        return span if key else self._short(node, span)

    def _short(self, node: Node, key: Span) -> Span:
        """The place of a node; the place of its key for a collection below it or over several lines."""
        lines = {key.start.line, node.span.start.line, node.span.end.line}
        same = key.source == node.span.source
        return key if same and len(lines) > 1 and not isinstance(node, Scalar) else node.span


def child(node: Node | None, step: str | int) -> Node | None:
    """The value under a key or an index, None where there is none."""
    match node:
        case Mapping(entries=entries) if isinstance(step, str) and step in entries:
            return entries[step].value
        case Sequence(items=items) if isinstance(step, int) and 0 <= step < len(items):
            return items[step]
        case _:
            return None


def first_key(mapping: Mapping) -> Span | None:
    """Where the first key of a mapping stands."""
    return next((entry.key for entry in mapping.entries.values()), None)
