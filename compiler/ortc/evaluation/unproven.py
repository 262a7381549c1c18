"""Outputs that a check proves nothing about: equal to nothing at every case, or to zeros alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ortc.evaluation.compare import Difference
from ortc.evaluation.report import Check, Verdict

VALUES = "values to compare: real inputs in `accuracy.samples`, or `export.outputs` without it"
WHOLE = "a case without masked positions: `fill: 1` of the mask in `export.inputs`"


def unproven(check: Check, platform: str) -> Iterator[Verdict]:
    """Say `unmeasured` of every output whose parity no case can show.

    Args:
        check: of a variant at every case.
        platform: where the variant ran.
    """
    outputs: dict[str, list[Difference]] = {}
    for result in check.cases:
        for entry in result.differences:
            outputs.setdefault(entry.output, []).append(entry)
    for output, entries in outputs.items():
        if (found := _reason(entries)) is not None:
            said, required = found
            where = f"output `{output}`"
            yield Verdict(
                gate="parity", platform=platform, outcome="unmeasured", said=said, required=required, where=where
            )


def _reason(entries: Sequence[Difference]) -> tuple[str, str] | None:
    """Why the comparisons of one output are no evidence, and what would be; None where they are evidence."""
    cases = "the only case" if len(entries) == 1 else f"all {len(entries)} cases"
    some = [entry for entry in entries if entry.compared != 0]
    if not some:
        return f"no finite value at {cases}", VALUES
    if not any(entry.proves for entry in some):
        return f"the reference is 0 at {cases}", VALUES
    if not any(entry.is_whole for entry in some):
        return f"masked positions are left out at {cases}", WHOLE
    return None
