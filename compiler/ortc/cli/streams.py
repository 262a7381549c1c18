"""What reaches a terminal or a log: text without escapes and commands that others wrote into it.

Every command writes through these streams, so no place that prints has to remember to clean what it prints.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from ortc.common.permissions import masked

_COLOR = r"\x1b\[[0-9;]*m"
_SPINNER = r"\x1b\[(?:\?25[lh]|[0-9]*[ABCDGK]|2K)|\r"
_UNSAFE = "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff\ufff9-\ufffb]"
"""Control characters but for tabs and line breaks, and characters that hide or reorder others."""
_PLAIN = re.compile(_UNSAFE)
_ON_TERMINAL = re.compile(f"({_COLOR}|{_SPINNER})|({_UNSAFE})")
_COMMAND = re.compile(r"(?m)^([ \t]*):(?=:)|##(?=\[|vso\[)")
"""Where GitHub, Azure Pipelines and their like take a line of a log for a command."""


def clean(text: str, *, colored: bool = False) -> str:
    """The text with everything written out that a terminal or a runner of workflows would act upon.

    Args:
        text: What is printed.
        colored: Whether it goes to a terminal, with colours and a spinner of ortc's own.
    """
    if colored:
        text = _ON_TERMINAL.sub(lambda match: match[1] or _written_out(match[2]), text)
    else:
        text = _PLAIN.sub(lambda match: _written_out(match[0]), text)
    return _COMMAND.sub(lambda match: f"{match[1]}: " if match[0].endswith(":") else "\\u0023#", text)


def _written_out(char: str) -> str:
    # As JSON writes it, too: documents keep their values.
    return f"\\u{ord(char):04x}"


class CleanStream:
    """A text stream that cleans what is written; everything else is the stream's below."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write a text, cleaned and without values that a spec took from the environment."""
        self.stream.write(clean(masked(text), colored=_takes_escapes(self.stream)))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write texts."""
        for line in lines:
            self.write(line)


def write_raw(text: str) -> None:
    """Write to stdout what programs read as it is: commands whose values are escaped already, plans."""
    stream = sys.stdout
    (stream.stream if isinstance(stream, CleanStream) else stream).write(text)


@contextlib.contextmanager
def clean_streams() -> Iterator[None]:
    """While a command runs: stdout and stderr are cleaned."""
    before = sys.stdout, sys.stderr
    for stream in before:
        # A parent that reads without waiting may have handed down such a pipe; Python's own streams cannot write to it.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            os.set_blocking(stream.fileno(), True)
    sys.stdout, sys.stderr = (stream if isinstance(stream, CleanStream) else CleanStream(stream) for stream in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _takes_escapes(stream: TextIO) -> bool:
    # NO_COLOR takes the colours away, not the live line, which moves the cursor.
    return bool(os.environ.get("FORCE_COLOR")) or stream.isatty()
