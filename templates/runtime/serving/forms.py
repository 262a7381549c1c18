"""Forms of multipart/form-data (RFC 7578): files and short fields, within bounds."""

from __future__ import annotations

import re
from dataclasses import dataclass

from serving.bounds import LONGEST_NAME, MOST_FILES
from serving.errors import RefusedError, bad

BOUNDARY = re.compile(
    r'\s*multipart/form-data\s*;\s*boundary=(?:"([^"\r\n]{1,70})"|([^\s";,]{1,70}))\s*', re.IGNORECASE
)
NAME = re.compile(rb'^content-disposition:\s*form-data\s*;(?:[^\r\n]*;)?\s*name="([^"\r\n]{1,64})"', re.I | re.M)
FIELDS = ("model", "user")
MOST_PARTS = MOST_FILES + len(FIELDS)
MOST_HEAD = 4096  # bytes of the headers of a part


@dataclass(frozen=True)
class Form:
    """The fields of a form, and its files with the names of their parts, in the order in which they came."""

    fields: dict[str, str]
    files: list[dict[str, memoryview]]


def is_form(content_type: str) -> bool:
    """Whether a body is a form, by its type."""
    return content_type.strip().lower().startswith("multipart/")


def parse(content: bytes | bytearray, content_type: str, names: tuple[str, ...]) -> Form:
    """The form of a body, whose files are the parts of some names.

    Raises:
        RefusedError: 400, it is malformed, or has another part; 413, it has too many; 415, it is another multipart.
    """
    found = BOUNDARY.fullmatch(content_type)
    if found is None:
        raise RefusedError(415, "request", "Content-Type is not multipart/form-data with a boundary")
    delimiter = b"--" + (found[1] or found[2]).encode("latin-1")
    form = Form({}, [])
    for part in _parts(content, delimiter):
        head, _, _ = bytes(part[:MOST_HEAD]).partition(b"\r\n\r\n")
        named = NAME.search(head)
        if named is None or len(head) == len(bytes(part[:MOST_HEAD])):
            raise bad(f"a part of the form has no headers with a name, within {MOST_HEAD} bytes")
        name, value = named[1].decode("latin-1"), part[len(head) + 4 :]
        if name in names:
            form.files.append({name: value})
        elif name in FIELDS and name not in form.fields and len(value) <= LONGEST_NAME:
            form.fields[name] = _text(value, name)
        else:
            said = " or ".join(names)
            raise bad(f"the form has the part {name!r} that is not expected, twice, or too long; send {said} and model")
    return form


def _parts(content: bytes | bytearray, delimiter: bytes) -> list[memoryview]:
    """What is between the delimiters."""
    if not content.startswith(delimiter + b"\r\n"):
        raise bad("the body does not begin with the boundary of its form")
    view, parts, at = memoryview(content), list[memoryview](), len(delimiter) + 2
    while True:
        end = content.find(b"\r\n" + delimiter, at)
        if end < 0:
            raise bad("the body ends before its form does")
        parts.append(view[at:end])
        if len(parts) > MOST_PARTS:
            raise RefusedError(413, "too-large", f"the form has more than {MOST_PARTS} parts")
        at = end + 2 + len(delimiter)
        if content[at : at + 2] == b"--":
            return parts
        if content[at : at + 2] != b"\r\n":
            raise bad("a boundary of the form is malformed")
        at += 2


def _text(value: memoryview, name: str) -> str:
    try:
        return bytes(value).decode("utf-8")
    except UnicodeDecodeError as error:
        raise bad(f"the field {name} of the form is not UTF-8") from error
