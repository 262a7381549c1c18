"""Paths of a spec that lead nowhere."""

from pathlib import Path

from ortc.common.plain_files import is_directory, is_plain, not_plain
from ortc.common.suggest import closest
from ortc.spec.diagnostics.diagnostic import Diagnostic, quoted
from ortc.spec.diagnostics.rules import sources as rules
from ortc.spec.diagnostics.rules.model import Rule
from ortc.spec.diagnostics.source import Span
from ortc.spec.load import LoadedSpec

ROOT_HELP = "relative paths start from the root of the project: the nearest directory with `.git` or `pyproject.toml`"


def missing(loaded: LoadedSpec, span: Span, name: str, what: str, rule: Rule = rules.FILE_MISSING) -> Diagnostic:
    path = loaded.root / name
    kind = not_plain(path) or ("a directory" if is_directory(path) else "a file" if is_plain(path) else None)
    if kind is not None:
        return Diagnostic(rule, f"{quoted(name)} is {kind}, not a {what}", span, help=f"give the path of a {what}")
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
        beside = sorted(entry.name for entry in path.parent.iterdir() if entry.name != path.name)
        return closest(path.name, beside[:1000])
    except (OSError, ValueError):
        return None
