"""`--set key.path=value`: values of the command line in the place of a document's."""

import re
from collections.abc import Iterable

from ortc.spec.diagnostics.diagnostic import Diagnostic, Related, in_order, quoted
from ortc.spec.diagnostics.errors import SpecError
from ortc.spec.diagnostics.rules import schema as rules
from ortc.spec.diagnostics.source import Document, Entry, Mapping, Node, Scalar, Sequence, SourceFile, Span
from ortc.spec.syntax.yaml_parser import MAX_DEPTH, describe, parse_value

_SEGMENT = re.compile(r'"(?P<quoted>[^"]+)"|(?P<plain>[^."=\s]+)')
_HELP = "write `--set key.path=value`, like `--set export.opset=18`"
_Steps = tuple[tuple[str, Span], ...]


def apply_overrides(document: Document, arguments: Iterable[str]) -> Document:
    """A document with values replaced or added; their places are in the arguments.

    A path goes from key to key with dots between them, `"a.b"` quotes a key that holds one, and a number chooses an
    item of a list. Mappings that are missing on the way are created.

    Raises:
        SpecError: an argument is not `key.path=value`, or leads through a value that is not a mapping.
    """
    root: Node = document.root
    problems: list[Diagnostic] = []
    for index, argument in enumerate(arguments):
        source = SourceFile("--set", argument, argument=index)
        try:
            steps, start = _key(source)
            root = _replaced(root, steps, parse_value(source, start))
        except SpecError as error:
            problems += error.diagnostics
    if problems:
        raise SpecError(in_order(problems))
    if not isinstance(root, Mapping):
        raise TypeError("an override replaced the root of a document")
    return Document(document.source, root)


def _key(source: SourceFile) -> tuple[_Steps, int]:
    """The steps of the path before `=`, and the offset behind it."""
    steps: list[tuple[str, Span]] = []
    offset = 0
    while match := _SEGMENT.match(source.text, offset):
        steps.append((match["quoted"] or match["plain"], source.span(*match.span())))
        offset = match.end()
        if not source.text.startswith(".", offset):
            break
        offset += 1
    if not steps or len(steps) > MAX_DEPTH or not source.text.startswith("=", offset):
        span = source.span(offset, offset + 1)
        expected = "expected a key" if not steps or source.text[offset - 1] == "." else "expected `=` and a value"
        message = f"{quoted(source.text)} is not `key.path=value`"
        raise SpecError([Diagnostic(rules.OVERRIDE_SYNTAX, message, span, expected, help=_HELP)])
    return tuple(steps), offset + 1


def _replaced(node: Node, steps: _Steps, value: Node) -> Node:
    """`node` with `value` at the end of the steps."""
    if not steps:
        return value
    (step, span), rest = steps[0], steps[1:]
    match node:
        case Mapping(entries=entries):
            old = entries.get(step)
            inner = _replaced(old.value if old else Mapping(span, {}), rest, value)
            # A mapping that was there keeps its place; whatever the argument brought has its place in the argument.
            entry = Entry(old.key if old and rest else span, inner)
            return Mapping(node.span, {**entries, step: entry})
        case Sequence(items=items) if step.isdecimal() and int(step[:9]) < len(items):
            index = int(step[:9])
            return Sequence(node.span, (*items[:index], _replaced(items[index], rest, value), *items[index + 1 :]))
        case Scalar(value=None):
            return Mapping(span, {step: Entry(span, _replaced(Mapping(span, {}), rest, value))})
        case Sequence(items=items):
            message, label = (
                f"{quoted(step)} is not an item of this list",
                f"it has {len(items)} item{'s' if len(items) != 1 else ''}",
            )
        case Scalar():
            message, label = f"{quoted(step)} cannot be set in {describe(node)}", "this is not a mapping"
    raise SpecError([Diagnostic(rules.OVERRIDE_PATH, message, span, related=(Related(node.span, label),), help=_HELP)])
