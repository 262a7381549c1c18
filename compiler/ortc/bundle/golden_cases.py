"""Choose the cases that travel with a bundle: few, small, and such that a wrong answer shows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ortc.evaluation.accuracy import ReferenceCase

GOLDEN_CASES = 3
GOLDEN_BYTES = 4 * 2**20
"""Most bytes of one golden case's outputs."""
QUICK_GOLDEN_BYTES = 2**20
"""As much, where a kind of case has one so small: golden cases are run and compared at every full start."""


def golden_cases(cases: tuple[ReferenceCase, ...]) -> tuple[ReferenceCase, ...]:
    """Choose real samples, a padded batch and a plain one, of bounded size; at least one with no position masked.

    A case whose every value is masked, zero or not finite is chosen only where all are like that.
    """
    sizes = {case.name: case.outputs.stat().st_size for case in cases}
    small = [case for case in cases if sizes[case.name] <= GOLDEN_BYTES]
    wanted = [
        [case for case in small if case.is_sample],
        [case for case in small if case.is_padded],
        [case for case in small if not case.is_padded and not case.is_sample],
    ]
    quick = [[case for case in kind if sizes[case.name] <= QUICK_GOLDEN_BYTES] or kind for kind in wanted]
    if len(quick[-1]) == 1:
        # The smallest shape of the matrix is degenerate, and alone shows little.
        quick[-1] = wanted[-1]
    quick[-1] = [case for case in quick[-1] if case.is_whole] or quick[-1]
    chosen = [found for kind in quick if (found := _telling(_from_middle(kind))) is not None][:GOLDEN_CASES]
    by_size = sorted(cases, key=lambda case: sizes[case.name])
    if not any(case.is_whole for case in chosen):
        whole = _telling(case for case in by_size if case.is_whole)
        chosen += [] if whole is None else [whole]
    return tuple(chosen or by_size[:1])


def _from_middle(kind: Sequence[ReferenceCase]) -> list[ReferenceCase]:
    """The cases of a kind from the middle on: neither the smallest nor the slowest comes first."""
    middle = len(kind) // 2
    return sorted(kind, key=lambda case: abs(kind.index(case) - middle))


def _telling(cases: Iterable[ReferenceCase]) -> ReferenceCase | None:
    """The first case at which every output has a value that can be wrong, or the one with the most; None for none."""
    best, most = None, 0
    for case in cases:
        if case.telling is None or len(case.telling) == len(case.output_shapes):
            return case
        if len(case.telling) > most:
            best, most = case, len(case.telling)
    return best
