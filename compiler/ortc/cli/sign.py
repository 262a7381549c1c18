"""`ortc sign`: sign a bundle with a key, offline."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import rich_click as click


@click.command
@click.argument("bundle", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--key",
    required=True,
    metavar="FILE",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="An elliptic-curve private key (P-256, P-384 or P-521) as PEM; its password goes into $ORTC_KEY_PASSWORD.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def sign(bundle: Path, key: Path, as_json: bool) -> int:
    """Sign a bundle, and each of its measurements apart, offline.

    Every file is compared with its digest first. `ortc verify --key PUBLIC BUNDLE` verifies, and so does any tool that
    reads OpenSSF Model Signing. Sign again after a measurement has joined.
    """
    from ortc.bundle.supply_chain.signing import sign as run

    done = run(bundle, key)
    if as_json:
        sys.stdout.write(json.dumps(done.model_dump(mode="json"), indent=2) + "\n")
    else:
        sys.stdout.write(f"{bundle}: signed {len(done.files)} files, and {len(done.measurements)} of measurements/\n")
        # Whoever signs answers for these numbers, also for those that somebody else put there.
        sys.stdout.write("".join(f"  {path}: signed\n" for path in done.measurements))
    return 0
