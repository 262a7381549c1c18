"""Lines of a source with marks under the words that matter, as wide as they look on a terminal."""

import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ortc.common.redaction import mask_secrets
from ortc.spec.diagnostics.source import SourceFile, Span

_TAB = 4
_MAX_CELLS = 100
_NEAR = 4 * _MAX_CELLS
"""Characters around a mark that are looked at; characters without width may fill some of them."""
_CUT = "..."
Paint = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Annotation:
    """A stretch to mark, and what to say about it."""

    span: Span
    label: str
    primary: bool = False


def _plain(text: str) -> str:
    return text


def _ansi(code: str) -> Paint:
    return lambda text: f"\x1b[{code}m{text}\x1b[0m"


@dataclass(frozen=True, slots=True)
class Palette:
    """How each part is coloured; not at all by default."""

    error: Paint = _plain
    warning: Paint = _plain
    note: Paint = _plain
    gutter: Paint = _plain
    bold: Paint = _plain

    @classmethod
    def of(cls, color: bool) -> "Palette":
        """The colours for a terminal, or none."""
        if not color:
            return cls()
        return cls(
            error=_ansi("1;31"), warning=_ansi("1;33"), note=_ansi("1;36"), gutter=_ansi("1;34"), bold=_ansi("1")
        )


def printable(text: str) -> str:
    """The text without credentials, and with every character that would move the cursor or hide others written out."""
    return "".join(char if char.isprintable() else _escaped(char) for char in mask_secrets(text))


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii") if char != " " else char


def _cell(char: str) -> str:
    """What is shown for one character of a source line."""
    if char == "\t":
        return " " * _TAB
    if char.isprintable() or unicodedata.category(char) == "Zs":
        return char
    return "\N{REPLACEMENT CHARACTER}"


def _width(shown: str) -> int:
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in shown
    )


@dataclass(frozen=True, slots=True)
class _Window:
    """The part of a line that fits on a terminal, and the screen column of each of its characters."""

    text: str
    first: int
    """The first character of the line that was looked at."""
    columns: tuple[int, ...]
    """For each character looked at and one beyond, its screen column from 0 in `text`."""

    @classmethod
    def of(cls, line: str, start: int, end: int) -> "_Window":
        """A window on `line` that shows the characters from `start` to `end`, as far as there is room."""
        # A line may be as long as a file.
        begin = max(0, start - _NEAR)
        shown = [_cell(char) for char in line[begin : min(end, start + _NEAR) + _NEAR]]
        edges = [0]
        for cell in shown:
            edges.append(edges[-1] + _width(cell))
        start, end = min(start - begin, len(shown)), min(end - begin, len(shown))
        first, last = 0, len(shown)
        if edges[-1] > _MAX_CELLS or len(shown) < len(line):
            room = _MAX_CELLS - 2 * len(_CUT)
            centre = (edges[start] + min(edges[end], edges[start] + room)) // 2
            low = max(0, min(centre - room // 2, edges[-1] - room))
            first = next(index for index, edge in enumerate(edges) if edge >= min(low, edges[start]))
            last = max(index for index, edge in enumerate(edges) if edge <= edges[first] + room)
        left = _CUT if begin + first > 0 else ""
        right = _CUT if begin + last < len(line) else ""
        text = left + "".join(shown[first:last]) + right
        low, high = edges[first], edges[last]
        columns = tuple(len(left) + min(max(edge, low), high) - low for edge in edges)
        return cls(text.rstrip(), begin, columns)

    def column(self, index: int) -> int:
        """Screen column of the character at `index`, from 0."""
        return self.columns[min(max(0, index - self.first), len(self.columns) - 1)]


def excerpt(
    source: SourceFile, annotations: Iterable[Annotation], width: int, palette: Palette, paint: Paint
) -> list[str]:
    """The place and the annotated lines of one source, each below the line that it belongs to.

    Args:
        source: The text.
        annotations: Marks on it; the place shown is the primary one's, else the first one's.
        width: Cells of the line numbers.
        palette: Colours.
        paint: Colour of the primary mark.
    """
    notes = sorted(annotations, key=lambda note: (note.span.start, not note.primary))
    leading = next((note for note in notes if note.primary), notes[0])
    arrow = "-->" if leading.primary else ":::"
    lines = [f"{' ' * width}{palette.gutter(arrow)} {printable(str(leading.span))}"]
    marked = {note.span.start.line for note in notes}
    shown: int | None = None
    for number in sorted(marked | {_owner(source, line) for line in marked} - {0}):
        if shown is not None and number > shown + 1:
            lines.append(palette.gutter("..."))
        shown = number
        here = [note for note in notes if note.span.start.line == number]
        lines += _annotated(source, number, here, width, palette, paint)
    return lines


def _annotated(
    source: SourceFile, number: int, notes: list[Annotation], width: int, palette: Palette, paint: Paint
) -> list[str]:
    line = mask_secrets(source.lines[number - 1]) if number <= len(source.lines) else ""
    first = next((note for note in notes if note.primary), notes[0] if notes else None)
    start, end = _columns(first.span, line) if first else (0, 0)
    window = _Window.of(line, start, end)
    label = "" if source.argument is not None else str(number)
    lines = [f"{palette.gutter(f'{label:>{width}} |')} {window.text}".rstrip()]
    reached: int | None = None
    for note in notes:
        start, end = (window.column(index) for index in _columns(note.span, line))
        mark = ("^" if note.primary else "-") * max(1, end - start)
        text = f"{mark} {printable(note.label)}".rstrip()
        colour = paint if note.primary else palette.note
        # Behind a mark without a label there is room for the next one.
        if reached is not None and start > reached:
            lines[-1] += f"{' ' * (start - reached)}{colour(text)}"
        else:
            lines.append(f"{palette.gutter(' ' * width + ' |')} {' ' * start}{colour(text)}")
        reached = None if note.label else start + len(mark)
    return lines


def _columns(span: Span, line: str) -> tuple[int, int]:
    """Indices of the characters of `line` that a span starting on it covers."""
    start = min(span.start.column - 1, len(line))
    end = span.end.column - 1 if span.end.line == span.start.line else len(line.rstrip())
    return start, max(start, min(end, len(line)))


def _owner(source: SourceFile, number: int) -> int:
    """The line of the key that a line stands under, by indentation; 0 for a line at the top level."""
    if source.argument is not None or number > len(source.lines):
        return 0
    line = source.lines[number - 1]
    indent, is_item = _indent(line), line.lstrip().startswith("- ")
    for above in range(number - 1, max(0, number - 2000), -1):
        other = source.lines[above - 1]
        text = other.strip()
        if not text or text.startswith("#"):
            continue
        if _indent(other) < indent or (is_item and _indent(other) == indent and not text.startswith("-")):
            return above
    return 0


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))
