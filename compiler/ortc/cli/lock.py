"""`ortc lock`: pin what a build is made of and came to."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from ortc.cli.build import expect_writable
from ortc.cli.caches import cache_url, open_store
from ortc.cli.options import output_option, trust_options
from ortc.cli.prepare import prepare, search_options
from ortc.cli.progress import ConsoleProgress
from ortc.spec.diagnostics.excerpt import printable

if TYPE_CHECKING:
    from ortc.build.context import Context
    from ortc.plan.plan import Search


@click.command
@click.argument("spec", type=click.Path(path_type=Path))
@output_option("Directory for the bundles.")
@search_options
@trust_options
@cache_url
@click.option(
    "--update-digests", is_flag=True, help="Build nothing: write the digests of the model's files into the spec."
)
@click.option("--replace", is_flag=True, help="Replace the entry of the same version, though its content differs.")
def lock(
    spec: Path,
    output: Path,
    search: Search,
    variant: str | None,
    cache_url: str | None,
    *,
    update_digests: bool,
    replace: bool,
) -> int:
    """Build a spec and write ortc.lock beside it: digests of everything that went in, the variants that won, and the
    nodes that they keep in higher precision.

    `ortc build --locked`, with the same `--search` and `--variant`, then gives the same bundles, or fails.

    After a training, `--update-digests` writes the digests that the model's files have now where the spec, or one that
    it inherits, has others. Comments, formatting and everything else stay.
    """
    if update_digests:
        return _update_digests(spec)
    from ortc.build.ingredients import ingredients
    from ortc.build.lock import lock_path, locked, write_lock
    from ortc.build.pipeline import build

    plan, root = prepare(spec, (), (), search=search, variant=variant)
    expect_writable(output)
    seen: list[Context] = []

    progress = ConsoleProgress(str(spec))
    try:
        report = build(plan, root, output, open_store(cache_url), progress, seen.append)
    finally:
        progress.close()
    if report.exit_code:
        from ortc.cli.table import show

        show([report])
        return report.exit_code
    place = lock_path(spec)
    write_lock(place, plan.name, locked(plan, report, ingredients(seen[0])), replace=replace)
    for target in report.targets:
        sys.stdout.write(f"{target.target}: {target.variant} at {target.graph_level}\n")
    sys.stdout.write(f"locked in {place}\n")
    return 0


def _update_digests(spec: Path) -> int:
    from ortc.common.errors import UsageError
    from ortc.plan.digest_updates import digest_updates

    found = digest_updates(spec)
    for file in found.files:
        try:
            file.write()
        except OSError as error:
            said = error.strerror or str(error)
            raise UsageError(f"cannot write {file.path}: {said}", help="check permissions; it is as before") from error
    for update in found.updates:
        sys.stdout.write(f"{printable(update.name)}: {update.before[:12]}… -> {update.after[:12]}…\n")
    written = ", ".join(printable(str(file.path)) for file in found.files)
    sys.stdout.write(f"written: {written}\n" if written else "every digest is that of its file\n")
    return 0
