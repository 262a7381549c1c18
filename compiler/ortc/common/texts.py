"""What texts may hold that others write: they reach terminals, logs, Dockerfiles, manifests and pages."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

MOST = 4096
"""Most characters of a text; reasons and names of processors take some hundreds."""


def one_line(text: str) -> str:
    """The text with every character written out that would end a line, move a cursor or hide others."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def shown(text: str, most: int = 80) -> str:
    """The text on one line, cut to so many characters: for names of any length in messages."""
    plain = one_line(text[: most + 1])
    return plain if len(plain) <= most else f"{plain[: most - 1]}…"


def _is_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("expected one line of printable characters")
    return text


def _cleaned(text: str) -> str:
    plain = one_line(text)
    return plain if len(plain) <= MOST else f"{plain[: MOST - 1]}…"


def _matching(pattern: str, expected: str) -> AfterValidator:
    compiled = re.compile(pattern, re.ASCII)

    def check(text: str) -> str:
        if not compiled.fullmatch(text):
            raise ValueError(f"expected {expected}")
        return text

    return AfterValidator(check)


def _is_inner(text: str) -> str:
    if not text.isprintable() or len(text) > MOST or any(step in ("", ".", "..") for step in text.split("/")):
        raise ValueError("expected the path of a file below a directory")
    return text


Line = Annotated[str, Field(min_length=1, max_length=MOST), AfterValidator(_is_line)]
"""A text that somebody wrote on purpose; anything but one printable line is refused."""
Cleaned = Annotated[str, AfterValidator(_cleaned)]
"""A text that comes from messages and machines; what does not belong on one line is written out, the rest is cut."""
Label = Annotated[
    str, _matching(r"[A-Za-z0-9_][A-Za-z0-9_.:+/ -]{0,254}", "letters, digits, spaces and `_.:+/-`, at most 255")
]
"""A name of the field's: of a package, a provider, a revision, an instruction set."""
Image = Annotated[
    str,
    _matching(
        r"[A-Za-z0-9][A-Za-z0-9_./:+-]{0,254}(@sha256:[0-9a-f]{64})?",
        "a container image like `python:3.12-slim`, also with its digest: `python:3.12-slim@sha256:` and 64 hex digits",
    ),
]
"""The reference of a container image, by tag or by digest."""
Inner = Annotated[str, AfterValidator(_is_inner)]
"""The path of a file below a directory."""
