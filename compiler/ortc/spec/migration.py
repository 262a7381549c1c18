"""`ortc migrate`: profiles in a former spelling, and how their files read in the present one."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ortc.common.atomic_files import replace_file
from ortc.common.plain_files import read_plain
from ortc.spec.boundary import project_root
from ortc.spec.diagnostics.diagnostic import Diagnostic, in_order
from ortc.spec.diagnostics.errors import SpecError
from ortc.spec.diagnostics.rules.schema import FORMER_KEY
from ortc.spec.diagnostics.source import Document, Mapping, Sequence, SourceFile
from ortc.spec.former_keys import GATES, PLACEMENT, RELATED, former_keys, is_former, migrated, rewritten
from ortc.spec.inheritance import inherited
from ortc.spec.load import is_path
from ortc.spec.placement import moved, unmovable
from ortc.spec.rewriting import Edit, Offsets, edits, is_named, parts_of
from ortc.spec.syntax.text import YAML, read
from ortc.spec.syntax.yaml_parser import parse

_BY_HAND = "write the present spelling by hand: `ortc explain ORTC130`"
_FLOW = re.compile(r"(&\S+\s+)?\{")
_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Migration:
    """A file and what it holds in the present spelling; both texts are equal where there is nothing to do."""

    path: Path
    before: str
    after: str

    @property
    def is_needed(self) -> bool:
        """Whether the file is in a former spelling."""
        return self.before != self.after

    def write(self) -> None:
        """Replace the file in one step, through links, with its permissions and its byte order mark.

        Raises:
            OSError: the file cannot be written; it is as before.
        """
        place = self.path.resolve()
        mark = _MARK if read_plain(place, YAML.most_bytes).startswith(_MARK) else b""
        replace_file(place, mark + self.after.encode(), mode=stat.S_IMODE(place.stat().st_mode), is_durable=True)


def migrations(path: Path) -> tuple[Migration, ...]:
    """Return the present spelling of a profile, or of a spec and every profile of its project that it names.

    Raises:
        SpecError: a file cannot be read, or what it says has no present spelling.
    """
    files = dict.fromkeys((path, *_profiles(path)))
    found: list[Migration] = []
    problems: list[Diagnostic] = []
    for file in files:
        source = read(file)
        try:
            found.append(Migration(file, source.text, migrated_text(source)))
        except SpecError as error:
            problems += error.diagnostics
    if problems:
        raise SpecError(in_order(problems))
    return tuple(found)


def _profiles(path: Path) -> Iterator[Path]:
    """The profiles of a project that a spec or its base names; nothing for a profile."""
    document = parse(read(path))
    kind = document.data.get("kind")
    if kind == "TargetProfile":
        return
    root = project_root(path)
    targets = inherited(path).data.get("targets")
    for name, target in targets.items() if isinstance(targets, dict) else ():
        wanted = (target.get("profile") if isinstance(target, dict) else None) or name
        if isinstance(wanted, str):
            place = Path(wanted) if is_path(wanted) else root / "targets" / f"{wanted}.yaml"
            if place.is_file():
                yield place


def migrated_text(source: SourceFile) -> str:
    """Return the text of a file in the present spelling; a file that is no profile stays as it is.

    Raises:
        SpecError: the text is no YAML, or something in it has no present spelling that says the same.
    """
    document = parse(source)
    if document.data.get("kind") != "TargetProfile" or not any(former_keys(document)):
        return source.text
    problems: list[Diagnostic] = []
    found = sorted(_edits(document, problems), key=lambda edit: edit.start, reverse=True)
    if problems:
        raise SpecError(in_order(problems))
    text = source.text
    for edit in found:
        text = text[: edit.start] + edit.text + text[edit.end :]
    _same(document, text)
    return text


def _edits(document: Document, problems: list[Diagnostic]) -> Iterator[Edit]:
    text = document.source.text
    offset = Offsets(text)
    variants = document.find(["variants"])
    for variant in variants.items if isinstance(variants, Sequence) else ():
        # An alias is rewritten where its anchor is.
        if isinstance(variant, Mapping) and is_former(variant) and text[offset(variant.span.start)] != "*":
            found, parts = rewritten(variant), parts_of(text, variant, offset)
            said = dict(found.problems)
            for part in parts:
                if part.key in RELATED and list(found.lines.get(part.key, {})) != [part.key] and is_named(part.text):
                    said.setdefault(part.key, "its value is an alias or has an anchor")
            for key, why in said.items():
                span = variant.entries[key].key
                problems.append(Diagnostic(FORMER_KEY, f"`{key}` has no present spelling: {why}", span, help=_BY_HAND))
            if not said:
                is_flow = _FLOW.match(text, offset(variant.span.start)) is not None
                yield from edits(text, parts, found, is_flow=is_flow)
    if (entry := document.root.entries.get(PLACEMENT)) is not None:
        gates = document.root.entries.get(GATES)
        if (reason := unmovable(entry, gates)) is not None:
            message = f"`placement` cannot be moved: {reason}"
            problems.append(Diagnostic(FORMER_KEY, message, entry.key, help="move its keys into `gates` by hand"))
        else:
            yield from moved(text, entry, gates, offset)


def _same(before: Document, text: str) -> None:
    """Check that a rewritten text says what it should, and has every comment.

    Raises:
        SpecError: it does not.
    """
    try:
        after = parse(SourceFile(before.source.name, text)).data
    except SpecError:
        after = {}
    if after != migrated(before.data, before) or text.count("#") != before.source.text.count("#"):
        first = next(iter(former_keys(before)))
        message = "this file is written in a way that cannot be rewritten safely"
        raise SpecError([Diagnostic(FORMER_KEY, message, first.span, help=_BY_HAND)])
