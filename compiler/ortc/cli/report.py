"""Errors on stderr: diagnostics, messages of stages, bugs."""

import os
import sys
import traceback

from ortc import __version__
from ortc.common.errors import OrtcError
from ortc.spec.diagnostics.diagnostic import render_text, summary
from ortc.spec.diagnostics.errors import DiagnosticError
from ortc.spec.diagnostics.excerpt import Palette, printable


def report_error(error: OrtcError, *, debug: bool = False) -> None:
    """Write what went wrong, and what to do, to stderr."""
    if debug:
        traceback.print_exception(error)
    color = use_color()
    if isinstance(error, DiagnosticError):
        write(f"{render_text(error.diagnostics, color=color)}\n{summary(error.diagnostics)}\n")
        return
    palette = Palette.of(color)
    lines = [f"{palette.error('error')}{palette.bold(': ' + printable(error.message))}"]
    lines += [f"  {printable(line)}" for detail in error.details for line in detail.splitlines()]
    for number, line in enumerate((error.help or "").splitlines()):
        lines.append(f"  {palette.bold('help') + ': ' if number == 0 else '      '}{printable(line)}")
    write("\n".join(lines) + "\n")


def report_bug() -> None:
    """Write the traceback of the exception being handled, and ask for a report, to stderr."""
    traceback.print_exc()
    write(f"\nThis is a bug in ortc {__version__}. Please report it with the lines above, the command and the spec.\n")


def use_color() -> bool:
    """Whether stderr shows colours; see no-color.org and force-color.org."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or (sys.stderr.isatty() and os.environ.get("TERM") != "dumb")


def write(text: str) -> None:
    """Write to stderr, with escapes for what its encoding lacks."""
    encoding = sys.stderr.encoding or "utf-8"
    sys.stderr.write(text.encode(encoding, errors="backslashreplace").decode(encoding))
    sys.stderr.flush()
