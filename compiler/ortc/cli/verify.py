"""`ortc verify`: judge a finished bundle on this host."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from ortc.errors import AccuracyError, BudgetError, UnmeasuredError

if TYPE_CHECKING:
    from ortc.reverify import Reverified

_BUNDLE = click.Path(path_type=Path, exists=True, file_okay=False)


@click.command
@click.argument("bundle", type=_BUNDLE)
@click.option("--no-timing", is_flag=True, help="Digests, golden answers and size only.")
@click.option(
    "--platform", metavar="PLATFORM", help="Judge for this platform, emulated where this host is another: linux/arm64."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def verify(bundle: Path, no_timing: bool, platform: str | None, as_json: bool) -> int:
    """Judge a bundle by its own promises on this host.

    With --platform, its own loader runs under QEMU where this host is another platform: digests and golden answers are
    judged, times are not.

    Exits with 5 when digests or golden answers are wrong, 6 when a budget is broken, 7 when this host cannot tell.
    """
    from ortc.reverify import reverify
    from ortc.store import Store, cache_root

    found = reverify(bundle, Store(cache_root()), timed=not no_timing, platform=platform)
    if as_json:
        sys.stdout.write(json.dumps(found.model_dump(mode="json"), indent=2) + "\n")
    else:
        for verdict in found.verdicts:
            where = f"  ({verdict.where})" if verdict.where else ""
            sys.stdout.write(
                f"{verdict.outcome:<12} {verdict.platform:<12} {verdict.gate:<12} {verdict.observed}, "
                f"must be {verdict.limit}{where}\n"
            )
    return exit_code(found)


def exit_code(found: Reverified) -> int:
    """The code of the first kind of verdict that is not a pass."""
    failed = {verdict.gate for verdict in found.verdicts if verdict.outcome == "fail"}
    if "self-test" in failed:
        return AccuracyError.exit_code
    if failed:
        return BudgetError.exit_code
    undecided = any(verdict.outcome != "pass" for verdict in found.verdicts)
    return UnmeasuredError.exit_code if undecided else 0
