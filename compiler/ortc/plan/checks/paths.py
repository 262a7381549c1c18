"""Paths of a spec that lead nowhere."""

from pathlib import Path

from ortc.common.suggest import closest
from ortc.spec.diagnostics.diagnostic import Diagnostic, quoted
from ortc.spec.diagnostics.rules import sources as rules
from ortc.spec.diagnostics.rules.model import Rule
from ortc.spec.diagnostics.source import Span
from ortc.spec.load import LoadedSpec

ROOT_HELP = "relative paths start from the root of the project: the nearest directory with `.git` or `pyproject.toml`"


def missing(loaded: LoadedSpec, span: Span, name: str, what: str, rule: Rule = rules.FILE_MISSING) -> Diagnostic:
    meant = neighbour(loaded.root / name)
    place = f"{Path(name).parent}/" if Path(name).parent != Path() else ""
    return Diagnostic(
        rule,
        f"there is no {what} {quoted(name)}",
        span,
        f"did you mean `{place}{meant}`?" if meant else "",
        help=ROOT_HELP,
    )


def neighbour(path: Path) -> str | None:
    """A file or directory beside a missing one that has nearly its name."""
    try:
        return closest(path.name, sorted(entry.name for entry in path.parent.iterdir())[:1000])
    except OSError:
        return None
