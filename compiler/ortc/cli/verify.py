"""`ortc verify`: judge finished bundles on this host."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from ortc.cli.options import measurement_option
from ortc.cli.several import Outcome, bundles_argument, run_each
from ortc.common.errors import AccuracyError, BudgetError, UnmeasuredError
from ortc.spec.diagnostics.excerpt import printable

if TYPE_CHECKING:
    from ortc.bundle.identity import Expected
    from ortc.bundle.verify import Reverified
    from ortc.evaluation.report import Verdict


@click.command
@bundles_argument
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
    bundles: tuple[Path, ...],
    no_timing: bool,
    platform: str | None,
    key: Path | None,
    expect: str | None,
    measurement: Path | None,
    as_json: bool,
) -> int:
    """Judge bundles by their own promises on this host; or, with --key, by their signatures.

    With --platform, its own loader runs under QEMU where this host is another platform: digests and golden answers are
    judged, times are not.

    Exits with 4 when the bundle is not the expected one, 5 when digests, signatures or golden answers are wrong, 6 when
    a budget is broken, 7 when this host cannot tell.
    """
    if measurement is not None and (no_timing or platform is not None or key is not None):
        raise click.UsageError("--measurement is of times on this host: not with --no-timing, --platform or --key")
    if measurement is not None and len(bundles) > 1:
        raise click.UsageError("--measurement is of one bundle: not with several bundles")
    from ortc.bundle.identity import Expected

    expected = None if expect is None else Expected.parse(expect)
    if key is not None:
        return run_each(bundles, lambda bundle: _signatures(bundle, key, expected), as_json=as_json)
    from ortc.bundle.verify import reverify
    from ortc.common.resources import cache_root
    from ortc.execution.action_cache import Store

    def one(bundle: Path) -> Outcome:
        found = reverify(
            bundle,
            Store(cache_root()),
            timed=not no_timing,
            platform=platform,
            measurement=measurement,
            expected=expected,
            say=note,
        )
        said = verdict_lines(found.verdicts) + unfit_line(bundle, found.unfit_reason)
        return Outcome(found.model_dump(mode="json"), said, exit_code(found))

    return run_each(bundles, one, as_json=as_json, headed=True)


def note(text: str) -> None:
    """Tell something on stderr while a command goes on."""
    sys.stderr.write(f"note: {printable(text)}\n")
    sys.stderr.flush()


def verdict_lines(verdicts: tuple[Verdict, ...]) -> str:
    """A line a verdict."""
    lines = []
    for verdict in verdicts:
        where = f"  ({verdict.where})" if verdict.where else ""
        lines.append(
            f"{verdict.outcome:<12} {verdict.platform:<12} {verdict.gate:<12} {verdict.observed}, "
            f"must be {verdict.limit}{where}\n"
        )
    return "".join(lines)


def unfit_line(bundle: Path, reason: str | None) -> str:
    """A line that says why a bundle is not fit to serve, whatever its promises are; empty for one that is."""
    return "" if reason is None else f"{bundle}: not fit to serve: {reason}\n"


def _signatures(bundle: Path, key: Path, expected: Expected | None) -> Outcome:
    from ortc.bundle.supply_chain.signing import verify as run

    found = run(bundle, key, expected)
    lines = [
        f"{bundle}: {len(found.files)} files of {found.name}@{found.version}/{found.target} are as they were signed\n",
        *(f"  {path}: signed\n" for path in found.measurements),
        *(f"  {path}: not signed, and not used\n" for path in found.unsigned_measurements),
    ]
    return Outcome(found.model_dump(mode="json"), "".join(lines))


def exit_code(found: Reverified) -> int:
    """The code of the first kind of verdict that is not a pass."""
    failed = {verdict.gate for verdict in found.verdicts if verdict.outcome == "fail"}
    if "self-test" in failed:
        return AccuracyError.exit_code
    if failed:
        return BudgetError.exit_code
    undecided = any(verdict.outcome != "pass" for verdict in found.verdicts)
    return UnmeasuredError.exit_code if undecided else 0
