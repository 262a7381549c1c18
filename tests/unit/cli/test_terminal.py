"""What arrives on a terminal, through the streams of every command."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import sys

import pytest
from rich.console import Console

from ortc.cli.expected_steps import ExpectedSteps
from ortc.cli.live_progress import LiveProgress
from ortc.cli.streams import clean_streams

COLORS = re.compile(r"\x1b\[(?:[0-9]+;)*(?:3[0-9]|9[0-7])m")


def whole(terminal: int) -> str:
    """What was written to a terminal that nobody writes to any more."""
    found = b""
    with contextlib.suppress(OSError):  # how Linux tells the end
        while part := os.read(terminal, 1 << 16):
            found += part
    os.close(terminal)
    return found.decode("utf-8")


@pytest.mark.parametrize("no_color", [False, True])
def test_the_live_line_is_no_text(monkeypatch: pytest.MonkeyPatch, *, no_color: bool) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    there, here = pty.openpty()
    with os.fdopen(here, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with clean_streams():
            progress = LiveProgress(Console(file=sys.stderr, highlight=False), "spec.yaml", ExpectedSteps(("cpu",)))
            with progress.step("export", "dynamo"):
                progress.note("a note")
            progress.close()
    text = whole(there)
    assert "a note" in text
    assert "\x1b[2K" in text
    assert "\\u001b" not in text
    assert "\\u000d" not in text
    assert bool(COLORS.search(text)) is not no_color
