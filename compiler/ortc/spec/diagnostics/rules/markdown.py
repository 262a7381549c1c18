"""The catalogue as a page of documentation: docs/diagnostics.md, written by `python -m ortc.spec.diagnostics.rules`."""

import textwrap

from ortc.spec.diagnostics.rules import CATALOGUE, Rule

_WIDTH = 120
_HEAD = """\
# Diagnostics

Every code that `ortc check` and `ortc build` can show, with an example of the mistake and of its mending. Codes keep
their meaning for ever; `ortc explain CODE` prints one of these pages. Errors end the command with exit code 3, warnings
do not change it. Examples show the parts of a spec that matter, or a command where the mistake is outside of it.

This page is written by `python -m ortc.spec.diagnostics.rules > docs/diagnostics.md` from
compiler/ortc/spec/diagnostics/rules.
"""
_CHAPTERS = (
    ("ORTC10", "Reading YAML"),
    ("ORTC12", "The shape of a spec"),
    ("ORTC14", "Arguments of `--set`"),
    ("ORTC15", "What a spec takes from elsewhere"),
    ("ORTC16", "Plans"),
    ("ORTC20", "Targets and their profiles"),
    ("ORTC22", "Axes, inputs and budgets"),
    ("ORTC30", "What a spec names outside itself"),
)
"""Title of each stretch of codes, by the start of its first code."""


def page() -> str:
    """The whole catalogue as Markdown."""
    parts = [_HEAD, _table()]
    titles = list(_CHAPTERS)
    for rule in CATALOGUE:
        while titles and rule.code >= titles[0][0]:
            title = titles.pop(0)[1]
            if not titles or rule.code < titles[0][0]:
                parts.append(f"## {title}\n")
        parts.append(_section(rule))
    return "\n".join(parts)


def fenced(example: str) -> str:
    """An example of a rule as a Markdown code block."""
    language = "console" if example.startswith("$") else "yaml"
    return f"```{language}\n{example.rstrip()}\n```"


def _table() -> str:
    rows = ["| code | name | severity | |", "|---|---|---|---|"]
    rows += [
        f"| [{rule.code}](#{rule.code.lower()}-{rule.name}) | {rule.name} | {rule.severity} | {rule.summary} |"
        for rule in CATALOGUE
    ]
    return "\n".join(rows) + "\n"


def _section(rule: Rule) -> str:
    text = textwrap.fill(rule.explanation, width=_WIDTH, break_on_hyphens=False, break_long_words=False)
    return (
        f"### {rule.code} {rule.name}\n\n{rule.severity.capitalize()}. {rule.summary}\n\n{text}\n\n"
        f"Wrong:\n\n{fenced(rule.bad)}\n\nRight:\n\n{fenced(rule.good)}\n"
    )
