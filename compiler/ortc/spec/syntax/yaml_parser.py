"""The one YAML loader: YAML 1.2 core types, places kept, and every construct that surprises refused.

PyYAML's own loaders read `1e-3` as a string, `on` as a bool and `12:30` as 750, and keep the last of two equal keys
without a word; so only its events are used here. Types: YAML 1.2.2, section 10.3.2 (core schema).
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import yaml

from ortc.spec.diagnostics.diagnostic import Diagnostic, Related, in_order, quoted
from ortc.spec.diagnostics.errors import SpecError
from ortc.spec.diagnostics.rules import syntax as rules
from ortc.spec.diagnostics.rules.model import Rule
from ortc.spec.diagnostics.source import Document, Entry, Mapping, Node, Scalar, Sequence, SourceFile, Span
from ortc.spec.syntax.scalars import core_value
from ortc.spec.syntax.yaml_errors import Places, syntax_diagnostic

MAX_DEPTH = 32
MAX_NODES = 10_000
_MAX_ERRORS = 100
_Starts = yaml.ScalarEvent | yaml.SequenceStartEvent | yaml.MappingStartEvent
_UNPRINTABLE = yaml.reader.Reader.NON_PRINTABLE
HIDDEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
"""Characters that no text of a spec or a plan may hold: those that show nothing, or are half of one."""


@lru_cache(maxsize=64)
def parse(source: SourceFile) -> Document:
    """The values of a text and their places; nobody changes them, so that equal texts have one.

    Raises:
        SpecError: not one YAML mapping with string keys, or one of the constructs that the spec language leaves out.
    """
    node = _Parser(source, 0).document()
    if not isinstance(node, Mapping):
        message = "the file is empty" if isinstance(node, Scalar) and node.value is None else "expected a mapping"
        label = "" if isinstance(node, Scalar) and node.value is None else f"this is {describe(node)}"
        raise SpecError(
            [Diagnostic(rules.NOT_A_MAPPING, message, node.span, label, help="start with `apiVersion: ortc/v1alpha1`")]
        )
    return Document(source, node)


def parse_value(source: SourceFile, start: int) -> Node:
    """The value that a text holds from offset `start` on, read like a value of a file.

    Raises:
        SpecError: not one YAML value.
    """
    return _Parser(source, start).document()


def describe(node: Node) -> str:
    """What a node is, in words."""
    match node:
        case Mapping():
            return "a mapping"
        case Sequence():
            return "a list"
        case Scalar(value=None):
            return "nothing" if not node.text else "null"
        case Scalar(value=bool()):
            return "a boolean"
        case Scalar(value=int()):
            return "an integer"
        case Scalar(value=float()):
            return "a number"
        case _:
            return "a string"


class _Parser:
    """Builds nodes from the events of PyYAML, bounded in depth and size."""

    def __init__(self, source: SourceFile, start: int) -> None:
        self._source = source
        self._start = start
        self._places = Places(source, start)
        self._anchors: dict[str, tuple[Node, int, int]] = {}
        self._open: set[str] = set()
        self._nodes = 0
        self._found: list[Diagnostic] = []
        self._events: Iterator[yaml.events.Event] = iter(())

    def document(self) -> Node:
        text = self._source.text[self._start :]
        if bad := _UNPRINTABLE.search(text):
            message = f"the control character U+{ord(bad.group()):04X} is not allowed in YAML"
            span = self._source.span(self._start + bad.start(), self._start + bad.end())
            raise self._error(rules.CONTROL_CHARACTER, message, span, help="remove it")
        self._events = yaml.parse(text, Loader=yaml.SafeLoader)
        with self._yaml_errors():
            node = self._document()
        if self._found:
            raise SpecError(in_order(self._found))
        return node

    def _document(self) -> Node:
        next(self._events)
        event = next(self._events)
        if isinstance(event, yaml.StreamEndEvent):
            return Scalar(self._source.span(self._start, self._start), None, "", plain=True)
        node, _, _ = self._node(next(self._events), 1)
        next(self._events)
        event = next(self._events)
        if not isinstance(event, yaml.StreamEndEvent):
            raise self._error(
                rules.SEVERAL_DOCUMENTS,
                "the file holds more than one YAML document",
                self._places.of(event),
                "a second document starts here",
                help="put each spec into its own file",
            )
        return node

    def _node(self, event: yaml.events.Event, depth: int) -> tuple[Node, int, int]:
        """A node, the number of nodes in it with aliases expanded, and its height."""
        span = self._places.of(event)
        if depth > MAX_DEPTH:
            raise self._error(rules.TOO_DEEP, f"nested more than {MAX_DEPTH} levels deep", span, "too deep")
        if isinstance(event, yaml.AliasEvent):
            return self._alias(str(event.anchor), span, depth)
        if not isinstance(event, _Starts):
            raise TypeError(f"unexpected event {event!r}")
        self._count(1, span)
        if event.tag is not None:
            message = "tags are not part of the spec language"
            self._report(Diagnostic(rules.TAG, message, span, help="remove the tag; quote a value to make it text"))
        anchor = event.anchor
        if anchor is not None:
            self._open.add(anchor)
        result: tuple[Node, int, int]
        if isinstance(event, yaml.ScalarEvent):
            result = (self._scalar(event, span), 1, 1)
        elif isinstance(event, yaml.SequenceStartEvent):
            result = self._sequence(event, depth)
        else:
            result = self._mapping(event, depth)
        if anchor is not None:
            self._open.discard(anchor)
            self._anchors[anchor] = result
        return result

    def _alias(self, anchor: str, span: Span, depth: int) -> tuple[Node, int, int]:
        if anchor in self._open:
            raise self._error(rules.ALIAS, f"`*{anchor}` stands inside the value that it names", span)
        if anchor not in self._anchors:
            raise self._error(rules.ALIAS, f"no anchor `&{anchor}` before this place", span, "unknown anchor")
        node, size, height = self._anchors[anchor]
        if depth + height - 1 > MAX_DEPTH:
            raise self._error(rules.TOO_DEEP, f"nested more than {MAX_DEPTH} levels deep", span, "too deep")
        self._count(size, span)
        match node:
            case Scalar():
                node = Scalar(span, node.value, node.text, node.plain)
            case Sequence():
                node = Sequence(span, node.items)
            case Mapping():
                node = Mapping(span, node.entries)
        return node, size, height

    def _sequence(self, start: yaml.SequenceStartEvent, depth: int) -> tuple[Node, int, int]:
        items: list[Node] = []
        size, height = 1, 0
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            node, nodes, levels = self._node(event, depth + 1)
            items.append(node)
            size, height = size + nodes, max(height, levels)
        span = self._places.of_collection(start, event, items[-1].span if items else None)
        return Sequence(span, tuple(items)), size, height + 1

    def _mapping(self, start: yaml.MappingStartEvent, depth: int) -> tuple[Node, int, int]:
        entries: dict[str, Entry] = {}
        size, height = 1, 0
        last: Span | None = None
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key, _, _ = self._node(event, depth + 1)
            self._check_key(key, entries)
            node, nodes, levels = self._node(next(self._events), depth + 1)
            if isinstance(key, Scalar) and isinstance(key.value, str):
                entries.setdefault(key.value, Entry(key.span, node))
            size, height, last = size + nodes + 1, max(height, levels), node.span
        return Mapping(self._places.of_collection(start, event, last), entries), size, height + 1

    def _check_key(self, key: Node, entries: dict[str, Entry]) -> None:
        if not isinstance(key, Scalar) or not isinstance(key.value, str):
            text = key.text if isinstance(key, Scalar) else ""
            advice = f'quote it: `"{text}"`' if text else None
            self._report(
                Diagnostic(
                    rules.KEY_NOT_A_STRING, "a key must be a string", key.span, f"this is {describe(key)}", advice
                )
            )
        elif key.value in entries:
            self._report(
                Diagnostic(
                    rules.DUPLICATE_KEY,
                    f"the key {quoted(key.value)} appears twice in one mapping",
                    key.span,
                    "again here",
                    help="keep one of the two",
                    related=(Related(entries[key.value].key, "first here"),),
                )
            )

    def _scalar(self, event: yaml.ScalarEvent, span: Span) -> Scalar:
        text: str = event.value
        if bad := HIDDEN.search(text):
            message = f"this string holds the control character U+{ord(bad.group()):04X}"
            self._report(Diagnostic(rules.CONTROL_CHARACTER, message, span, help="remove it"))
            return Scalar(span, "", "", plain=False)
        if event.style is not None or not event.implicit[0]:
            return Scalar(span, text, text, plain=False)
        try:
            return Scalar(span, core_value(text), text, plain=True)
        except OverflowError:
            message, advice = "this number is too large", "quote it if it is text"
            self._report(Diagnostic(rules.NUMBER_TOO_LARGE, message, span, help=advice))
            return Scalar(span, 0, text, plain=True)

    def _report(self, diagnostic: Diagnostic) -> None:
        """Keep a mistake that reading can go on after; too many end it."""
        self._found.append(diagnostic)
        if len(self._found) >= _MAX_ERRORS:
            raise SpecError(in_order(self._found))

    def _count(self, nodes: int, span: Span) -> None:
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            raise self._error(
                rules.TOO_MANY_VALUES,
                f"more than {MAX_NODES} values, aliases expanded",
                span,
                "the limit is passed here",
                help="a spec holds a few dozen values; keep data in files",
            )

    @contextmanager
    def _yaml_errors(self) -> Iterator[None]:
        try:
            yield
        except yaml.MarkedYAMLError as error:
            raise SpecError(in_order([*self._found, syntax_diagnostic(error, self._places)])) from None
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            # PyYAML converts `%YAML` versions and `\U` escapes without looking at their size.
            span = self._source.span(self._start, self._start)
            raise self._error(rules.SYNTAX, f"not valid YAML: {str(error).splitlines()[0]}", span) from None

    def _error(
        self,
        rule: Rule,
        message: str,
        span: Span,
        label: str = "",
        *,
        help: str | None = None,  # noqa: A002
        related: tuple[Related, ...] = (),
    ) -> SpecError:
        return SpecError(in_order([*self._found, Diagnostic(rule, message, span, label, help, related)]))
