"""What is wrong and where, as values; and the three ways to show it: text, JSON, GitHub's workflow commands."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ortc.common.redaction import mask_secrets
from ortc.spec.diagnostics.excerpt import Annotation, Palette, excerpt, printable
from ortc.spec.diagnostics.rules.model import Rule, Severity
from ortc.spec.diagnostics.source import Span

FORMAT_VERSION = 1
_MAX_QUOTED = 64


@dataclass(frozen=True, slots=True)
class Related:
    """Another place that has to do with a diagnostic."""

    span: Span
    label: str


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One finding: the rule it breaks, the place, and the way out."""

    rule: Rule
    message: str
    span: Span | None = None
    label: str = ""
    help: str | None = None
    related: tuple[Related, ...] = ()

    @property
    def code(self) -> str:
        """The stable code of the rule."""
        return self.rule.code

    @property
    def severity(self) -> Severity:
        """Whether it stops the compiler."""
        return self.rule.severity


def in_order(diagnostics: Iterable[Diagnostic]) -> tuple[Diagnostic, ...]:
    """Without duplicates, sorted by place; those without a place first."""
    unique = dict.fromkeys(diagnostics)
    placeless = tuple(item for item in unique if item.span is None)
    placed = [(item.span.sort_key, item.code, item.message, item) for item in unique if item.span is not None]
    return placeless + tuple(entry[3] for entry in sorted(placed, key=lambda entry: entry[:3]))


def render_text(diagnostics: Iterable[Diagnostic], *, color: bool = False) -> str:
    """The diagnostics for people, each with an excerpt of its source; ends with a newline when there are any."""
    palette = Palette.of(color)
    return "\n".join(_render(diagnostic, palette) for diagnostic in diagnostics)


def _render(diagnostic: Diagnostic, palette: Palette) -> str:
    paint = palette.error if diagnostic.severity == "error" else palette.warning
    head = paint(f"{diagnostic.severity}[{diagnostic.code}]")
    lines = [f"{head}{palette.bold(': ' + printable(diagnostic.message))}"]
    width = 2
    if diagnostic.span is not None:
        places = [(diagnostic.span.source, Annotation(diagnostic.span, diagnostic.label, primary=True))]
        places += [(item.span.source, Annotation(item.span, item.label)) for item in diagnostic.related]
        sources = list(dict.fromkeys(source for source, _ in places))
        width = max(2, *(len(str(note.span.start.line)) for _, note in places))
        for source in sources:
            notes = [note for owner, note in places if owner == source]
            lines += excerpt(source, notes, width, palette, paint)
    for number, line in enumerate((diagnostic.help or "").splitlines()):
        lead = f"{palette.bold('help')}: " if number == 0 else " " * len("help: ")
        lines.append(f"{' ' * width}{lead}{printable(line)}")
    return "\n".join(lines) + "\n"


def quoted(value: object) -> str:
    """A value of the user's in backticks, shortened."""
    text = value if isinstance(value, str) else str(value)
    return f"`{text if len(text) <= _MAX_QUOTED else text[: _MAX_QUOTED - 3] + '...'}`"


def summary(diagnostics: Iterable[Diagnostic]) -> str:
    """`2 errors, 1 warning`."""
    counts = {"error": 0, "warning": 0}
    for diagnostic in diagnostics:
        counts[diagnostic.severity] += 1
    return ", ".join(f"{count} {name}{'s' if count != 1 else ''}" for name, count in counts.items() if count)


def to_data(diagnostic: Diagnostic) -> dict[str, Any]:
    """One diagnostic as plain data; columns count characters from 1, ends are exclusive."""
    return {
        "code": diagnostic.code,
        "name": diagnostic.rule.name,
        "severity": diagnostic.severity,
        "message": mask_secrets(diagnostic.message),
        "label": mask_secrets(diagnostic.label),
        "help": None if diagnostic.help is None else mask_secrets(diagnostic.help),
        "location": None if diagnostic.span is None else _location(diagnostic.span),
        "related": [{"label": item.label, "location": _location(item.span)} for item in diagnostic.related],
    }


def to_json(diagnostics: Iterable[Diagnostic]) -> str:
    """The diagnostics as one JSON document."""
    document = {"format_version": FORMAT_VERSION, "diagnostics": [to_data(item) for item in diagnostics]}
    return json_text(document)


def json_text(document: dict[str, Any]) -> str:
    """A JSON document; bytes of arguments and file names that are not UTF-8 stand in it as escapes of JSON."""
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    return text.encode("utf-8", errors="backslashreplace").decode("utf-8")


def _location(span: Span) -> dict[str, Any]:
    return {
        "file": span.source.name,
        "argument": mask_secrets(span.source.text) if span.source.argument is not None else None,
        "line": span.start.line,
        "column": span.start.column,
        "end_line": span.end.line,
        "end_column": span.end.column,
    }


def to_github(diagnostics: Iterable[Diagnostic]) -> str:
    """The diagnostics as workflow commands, which GitHub shows beside the lines of a pull request.

    Source: "Workflow commands for GitHub Actions", setting an error message; escapes as in actions/toolkit command.ts.
    """
    return "".join(_command(diagnostic) for diagnostic in diagnostics)


def _command(diagnostic: Diagnostic) -> str:
    properties = {"title": f"{diagnostic.code} {diagnostic.rule.name}"}
    message = printable(diagnostic.message + (f" ({diagnostic.label})" if diagnostic.label else ""))
    span = diagnostic.span
    if span is not None and span.source.argument is not None:
        message = f"{span.source.name} {printable(span.source.text)}: {message}"
    elif span is not None:
        properties |= {"file": printable(span.source.name), "line": str(span.start.line), "col": str(span.start.column)}
        properties["endLine"] = str(span.end.line)
        if span.end.line == span.start.line:
            properties["endColumn"] = str(max(span.start.column, span.end.column - 1))
    if diagnostic.help:
        message += "\nhelp: " + "\n".join(printable(line) for line in diagnostic.help.splitlines())
    rendered = ",".join(f"{key}={_escape_property(value)}" for key, value in properties.items())
    return f"::{diagnostic.severity} {rendered}::{_escape(message)}\n"


def _escape(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _escape_property(text: str) -> str:
    return _escape(text).replace(":", "%3A").replace(",", "%2C")
