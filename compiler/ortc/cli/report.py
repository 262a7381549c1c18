"""Errors on stderr: diagnostics, messages of stages, bugs."""

import errno
import os
import sys
import traceback
from pathlib import Path

from ortc import __version__
from ortc.common.errors import OrtcError, StageError
from ortc.spec.diagnostics.diagnostic import render_text, summary
from ortc.spec.diagnostics.errors import DiagnosticError
from ortc.spec.diagnostics.excerpt import Palette, printable

_OF_PATHS = frozenset(
    {
        errno.EACCES,
        errno.EBUSY,
        errno.EEXIST,
        errno.EINVAL,
        errno.EISDIR,
        errno.ELOOP,
        errno.EMLINK,
        errno.ENAMETOOLONG,
        errno.ENODEV,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.ENOTEMPTY,
        errno.ENOTSUP,
        errno.ENXIO,
        errno.EPERM,
        errno.EROFS,
        errno.ESTALE,
        errno.ETXTBSY,
        errno.EXDEV,
    }
)
"""Errors that the name or the place of a file leads to."""
_LIMITS = {
    errno.EFBIG: ("a file grew larger than the file system, or `ulimit -f`, allows", "raise the limit"),
    errno.EMFILE: ("this process may open no more files", "raise the limit, which `ulimit -n` shows"),
    errno.ENFILE: ("this machine may open no more files", "close some, or raise the limit `fs.file-max`"),
    errno.ENOMEM: ("no memory is left for this process", "free some, or raise the limits of the process or container"),
    errno.EAGAIN: ("this process may start no more processes or threads", "raise the limit, which `ulimit -u` shows"),
    errno.EIO: ("a device failed while it was read or written", "look into the log of the system"),
}
"""What the system refuses whatever the name of the file is: what it says, and what to do."""
_NO_THREAD = "can't start new thread"
"""How Python says so of threads."""
_SURROGATES = "surrogates not allowed"
"""How Python says that a text stands for bytes that are none."""
_CIRCLE = "Symlink loop from "
"""How pathlib says that a path leads in a circle."""
_LONGEST = 200


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


def reached_limit(error: Exception) -> OrtcError | None:
    """The error of a limit of the system or of this process, or of a name; None where a bug is more likely."""
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, UnicodeEncodeError) and error.reason == _SURROGATES:
        return StageError(
            f"a name is not UTF-8: `{printable(ascii(error.object)[1:-1][:_LONGEST])}`",
            help="rename the file; `ortc --debug` shows where it was used",
        )
    if isinstance(error, MemoryError):
        number = errno.ENOMEM
    if isinstance(error, RuntimeError) and str(error) == _NO_THREAD:
        number = errno.EAGAIN
    if number not in _LIMITS:
        return None
    message, way_out = _LIMITS[number]
    return StageError(message, help=way_out)


def refused_path(error: Exception) -> OrtcError | None:
    """The error of a path that the system does not let ortc use; None where a bug of ortc is more likely."""
    if isinstance(error, RuntimeError) and str(error).startswith(_CIRCLE):
        error = OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(error).removeprefix(_CIRCLE).strip("'\""))
    if not isinstance(error, OSError):
        return None
    if error.filename is None or error.errno not in _OF_PATHS:
        return None
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else str(error.filename)
    own = str(Path(__file__).resolve().parents[1])
    if name.startswith((f"{own}/", f"{sys.prefix}/")):
        return None
    shown = name if len(name) <= _LONGEST else f"{name[:_LONGEST]}…"
    return StageError(
        f"cannot use the path `{shown}`: {error.strerror or error}",
        help="check the name, the permissions, and that each part of the path is a directory; `ortc --debug` shows "
        "where it was used",
    )


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
