"""`ortc lock --update-digests`: the text of a spec with the digests that its files have now."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ortc.plan.checks.digests import declared
from ortc.spec.diagnostics.diagnostic import Diagnostic, in_order, quoted
from ortc.spec.diagnostics.errors import SpecError
from ortc.spec.diagnostics.rules.sources import DIGEST_DIFFERS, FILE_MISSING
from ortc.spec.diagnostics.source import Span
from ortc.spec.load import load_spec
from ortc.spec.migration import Migration
from ortc.spec.rewriting import Edit, Offsets


@dataclass(frozen=True, slots=True)
class Update:
    """A digest that is replaced."""

    name: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class DigestUpdates:
    """What is replaced, in the order of the spec, and the files that hold it: the spec, and what it inherits."""

    updates: tuple[Update, ...]
    files: tuple[Migration, ...]


def digest_updates(path: Path) -> DigestUpdates:
    """Compare the digests of a spec with its files; nothing is written.

    Raises:
        SpecError: the spec is none, a file is missing or lies outside of the project, or a digest is written in a way
            that cannot be replaced safely.
    """
    loaded = load_spec(path)
    updates: list[Update] = []
    edits: dict[str, tuple[str, list[Edit]]] = {}
    problems: list[Diagnostic] = []
    for entry in declared(loaded):
        span, found = loaded.document.locate(entry.at), entry.found(loaded.root)
        if found is None:
            message = f"{quoted(entry.name)} is no file of the project"
            problems.append(Diagnostic(FILE_MISSING, message, span, help="put it there, or remove its digest by hand"))
        elif found != entry.sha256:
            edit = _edit(span, entry.sha256, found)
            if edit is None:
                message = f"the digest of {quoted(entry.name)} is written in a way that cannot be replaced safely"
                problems.append(Diagnostic(DIGEST_DIFFERS, message, span, help=f"write it by hand: {found}"))
                continue
            updates.append(Update(entry.name, entry.sha256, found))
            edits.setdefault(span.source.name, (span.source.text, []))[1].append(edit)
    if problems:
        raise SpecError(in_order(problems))
    files = tuple(Migration(Path(name), text, _edited(text, found)) for name, (text, found) in edits.items())
    return DigestUpdates(tuple(updates), files)


def _edit(span: Span, before: str, after: str) -> Edit | None:
    """The digits of a digest where they stand, None where they do not: an anchor, an alias, a folded text."""
    text, offset = span.source.text, Offsets(span.source.text)
    start, end = offset(span.start), offset(span.end)
    written = text[start:end]
    if written.strip("'\"") != before or span.source.argument is not None:
        return None
    place = start + written.index(before)
    return Edit(place, place + len(before), after)


def _edited(text: str, edits: list[Edit]) -> str:
    # A model and its teacher may take one digest from one place of a base: it is replaced once.
    for edit in sorted(set(edits), key=lambda found: found.start, reverse=True):
        text = text[: edit.start] + edit.text + text[edit.end :]
    return text
