"""`base: other.yaml`: a spec that starts from another one.

Mappings are merged key by key; every other value replaces the one below it, and an explicit `null` removes it. Each
value keeps the place where it was written, in whichever file that is.
"""

import os
from pathlib import Path

from ortc.common.suggest import closest
from ortc.spec.boundary import checkout_of, keep_inside
from ortc.spec.diagnostics.diagnostic import Diagnostic, Related, quoted
from ortc.spec.diagnostics.errors import SpecError
from ortc.spec.diagnostics.rules import reuse, schema
from ortc.spec.diagnostics.source import Document, Entry, Mapping, Node, Scalar, Span
from ortc.spec.syntax.text import read
from ortc.spec.syntax.yaml_parser import describe, parse

MAX_FILES = 8
KEY = "base"


def inherited(path: Path) -> Document:
    """The document of a spec with everything that its bases give it; `base` itself stays, as its first key.

    Raises:
        SpecError: a file cannot be read, is no YAML mapping or is not of the project, `base` is no path, or the files
            form a circle.
    """
    checkout = checkout_of(path)
    keep_inside(path, checkout)
    document = parse(read(path))
    root, entry = document.root, document.root.entries.get(KEY)
    seen: dict[Path, Span | None] = {path.resolve(): None}
    current = path
    chain = [root]
    step = entry
    while step is not None:
        current = _next(current, step.value, seen, checkout)
        below = parse(read(current)).root
        chain.append(below)
        step = below.entries.get(KEY)
    if entry is None:
        return document
    merged = chain.pop()
    while chain:
        merged = _merged(merged, chain.pop())
    # First, so that a mistake of the whole file is shown in the file that was asked for.
    entries = {KEY: entry, **{key: value for key, value in merged.entries.items() if key != KEY}}
    return Document(document.source, Mapping(root.span, entries))


def _next(path: Path, value: Node, seen: dict[Path, Span | None], checkout: Path) -> Path:
    """The file that a `base` names, added to those seen."""
    if not isinstance(value, Scalar) or not isinstance(value.value, str) or not value.value:
        message = f"`base` must be the path of a spec, not {describe(value)}"
        advice = "remove the key" if isinstance(value, Scalar) and value.value is None else None
        raise SpecError([Diagnostic(schema.WRONG_TYPE, message, value.span, help=advice)])
    place = Path(os.path.normpath(path.parent / value.value))
    keep_inside(place, checkout, value.span)
    try:
        identity = place.resolve()
        exists = place.is_file()
    except (OSError, ValueError, RuntimeError):  # too long a name, a null byte, a circle of links
        exists = False
    if not exists:
        meant = _neighbour(place)
        raise SpecError(
            [
                Diagnostic(
                    reuse.BASE_MISSING,
                    f"there is no file {quoted(str(place))}",
                    value.span,
                    f"did you mean {quoted(meant)}?" if meant else "",
                    help="the path starts from the directory of this file",
                )
            ]
        )
    if identity in seen or len(seen) >= MAX_FILES:
        around = identity in seen
        message = f"{quoted(str(place))} inherits from itself" if around else f"more than {MAX_FILES} specs in a chain"
        steps = tuple(Related(span, "which is the base here") for span in seen.values() if span is not None)
        raise SpecError([Diagnostic(reuse.BASE_CYCLE, message, value.span, related=steps if around else ())])
    seen[identity] = value.span
    return place


def _neighbour(path: Path) -> str | None:
    try:
        return closest(path.name, sorted(entry.name for entry in path.parent.glob("*.y*ml"))[:1000])
    except (OSError, ValueError):
        return None


def _merged(below: Mapping, above: Mapping) -> Mapping:
    entries = dict(below.entries)
    for key, entry in above.entries.items():
        old = entries.get(key)
        match entry.value:
            # A key with nothing behind it is more likely forgotten than a wish to remove; the schema will say so.
            case Scalar(value=None, text=text) if old is not None and text:
                del entries[key]
            case Mapping() as inner if old is not None and isinstance(old.value, Mapping):
                entries[key] = Entry(entry.key, _merged(old.value, inner))
            case _:
                entries[key] = entry
    return Mapping(above.span, entries)
