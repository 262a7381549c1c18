"""Diagnostics as SARIF, which code scanning services show beside the lines of a change.

Source: Static Analysis Results Interchange Format 2.1.0, OASIS; sections are named where they decide something.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ortc import __version__
from ortc.spec.diagnostics.diagnostic import Diagnostic, json_text
from ortc.spec.diagnostics.excerpt import printable
from ortc.spec.diagnostics.rules import CATALOGUE, Rule
from ortc.spec.diagnostics.rules.markdown import fenced
from ortc.spec.diagnostics.source import Span

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_INDEX = {rule.code: index for index, rule in enumerate(CATALOGUE)}


def to_sarif(diagnostics: Iterable[Diagnostic]) -> str:
    """The diagnostics as one SARIF log with one run, whose rules are the whole catalogue."""
    run = {
        "tool": {
            "driver": {"name": "ortc", "semanticVersion": __version__, "rules": [_rule(rule) for rule in CATALOGUE]}
        },
        "invocations": [{"executionSuccessful": True}],
        "columnKind": "unicodeCodePoints",
        "results": [_result(diagnostic) for diagnostic in diagnostics],
    }
    return json_text({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]})


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.code,
        "name": rule.name,
        "shortDescription": {"text": rule.summary},
        "fullDescription": {"text": rule.explanation},
        "help": {
            "text": f"{rule.explanation}\n\nWrong:\n\n{rule.bad}\n\nRight:\n\n{rule.good}",
            "markdown": f"{rule.explanation}\n\nWrong:\n\n{fenced(rule.bad)}\n\nRight:\n\n{fenced(rule.good)}\n",
        },
        "defaultConfiguration": {"level": rule.severity},
    }


def _result(diagnostic: Diagnostic) -> dict[str, Any]:
    text = printable(diagnostic.message + (f" ({diagnostic.label})" if diagnostic.label else ""))
    if diagnostic.help:
        text += "\nhelp: " + "\n".join(printable(line) for line in diagnostic.help.splitlines())
    result: dict[str, Any] = {
        "ruleId": diagnostic.code,
        "ruleIndex": _INDEX[diagnostic.code],
        "level": diagnostic.severity,
        "message": {"text": text},
    }
    if diagnostic.span is not None:
        result["locations"] = [_location(diagnostic.span)]
    related = [
        {"id": number, "message": {"text": printable(item.label)}, **_location(item.span)}
        for number, item in enumerate(diagnostic.related)
    ]
    return result | ({"relatedLocations": related} if related else {})


def _location(span: Span) -> dict[str, Any]:
    if span.source.argument is not None:
        # An argument of the command line is no artifact; section 3.33 has places by name for that.
        return {"logicalLocations": [{"fullyQualifiedName": f"{span.source.name} {printable(span.source.text)}"}]}
    return {
        "physicalLocation": {
            "artifactLocation": {"uri": _uri(span.source.name)},
            "region": {
                "startLine": span.start.line,
                "startColumn": span.start.column,
                "endLine": span.end.line,
                "endColumn": span.end.column,
            },
        }
    }


def _uri(name: str) -> str:
    """A relative URI for a relative path, which a reader resolves against the root of its checkout (section 3.4)."""
    if Path(name).is_absolute():
        return Path(name).as_uri()
    # A colon in the first step would read as a scheme.
    return quote(Path(name).as_posix(), safe="/", errors="replace")
