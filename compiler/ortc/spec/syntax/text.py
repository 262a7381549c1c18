"""Bytes of a file to text, bounded and as UTF-8."""

from dataclasses import dataclass
from pathlib import Path

from ortc.common.plain_files import open_plain
from ortc.spec.diagnostics.diagnostic import Diagnostic
from ortc.spec.diagnostics.errors import SpecError
from ortc.spec.diagnostics.rules import syntax as rules
from ortc.spec.diagnostics.source import SourceFile

MAX_BYTES = 2**20
MAX_LINES = 50_000


@dataclass(frozen=True, slots=True)
class Kind:
    """What a text is, and how large one may be."""

    what: str
    most_bytes: int
    most_lines: int
    advice: str


# Lines are bounded too: PyYAML takes a second for a megabyte of empty ones.
YAML = Kind("a YAML file", MAX_BYTES, MAX_LINES, "a spec is a few kilobytes; keep data in files")
PLAN = Kind("a plan, which `ortc plan SPEC --print` writes", 2**22, 2**22, "fewer dynamic axes make a smaller plan")


def read(path: Path, name: str | None = None, kind: Kind = YAML) -> SourceFile:
    """The text of a file.

    Args:
        path: The file.
        name: What to call it in messages; the path when not given.
        kind: What it is.

    Raises:
        SpecError: not readable, larger than its kind may be, or not UTF-8.
    """
    name = name or str(path)
    try:
        with open_plain(path) as file:
            content = file.read(kind.most_bytes + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        message = f"cannot read `{name}`: {reason[:1].lower()}{reason[1:]}"
        raise SpecError([Diagnostic(rules.UNREADABLE, message, help=f"give the path of {kind.what}")]) from None
    return decode(content, name, kind)


def decode(content: bytes, name: str, kind: Kind = YAML) -> SourceFile:
    """The text of UTF-8 bytes; a byte order mark is dropped.

    Raises:
        SpecError: larger than its kind may be, or not UTF-8.
    """
    limit = None
    if len(content) > kind.most_bytes:
        limit = f"is larger than {kind.most_bytes // 2**20} MiB"
    elif content.count(b"\n") + content.count(b"\r") > kind.most_lines:
        limit = f"has more than {kind.most_lines} lines"
    if limit is not None:
        raise SpecError([Diagnostic(rules.TOO_LARGE, f"`{name}` {limit}", help=kind.advice)])
    try:
        return SourceFile(name, content.decode("utf-8").removeprefix("\ufeff"))
    except UnicodeDecodeError as error:
        if content.startswith((b"\xff\xfe", b"\xfe\xff")):
            message = f"`{name}` is UTF-16, not UTF-8"
            raise SpecError([Diagnostic(rules.NOT_UTF8, message, help="save the file as UTF-8")]) from None
        valid = content[: error.start].decode("utf-8").removeprefix("\ufeff")
        source = SourceFile(name, valid + content[error.start :].decode("utf-8", errors="replace"))
        raise SpecError(
            [
                Diagnostic(
                    rules.NOT_UTF8,
                    f"byte 0x{content[error.start]:02x} at offset {error.start} is not UTF-8",
                    source.span(len(valid), len(valid) + 1),
                    "not UTF-8",
                    help="save the file as UTF-8",
                )
            ]
        ) from None
