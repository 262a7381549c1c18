"""`ortc check`: validate specs without building anything."""

import sys
from pathlib import Path

import rich_click as click

from ortc.cli.options import set_option, trust_options
from ortc.cli.report import use_color, write
from ortc.cli.streams import write_raw
from ortc.plan.checks import check_spec
from ortc.spec.diagnostics.diagnostic import Diagnostic, render_text, summary, to_github, to_json
from ortc.spec.diagnostics.errors import SpecError
from ortc.spec.diagnostics.excerpt import printable


@click.command
@click.argument("specs", metavar="SPEC...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--output-format",
    type=click.Choice(["text", "json", "github", "sarif"]),
    default="text",
    show_default=True,
    help="How to show what is wrong: for people, for programs, as workflow commands of GitHub, or for code scanning.",
)
@set_option("the specs")
@trust_options
def check(specs: tuple[Path, ...], output_format: str, overrides: tuple[str, ...]) -> int:
    """Validate specs without building anything.

    Exits with 3 when one of them has an error. Warnings do not change the exit code.
    """
    found: dict[str, tuple[Diagnostic, ...]] = {str(path): _diagnose(path, overrides) for path in specs}
    every = tuple(dict.fromkeys(diagnostic for diagnostics in found.values() for diagnostic in diagnostics))
    if output_format == "json":
        sys.stdout.write(to_json(every))
    elif output_format == "github":
        write_raw(to_github(every))
    elif output_format == "sarif":
        from ortc.spec.diagnostics.sarif import to_sarif

        sys.stdout.write(to_sarif(every))
    else:
        _show(found, every)
    return SpecError.exit_code if any(diagnostic.severity == "error" for diagnostic in every) else 0


def _diagnose(path: Path, overrides: tuple[str, ...]) -> tuple[Diagnostic, ...]:
    try:
        return check_spec(path, overrides).warnings
    except SpecError as error:
        return error.diagnostics


def _show(found: dict[str, tuple[Diagnostic, ...]], every: tuple[Diagnostic, ...]) -> None:
    if every:
        write(render_text(every, color=use_color()) + "\n")
    for name, diagnostics in found.items():
        errors = any(diagnostic.severity == "error" for diagnostic in diagnostics)
        sys.stdout.write(f"{printable(name)}: {summary(diagnostics) if errors else 'ok'}\n")
