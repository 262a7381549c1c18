"""Bytes of a file to text, bounded and as UTF-8."""

from pathlib import Path

from ortc.diagnostics import Diagnostic
from ortc.errors import SpecError
from ortc.rules import syntax as rules
from ortc.source import SourceFile

MAX_BYTES = 2**20
MAX_LINES = 50_000


def read(path: Path, name: str | None = None) -> SourceFile:
    """The text of a YAML file.

    Args:
        path: The file.
        name: What to call it in messages; the path when not given.

    Raises:
        SpecError: not readable, larger than 1 MiB, longer than 50000 lines, or not UTF-8.
    """
    name = name or str(path)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        message = f"cannot read `{name}`: {reason[:1].lower()}{reason[1:]}"
        raise SpecError([Diagnostic(rules.UNREADABLE, message, help="give the path of a YAML file")]) from None
    return decode(content, name)


def decode(content: bytes, name: str) -> SourceFile:
    """The text of UTF-8 bytes; a byte order mark is dropped.

    Raises:
        SpecError: larger than 1 MiB, longer than 50000 lines, or not UTF-8.
    """
    # Lines are bounded too: PyYAML takes a second for a megabyte of empty ones.
    large, long = len(content) > MAX_BYTES, content.count(b"\n") + content.count(b"\r") > MAX_LINES
    if large or long:
        message = f"`{name}` is larger than 1 MiB" if large else f"`{name}` has more than {MAX_LINES} lines"
        raise SpecError([Diagnostic(rules.TOO_LARGE, message, help="a spec is a few kilobytes; keep data in files")])
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
