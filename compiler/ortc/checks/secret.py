"""Credentials in a spec."""

from collections.abc import Iterator

from ortc.diagnostics import Diagnostic
from ortc.load import LoadedSpec
from ortc.rules import sources as rules
from ortc.secrets import find_secret
from ortc.source import Mapping, Node, Scalar, Sequence


def check(loaded: LoadedSpec) -> Iterator[Diagnostic]:
    """One diagnostic for each value that looks like a credential."""
    for scalar in _scalars(loaded.document.root):
        if isinstance(scalar.value, str) and (kind := find_secret(scalar.value)) is not None:
            yield Diagnostic(
                rules.SECRET,
                f"this looks like {kind}",
                scalar.span,
                help="keep credentials in the environment; take this one out of the history and revoke it",
            )


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
