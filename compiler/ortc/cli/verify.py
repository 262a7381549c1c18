"""`ortc verify`: judge a finished bundle on this host."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from ortc.cli.options import measurement_option
from ortc.common.errors import AccuracyError, BudgetError, UnmeasuredError
from ortc.spec.diagnostics.excerpt import printable

if TYPE_CHECKING:
    from ortc.bundle.identity import Expected
    from ortc.bundle.verify import Reverified
    from ortc.evaluation.report import Verdict

_BUNDLE = click.Path(path_type=Path, exists=True, file_okay=False)


@click.command
@click.argument("bundle", type=_BUNDLE)
@click.option("--no-timing", is_flag=True, help="Digests, golden answers and size only.")
@click.option(
    "--platform", metavar="PLATFORM", help="Judge for this platform, emulated where this host is another: linux/arm64."
)
@click.option(
    "--key",
    metavar="FILE",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Verify digests and signatures with this public key (PEM), offline; nothing of the bundle is run.",
)
@click.option(
    "--expect",
    metavar="NAME[@VERSION][/TARGET]",
    help="Refuse a bundle with another name, version or target than this, before anything of it runs.",
)
@measurement_option()
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def verify(
    bundle: Path,
    no_timing: bool,
    platform: str | None,
    key: Path | None,
    expect: str | None,
    measurement: Path | None,
    as_json: bool,
) -> int:
    """Judge a bundle by its own promises on this host; or, with --key, by its signatures.

    With --platform, its own loader runs under QEMU where this host is another platform: digests and golden answers are
    judged, times are not.

    Exits with 4 when the bundle is not the expected one, 5 when digests, signatures or golden answers are wrong, 6 when
    a budget is broken, 7 when this host cannot tell.
    """
    if measurement is not None and (no_timing or platform is not None or key is not None):
        raise click.UsageError("--measurement is of times on this host: not with --no-timing, --platform or --key")
    from ortc.bundle.identity import Expected

    expected = None if expect is None else Expected.parse(expect)
    if key is not None:
        return _signatures(bundle, key, expected, as_json=as_json)
    from ortc.bundle.verify import reverify
    from ortc.common.resources import cache_root
    from ortc.execution.action_cache import Store

    found = reverify(
        bundle,
        Store(cache_root()),
        timed=not no_timing,
        platform=platform,
        measurement=measurement,
        expected=expected,
        say=note,
    )
    if as_json:
        sys.stdout.write(json.dumps(found.model_dump(mode="json"), indent=2) + "\n")
    else:
        show(found.verdicts)
        show_unfit(bundle, found.unfit_reason)
    return exit_code(found)


def note(text: str) -> None:
    """Tell something on stderr while a command goes on."""
    sys.stderr.write(f"note: {printable(text)}\n")
    sys.stderr.flush()


def show(verdicts: tuple[Verdict, ...]) -> None:
    """Print a line a verdict."""
    for verdict in verdicts:
        where = f"  ({verdict.where})" if verdict.where else ""
        sys.stdout.write(
            f"{verdict.outcome:<12} {verdict.platform:<12} {verdict.gate:<12} {verdict.observed}, "
            f"must be {verdict.limit}{where}\n"
        )


def show_unfit(bundle: Path, reason: str | None) -> None:
    """Print why a bundle is not fit to serve, whatever its promises are."""
    if reason is not None:
        sys.stdout.write(f"{bundle}: not fit to serve: {reason}\n")


def _signatures(bundle: Path, key: Path, expected: Expected | None, *, as_json: bool) -> int:
    from ortc.bundle.supply_chain.signing import verify as run

    found = run(bundle, key, expected)
    if as_json:
        sys.stdout.write(json.dumps(found.model_dump(mode="json"), indent=2) + "\n")
        return 0
    sys.stdout.write(
        f"{bundle}: {len(found.files)} files of {found.name}@{found.version}/{found.target} are as they were signed\n"
    )
    for path in found.measurements:
        sys.stdout.write(f"  {path}: signed\n")
    for path in found.unsigned_measurements:
        sys.stdout.write(f"  {path}: not signed, and not used\n")
    return 0


def exit_code(found: Reverified) -> int:
    """The code of the first kind of verdict that is not a pass."""
    failed = {verdict.gate for verdict in found.verdicts if verdict.outcome == "fail"}
    if "self-test" in failed:
        return AccuracyError.exit_code
    if failed:
        return BudgetError.exit_code
    undecided = any(verdict.outcome != "pass" for verdict in found.verdicts)
    return UnmeasuredError.exit_code if undecided else 0
