"""Which files are of the user's checkout: messages show lines of no others that a spec leads to."""

import os
from pathlib import Path

from ortc.spec.diagnostics.diagnostic import Diagnostic, quoted
from ortc.spec.diagnostics.errors import SpecError
from ortc.spec.diagnostics.rules import reuse
from ortc.spec.diagnostics.source import Span

_ROOT_MARKS = (".git", "pyproject.toml")


def project_root(path: Path) -> Path:
    """The nearest directory above a spec that holds `.git` or `pyproject.toml`, else the spec's own."""
    own = path.resolve().parent
    return _marked(own, _ROOT_MARKS) or own


def checkout_of(path: Path) -> Path:
    """The repository that a file is in, else its project; links are followed after that, and not before."""
    own = Path(os.path.normpath(Path.cwd() / path)).parent
    return (_marked(own, _ROOT_MARKS[:1]) or _marked(own, _ROOT_MARKS) or own).resolve()


def keep_inside(path: Path, checkout: Path, span: Span | None = None) -> None:
    """Check that a file, after links, is of a checkout.

    Raises:
        SpecError: it is elsewhere, whether it exists or not.
    """
    try:
        inside = path.resolve().is_relative_to(checkout)
    except (OSError, ValueError, RuntimeError):  # too long a name, a null byte, a circle of links: nothing is there
        return
    if not inside:
        message = f"{quoted(str(path))} leads out of the project"
        advice = "copy the file into the project; specs and profiles are read from there, links included"
        raise SpecError([Diagnostic(reuse.OUTSIDE_PROJECT, message, span, help=advice)])


def _marked(directory: Path, marks: tuple[str, ...]) -> Path | None:
    candidates = (directory, *directory.parents)
    return next((place for place in candidates if any((place / mark).exists() for mark in marks)), None)
