"""`ortc attach`: add to a bundle what it measured of itself on another machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import rich_click as click

from ortc.cli.verify import unfit_line, verdict_lines
from ortc.common.errors import AccuracyError, BudgetError, UnmeasuredError
from ortc.common.units import format_bytes


@click.command
@click.argument("bundle", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("measurement", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def attach(bundle: Path, measurement: Path, as_json: bool) -> int:
    """Add a measurement of a bundle from the machine that it is for.

    `python runtime/measure.py --output FILE` in a copy of the bundle writes it there, without ortc. It must be of
    exactly this bundle. It is judged by the bundle's promises and kept in measurements/, also where it breaks one.

    Exits with 5 when golden answers were wrong there, 6 when a budget is broken, 7 when the samples cannot tell.
    """
    from ortc.bundle.attach import SELF_TEST
    from ortc.bundle.attach import attach as run

    done = run(bundle, measurement)
    if as_json:
        sys.stdout.write(json.dumps(done.model_dump(mode="json"), indent=2) + "\n")
    else:
        sys.stdout.write(verdict_lines(done.verdicts))
        sys.stdout.write(f"{bundle}: {done.measurement} is what was measured on {done.host.cpu}\n")
        sys.stdout.write(unfit_line(bundle, done.unfit_reason))
        if done.fallback is not None and done.fallback.nodes + done.fallback.shape_nodes:
            left = done.fallback
            named = f" ({', '.join(left.named)}{', ...' if len(left.named) < left.nodes else ''})" if left.named else ""
            sys.stdout.write(f"on the CPU: nodes that compute shapes {left.shape_nodes}, others {left.nodes}{named}\n")
        if done.copies:
            counted = ", ".join(f"{count} {name}" for name, count in sorted(done.copies.items()))
            sys.stdout.write(f"copies between host and device at every run: {counted}\n")
        if done.gpu_mem_limit is not None and done.numbers is not None:
            sys.stdout.write(
                f"device memory: {format_bytes(done.numbers.peak_device_bytes or 0)} at most. To share the GPU: "
                f'`gpu_mem_limit: "{done.gpu_mem_limit}"` among the options of CUDAExecutionProvider in the profile\n'
            )
        if done.unmeasured:
            sys.stdout.write(f"still unmeasured: {', '.join(done.unmeasured)}\n")
        if done.not_kept is not None:
            sys.stdout.write(f"{done.not_kept}\n")
        if done.signature is not None:
            sys.stdout.write(f"{done.signature} was of an older measurement and is gone; `ortc sign` signs this one\n")
    outcomes = {verdict.outcome for verdict in done.verdicts}
    if any(verdict.gate == SELF_TEST and verdict.outcome == "fail" for verdict in done.verdicts):
        return AccuracyError.exit_code
    if "fail" in outcomes:
        return BudgetError.exit_code
    return UnmeasuredError.exit_code if "inconclusive" in outcomes else 0
