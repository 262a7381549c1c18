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

if TYPE_CHECKING:
    from ortc.build.context import Context
    from ortc.plan.plan import Search


@click.command
@click.argument("spec", type=click.Path(path_type=Path))
@output_option("Directory for the bundles.")
@search_options
@trust_options
@cache_url
@click.option("--replace", is_flag=True, help="Replace the entry of the same version, though its content differs.")
def lock(spec: Path, output: Path, search: Search, variant: str | None, cache_url: str | None, *, replace: bool) -> int:
    """Build a spec and write ortc.lock beside it: digests of everything that went in, the variants that won, and the
    nodes that they keep in higher precision.

    `ortc build --locked`, with the same `--search` and `--variant`, then gives the same bundles, or fails.
    """
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
