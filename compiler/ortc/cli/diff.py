"""`ortc diff`: what changes between two bundles, or between two states of a spec."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import rich_click as click

from ortc.cli.options import key_option, target_option, trust_options
from ortc.cli.report import use_color, write
from ortc.cli.several import Outcome, run_each
from ortc.cli.streams import write_raw
from ortc.common.errors import StageError, UnmeasuredError
from ortc.common.redaction import mask_secrets
from ortc.common.suggest import joined

if TYPE_CHECKING:
    from ortc.diff.report import BundleDiff, SpecDiff
    from ortc.diff.sides import BundlePair, SpecPair

DIFFERENT = 8
"""The exit code of `--exit-code` where there are differences."""


@click.command
@click.argument("before", metavar="A")
@click.argument("after", metavar="[B]", required=False)
@click.option(
    "--spec",
    "specs",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A and B are git revisions of this spec; without B, the work tree. May be repeated.",
)
@target_option("Compare")
@trust_options
@key_option("bundles that are not signed with it are refused, and nothing of them is run.")
@click.option("--no-run", is_flag=True, help="Bundles: do not run them on their golden inputs.")
@click.option("--measure", is_flag=True, help="Bundles: race them on this host.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print Markdown for a pull request.")
@click.option(
    "--html", "as_html", is_flag=True, help="Print a page, one file of HTML: `ortc diff A B --html > diff.html`."
)
@click.option("--json", "as_json", is_flag=True, help="Print the differences as JSON.")
@click.option("--exit-code", "tells", is_flag=True, help=f"End with {DIFFERENT} where there are differences.")
def diff(
    before: str,
    after: str | None,
    specs: tuple[Path, ...],
    targets: tuple[str, ...],
    key: Path | None,
    no_run: bool,
    measure: bool,
    as_markdown: bool,
    as_html: bool,
    as_json: bool,
    tells: bool,
) -> int:
    """Show what changes from A to B: two bundles, two directories of bundles, or two states of a spec.

    Each of A and B is a bundle, a directory whose directories are bundles (dist/NAME/VERSION), a spec, or a spec at a
    git revision as REV:PATH, like `main:specs/bert.yaml`; with --spec each is a revision.

    Exits with 0 when it could compare, whether there are differences or not: `--json` says `same`, and with --exit-code
    differences end with 8. 4 when a bundle is
    damaged or does not run, 5 when it is not signed with --key's key, 7 when --measure was asked for and this host
    cannot.
    """
    from ortc.diff.sides import BundlePair, sides

    formats = {"--markdown": as_markdown, "--html": as_html, "--json": as_json}
    chosen = [name for name, given in formats.items() if given]
    if len(chosen) > 1:
        raise click.UsageError(f"give either {joined(chosen)}")
    if as_html and len(specs) > 1:
        raise click.UsageError("--html is the page of one difference: not with several --spec")
    form = chosen[0] if chosen else None
    if not specs:
        pair = sides(before, after, None)
        if isinstance(pair, BundlePair):
            found = _bundles(pair, targets, key, run=not no_run, measure=measure)
            _show_bundles(found, form)
            return exit_code(found) or (DIFFERENT if tells and not found.same else 0)
    if no_run or measure or key is not None:
        raise click.UsageError("--key, --no-run and --measure are for bundles, and these are specs")

    def one(path: Path) -> Outcome:
        states = sides(before, after, path if specs else None)
        compared = _specs(cast("SpecPair", states), targets)
        _show_specs(compared, form)
        document = _masked(compared.model_dump(mode="json")) if as_json else {}
        return Outcome(document, "", DIFFERENT if tells and not compared.same else 0)

    return run_each(specs or (Path(after or before),), one, as_json=as_json, noun="spec")


def _bundles(pair: BundlePair, targets: tuple[str, ...], key: Path | None, *, run: bool, measure: bool) -> BundleDiff:
    from ortc.cli.progress import ConsoleProgress
    from ortc.common.resources import cache_root
    from ortc.diff.compare import compare_bundles
    from ortc.execution.action_cache import Store

    progress = ConsoleProgress(f"{pair.before.label} and {pair.after.label}")
    try:
        store = Store(cache_root())
        return compare_bundles(
            pair.before, pair.after, store, progress, targets=targets, run=run, measure=measure, key=key
        )
    finally:
        progress.close()


def _show_bundles(found: BundleDiff, form: str | None) -> None:
    if form == "--markdown":
        from ortc.diff.markdown import bundles_markdown

        sys.stdout.write(bundles_markdown(found))
    elif form == "--html":
        from ortc.pages.diff_page import bundles_page

        write_raw(bundles_page(type(found).model_validate(_masked(found.model_dump(mode="json")))).decode())
    elif form == "--json":
        _json(found)
    else:
        from ortc.cli.diff_text import show_bundles

        show_bundles(found)


def exit_code(found: BundleDiff) -> int:
    """4 when a bundle did not run, 7 when a race that was asked for could not be held, else 0."""
    if any(target.numerics.failed for target in found.targets):
        return StageError.exit_code
    if any(target.race is not None and target.race.speedup is None for target in found.targets):
        return UnmeasuredError.exit_code
    return 0


def _specs(pair: SpecPair, targets: tuple[str, ...]) -> SpecDiff:
    from contextlib import ExitStack

    from ortc.diff.specs import compare_specs, load
    from ortc.spec.diagnostics.diagnostic import render_text

    with ExitStack() as stack:
        loaded = [load(side, stack, targets) for side in (pair.before, pair.after)]
        if warnings := tuple(dict.fromkeys(warning for side in loaded for warning in side.warnings)):
            write(render_text(warnings, color=use_color()) + "\n")
        return compare_specs(*loaded)


def _show_specs(found: SpecDiff, form: str | None) -> None:
    if form == "--markdown":
        from ortc.diff.markdown import specs_markdown

        sys.stdout.write(specs_markdown(found))
    elif form == "--html":
        from ortc.pages.diff_page import specs_page

        write_raw(specs_page(type(found).model_validate(_masked(found.model_dump(mode="json")))).decode())
    elif form is None:
        from ortc.cli.diff_text import show_specs

        show_specs(found)


def _json(found: BundleDiff) -> None:
    sys.stdout.write(json.dumps(_masked(found.model_dump(mode="json")), indent=2, allow_nan=False) + "\n")


def _masked(value: Any) -> Any:
    """The same with stars for every credential: a mirror's address may hold one, and a pull request is public."""
    match value:
        case str():
            return mask_secrets(value)
        case list():
            return [_masked(item) for item in value]
        case dict():
            return {key: _masked(item) for key, item in value.items()}
    return value
