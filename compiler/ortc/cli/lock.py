"""`ortc lock`: pin what builds are made of and came to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from ortc.cli.build import expect_writable
from ortc.cli.caches import cache_url, open_store
from ortc.cli.live_progress import progress_of_build
from ortc.cli.made import Made
from ortc.cli.options import RecordingCommand, given_arguments, output_option, trust_options, verbose_option
from ortc.cli.prepare import prepare, search_options
from ortc.cli.results import show_results
from ortc.cli.several import Outcome, run_each
from ortc.spec.diagnostics.excerpt import printable

if TYPE_CHECKING:
    from ortc.build.context import Context
    from ortc.execution.action_cache import Store
    from ortc.plan.plan import Plan, Search


@click.command(cls=RecordingCommand)
@click.argument("specs", metavar="SPEC...", nargs=-1, required=True, type=click.Path(path_type=Path))
@output_option("Directory for the bundles.")
@search_options
@trust_options
@cache_url
@verbose_option
@click.option(
    "--update-digests", is_flag=True, help="Build nothing: write the digests of the model's files into the spec."
)
@click.option("--replace", is_flag=True, help="Replace the entry of the same version, though its content differs.")
def lock(
    specs: tuple[Path, ...],
    output: Path,
    search: Search,
    variant: str | None,
    cache_url: str | None,
    *,
    is_verbose: bool,
    update_digests: bool,
    replace: bool,
) -> int:
    """Build specs and write ortc.lock beside each: digests of everything that went in, the variants that won, and the
    nodes that they keep in higher precision.

    `ortc build --locked`, with the same `--search` and `--variant`, then gives the same bundles, or fails.

    After a training, `--update-digests` writes the digests that the model's files have now where the spec, or one that
    it inherits, has others. Comments, formatting and everything else stay.
    """
    if update_digests:
        return run_each(specs, _update_digests, as_json=False, noun="spec")
    # Every spec is checked before work on the first begins.
    prepared = {spec: prepare(spec, (), (), search=search, variant=variant) for spec in specs}
    expect_writable(output)
    store = open_store(cache_url)

    def one(spec: Path) -> Outcome:
        return _lock_one(spec, *prepared[spec], output, store, replace=replace, is_verbose=is_verbose)

    return run_each(specs, one, as_json=False, noun="spec")


def _lock_one(
    spec: Path, plan: Plan, root: Path, output: Path, store: Store, *, replace: bool, is_verbose: bool
) -> Outcome:
    from ortc.build.ingredients import ingredients
    from ortc.build.lock import lock_path, locked, write_lock
    from ortc.build.pipeline import build

    seen: list[Context] = []
    progress = progress_of_build(str(spec), plan, output, is_verbose=is_verbose)
    try:
        report = build(plan, root, output, store, progress, seen.append)
    finally:
        progress.close()
    if report.exit_code:
        show_results([Made(report)], given_arguments(), is_verbose=is_verbose)
        return Outcome({}, "", report.exit_code)
    place = lock_path(spec)
    write_lock(place, plan.name, locked(plan, report, ingredients(seen[0])), replace=replace)
    lines = [f"{target.target}: {target.variant} at {target.graph_level}\n" for target in report.targets]
    return Outcome({}, "".join([*lines, f"locked in {place}\n"]))


def _update_digests(spec: Path) -> Outcome:
    from ortc.common.errors import UsageError
    from ortc.plan.digest_updates import digest_updates

    found = digest_updates(spec)
    for file in found.files:
        try:
            file.write()
        except OSError as error:
            said = error.strerror or str(error)
            raise UsageError(f"cannot write {file.path}: {said}", help="check permissions; it is as before") from error
    lines = [f"{printable(update.name)}: {update.before[:12]}… -> {update.after[:12]}…\n" for update in found.updates]
    written = ", ".join(printable(str(file.path)) for file in found.files)
    lines.append(f"written: {written}\n" if written else "every digest is that of its file\n")
    return Outcome({}, "".join(lines))
