"""`ortc migrate`: rewrite specs and profiles in the present spelling of the language."""

from __future__ import annotations

import sys
from pathlib import Path

import rich_click as click

from ortc.spec.diagnostics.errors import SpecError
from ortc.spec.diagnostics.excerpt import printable


@click.command
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--check", "only_check", is_flag=True, help="Write nothing; exit with 3 when a file is to be rewritten.")
def migrate(files: tuple[Path, ...], only_check: bool) -> int:
    """Rewrite profiles whose keys the language had before; comments and formatting stay.

    FILE is a profile, or a spec: then every profile of its project that it or its base names is rewritten, too. When
    one file cannot be rewritten, none is. Each file is replaced in one step.
    """
    from ortc.common.errors import UsageError
    from ortc.spec.migration import migrations

    found = {entry.path.resolve(): entry for file in files for entry in migrations(file)}
    for entry in found.values():
        state = "is up to date"
        if entry.is_needed:
            state = "is to be rewritten" if only_check else "rewritten"
            if not only_check:
                try:
                    entry.write()
                except OSError as error:
                    raise UsageError(
                        f"cannot write {entry.path}: {error.strerror or error}",
                        help="check permissions; it is as before",
                    ) from error
        sys.stdout.write(f"{printable(str(entry.path))}: {state}\n")
    return SpecError.exit_code if only_check and any(entry.is_needed for entry in found.values()) else 0
