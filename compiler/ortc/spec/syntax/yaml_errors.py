"""Places of PyYAML's events in a text, and its syntax errors in the words of the spec language."""

from typing import Any

import yaml

from ortc.spec.diagnostics.diagnostic import Diagnostic, Related
from ortc.spec.diagnostics.rules import syntax as rules
from ortc.spec.diagnostics.source import SourceFile, Span

_MESSAGES = {
    "found character '\\t'": "a tab where YAML expects spaces",
    "found unexpected end of stream": "the quote is never closed",
}
_CONTEXTS = {
    "while parsing a flow mapping": "this mapping starts here",
    "while parsing a flow sequence": "this list starts here",
    "while parsing a block mapping": "this mapping starts here",
    "while parsing a block collection": "this list starts here",
    "while scanning a quoted scalar": "the quote is opened here",
    "while scanning a simple key": "this key starts here",
}
_ADVICE = {
    "found character '\\t'": "YAML indents with spaces; replace the tab",
    "found character": "quote the text when it starts with this character",
    "mapping values are not allowed here": "check the indentation, or quote the text when it holds `: `",
    "could not find expected ':'": "write `key: value`",
    "expected <block end>": "align this line with its neighbours",
    "expected ','": "close the bracket, or put a comma between the values",
    "found unknown escape character": "write `\\\\` for a backslash, or use single quotes",
}


class Places:
    """Spans of what PyYAML reads from a text, which it was given from an offset on."""

    def __init__(self, source: SourceFile, start: int) -> None:
        self.source = source
        self._start = start

    def of(self, event: yaml.events.Event) -> Span:
        """The span of an event."""
        return self.source.span(self.offset(event.start_mark), self.offset(event.end_mark))

    def offset(self, mark: Any) -> int:
        """The offset of one of PyYAML's marks in the whole text; the start where there is no mark."""
        return self._start + (mark.index if mark is not None else 0)

    def of_collection(self, start: yaml.CollectionStartEvent, end: yaml.events.Event, last: Span | None) -> Span:
        """The span of a mapping or list; `last` is that of its last value.

        A block collection ends with its last value; PyYAML would have it end before the next token.
        """
        begin = self.source.position(self.offset(start.start_mark))
        if start.flow_style or last is None:
            return Span(self.source, begin, self.source.position(self.offset(end.end_mark)))
        return Span(self.source, begin, max(last.end, begin))


def syntax_diagnostic(error: yaml.MarkedYAMLError, places: Places) -> Diagnostic:
    """The diagnostic for a text that PyYAML cannot read."""
    offset = places.offset(error.problem_mark or error.context_mark)
    problem = str(error.problem or error.context or "not valid YAML")
    advice = next((text for start, text in _ADVICE.items() if problem.startswith(start)), None)
    message = next((text for start, text in _MESSAGES.items() if problem.startswith(start)), problem)
    related: tuple[Related, ...] = ()
    context = error.context_mark
    if context is not None and error.context and places.offset(context) != offset:
        place = places.source.span(places.offset(context), places.offset(context) + 1)
        label = _CONTEXTS.get(str(error.context), "")
        if problem == "found unexpected end of stream":
            return Diagnostic(rules.SYNTAX, message, place, label)
        if label:
            related = (Related(place, label),)
    return Diagnostic(rules.SYNTAX, message, places.source.span(offset, offset + 1), "", advice, related)
