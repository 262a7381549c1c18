"""Credentials in a spec: in its values, and in what else is written into the file."""

from collections.abc import Iterator

from ortc.common.redaction import find_secret, find_secrets
from ortc.spec.diagnostics.diagnostic import Diagnostic
from ortc.spec.diagnostics.rules import sources as rules
from ortc.spec.diagnostics.source import Mapping, Node, Scalar, Sequence, SourceFile, Span
from ortc.spec.load import LoadedSpec


def check(loaded: LoadedSpec) -> Iterator[Diagnostic]:
    """One diagnostic for each value that looks like a credential, and for each credential in a key or a comment."""
    sources: dict[SourceFile, set[int]] = {loaded.document.source: set()}
    for scalar in _scalars(loaded.document.root):
        lines = sources.setdefault(scalar.span.source, set())
        if isinstance(scalar.value, str) and (kind := find_secret(scalar.value)) is not None:
            lines.update(range(scalar.span.start.line, scalar.span.end.line + 1))
            yield _diagnostic(kind, scalar.span)
    for source, told in sources.items():
        for kind, start, end in find_secrets(source.text):
            span = source.span(start, end)
            if span.start.line not in told:
                yield _diagnostic(kind, span)


def _diagnostic(kind: str, span: Span) -> Diagnostic:
    advice = "keep credentials in the environment; take this one out of the history and revoke it"
    return Diagnostic(rules.SECRET, f"this looks like {kind}", span, help=advice)


def _scalars(node: Node) -> Iterator[Scalar]:
    match node:
        case Scalar():
            yield node
        case Sequence(items=items):
            for item in items:
                yield from _scalars(item)
        case Mapping(entries=entries):
            for entry in entries.values():
                yield from _scalars(entry.value)
