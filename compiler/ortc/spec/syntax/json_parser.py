"""JSON with places kept, for documents that programs write and people may edit: RFC 8259, and no key twice."""

from __future__ import annotations

import json
import math
import re
from typing import NoReturn

from ortc.spec.diagnostics.diagnostic import Diagnostic, Related, in_order, quoted
from ortc.spec.diagnostics.errors import SpecError
from ortc.spec.diagnostics.rules import plans as plan_rules
from ortc.spec.diagnostics.rules import syntax as rules
from ortc.spec.diagnostics.rules.model import Rule
from ortc.spec.diagnostics.source import Document, Entry, Mapping, Node, Scalar, Sequence, SourceFile, Span
from ortc.spec.syntax.yaml_parser import HIDDEN, MAX_DEPTH, describe

MAX_NODES = 100_000
_MAX_ERRORS = 100
_MAX_DIGITS = 400
"""More than these are no number that a float could hold."""
_SPACE = re.compile(r"[ \t\n\r]*")
_WORD = re.compile(r"[\w.+-]*")


def parse_json(source: SourceFile) -> Document:
    """The values of a JSON object and their places.

    Raises:
        SpecError: not one JSON object, a key twice in one object, more than 32 levels or 100000 values.
    """
    return _Parser(source).document()


class _Number(Exception):  # noqa: N818  # control flow: json has no other way to say that a number is too large
    """A number beyond what any setting can hold."""


class _Constant(Exception):  # noqa: N818  # control flow, too
    """NaN or an infinity, which JSON does not have."""


def _integer(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise _Number
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise _Number
    return value


def _constant(text: str) -> NoReturn:
    raise _Constant(text)


class _Parser:
    """Walks over objects and lists itself, which keeps the places; Python's decoder reads what is inside."""

    def __init__(self, source: SourceFile) -> None:
        self._source = source
        self._text = source.text
        self._decoder = json.JSONDecoder(parse_int=_integer, parse_float=_float, parse_constant=_constant)
        self._nodes = 0
        self._found: list[Diagnostic] = []

    def document(self) -> Document:
        start = self._skip(0)
        node, end = self._node(start, 1)
        if (rest := self._skip(end)) < len(self._text):
            raise self._error(plan_rules.PLAN_SYNTAX, "something follows the document", rest, "expected the end")
        if not isinstance(node, Mapping):
            self._report(Diagnostic(plan_rules.PLAN_SYNTAX, f"a plan is an object, not {describe(node)}", node.span))
            raise SpecError(in_order(self._found))
        if self._found:
            raise SpecError(in_order(self._found))
        return Document(self._source, node)

    def _skip(self, offset: int) -> int:
        match = _SPACE.match(self._text, offset)
        return match.end() if match else offset

    def _node(self, start: int, depth: int) -> tuple[Node, int]:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise self._error(rules.TOO_LARGE, f"more than {MAX_NODES} values", start, "the limit is passed here")
        if depth > MAX_DEPTH:
            raise self._error(rules.TOO_DEEP, f"nested more than {MAX_DEPTH} levels deep", start, "too deep")
        first = self._text[start : start + 1]
        if first == "{":
            return self._mapping(start, depth)
        if first == "[":
            return self._sequence(start, depth)
        return self._scalar(start)

    def _scalar(self, start: int) -> tuple[Scalar, int]:
        try:
            value, end = self._decoder.raw_decode(self._text, start)
        except json.JSONDecodeError as error:
            raise self._no_value(start, error) from None
        except _Constant as error:
            message = f"JSON has no `{error}`"
            raise self._error(plan_rules.PLAN_SYNTAX, message, start, "expected a finite number") from None
        except _Number:
            word = _WORD.match(self._text, start)
            end = word.end() if word else start + 1
            span = self._source.span(start, end)
            self._report(Diagnostic(rules.NUMBER_TOO_LARGE, "this number is too large", span))
            return Scalar(span, 0, "0", plain=True), end
        span = self._source.span(start, end)
        if isinstance(value, str):
            if bad := HIDDEN.search(value):
                message = f"this string holds the control character U+{ord(bad.group()):04X}"
                self._report(Diagnostic(rules.CONTROL_CHARACTER, message, span, help="remove it"))
                value = ""
            return Scalar(span, value, value, plain=False), end
        return Scalar(span, value, self._text[start:end], plain=True), end

    def _no_value(self, start: int, error: json.JSONDecodeError) -> SpecError:
        if start >= len(self._text):
            return self._error(plan_rules.PLAN_SYNTAX, "the document ends here", start, "expected a value")
        if self._text[start] == '"':
            if error.msg.startswith("Unterminated string"):
                return self._error(plan_rules.PLAN_SYNTAX, "the quote is never closed", start, "opened here")
            return self._error(plan_rules.PLAN_SYNTAX, f"not a JSON string: {error.msg.lower()}", error.pos)
        word = _WORD.match(self._text, start)
        found = word.group() if word else ""
        message = f"{quoted(found or self._text[start])} is no JSON value"
        return self._error(plan_rules.PLAN_SYNTAX, message, start, "expected a value", length=max(1, len(found)))

    def _sequence(self, start: int, depth: int) -> tuple[Sequence, int]:
        items: list[Node] = []
        offset = self._skip(start + 1)
        if self._text[offset : offset + 1] != "]":
            while True:
                node, end = self._node(offset, depth + 1)
                items.append(node)
                offset = self._separator(end, start, "]")
                if self._text[offset] == "]":
                    break
                offset = self._skip(offset + 1)
        return Sequence(self._source.span(start, offset + 1), tuple(items)), offset + 1

    def _mapping(self, start: int, depth: int) -> tuple[Mapping, int]:
        entries: dict[str, Entry] = {}
        offset = self._skip(start + 1)
        if self._text[offset : offset + 1] != "}":
            while True:
                key, end = self._key(offset, start)
                offset = self._skip(end)
                if self._text[offset : offset + 1] != ":":
                    raise self._open(offset, start, "expected `:` and a value")
                node, end = self._node(self._skip(offset + 1), depth + 1)
                self._add(entries, key, node)
                offset = self._separator(end, start, "}")
                if self._text[offset] == "}":
                    break
                offset = self._skip(offset + 1)
        return Mapping(self._source.span(start, offset + 1), entries), offset + 1

    def _key(self, offset: int, opened: int) -> tuple[Scalar, int]:
        if self._text[offset : offset + 1] != '"':
            raise self._open(offset, opened, "expected a key in double quotes")
        return self._scalar(offset)

    def _add(self, entries: dict[str, Entry], key: Scalar, node: Node) -> None:
        if key.text in entries:
            message = f"the key {quoted(key.text)} appears twice in one object"
            related = (Related(entries[key.text].key, "first here"),)
            advice = "keep one of the two"
            self._report(Diagnostic(rules.DUPLICATE_KEY, message, key.span, "again here", advice, related))
        else:
            entries[key.text] = Entry(key.span, node)

    def _separator(self, end: int, opened: int, closing: str) -> int:
        """Where the comma or the closing bracket after a value stands."""
        offset = self._skip(end)
        if self._text[offset : offset + 1] not in {",", closing}:
            raise self._open(offset, opened, f"expected `,` or `{closing}`")
        return offset

    def _open(self, offset: int, opened: int, expected: str) -> SpecError:
        """What an object or a list that is still open lacks."""
        what = "object" if self._text[opened] == "{" else "list"
        related = (Related(self._source.span(opened, opened + 1), f"this {what} starts here"),)
        message = "the document ends here" if offset >= len(self._text) else "this is not well-formed JSON"
        return self._error(plan_rules.PLAN_SYNTAX, message, offset, expected, related=related)

    def _report(self, diagnostic: Diagnostic) -> None:
        """Keep a mistake that reading can go on after; too many end it."""
        self._found.append(diagnostic)
        if len(self._found) >= _MAX_ERRORS:
            raise SpecError(in_order(self._found))

    def _error(
        self,
        rule: Rule,
        message: str,
        offset: int,
        label: str = "",
        *,
        length: int = 1,
        related: tuple[Related, ...] = (),
    ) -> SpecError:
        span: Span = self._source.span(offset, offset + length)
        return SpecError(in_order([*self._found, Diagnostic(rule, message, span, label, related=related)]))
