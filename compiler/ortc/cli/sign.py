"""`ortc sign`: sign bundles with a key, offline."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from ortc.cli.several import Outcome, bundles_argument, run_each


@click.command
@bundles_argument
@click.option(
    "--key",
    required=True,
    metavar="FILE",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="An elliptic-curve private key (P-256, P-384 or P-521) as PEM; its password goes into $ORTC_KEY_PASSWORD.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def sign(bundles: tuple[Path, ...], key: Path, as_json: bool) -> int:
    """Sign bundles, and each of their measurements apart, offline.

    Every file is compared with its digest first. `ortc verify --key PUBLIC BUNDLE` verifies, and so does any tool that
    reads OpenSSF Model Signing. Sign again after a measurement has joined.
    """
    from ortc.bundle.supply_chain.signing import sign as run

    def one(bundle: Path) -> Outcome:
        done = run(bundle, key)
        said = f"{bundle}: signed {len(done.files)} files, and {len(done.measurements)} of measurements/\n"
        # Whoever signs answers for these numbers, also for those that somebody else put there.
        said += "".join(f"  {path}: signed\n" for path in done.measurements)
        return Outcome(done.model_dump(mode="json"), said)

    return run_each(bundles, one, as_json=as_json)
