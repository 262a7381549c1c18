"""Bundles target by target: what lies in them, what they compute, how fast they are."""

from __future__ import annotations

from pathlib import Path

from ortc.build.progress import Progress
from ortc.bundle.supply_chain.signing import verify
from ortc.common.errors import UsageError
from ortc.diff import latency
from ortc.diff.bundles import Bundle, operators, sections, sizes
from ortc.diff.numerics import Runnable, numerics, prepare
from ortc.diff.report import BundleDiff, Numerics, RaceResult, TargetDiff
from ortc.diff.sides import Bundles
from ortc.execution.action_cache import Store
from ortc.execution.host import Host, describe

NOT_RUN = "not asked for"
SAME = "they are the same"


def compare_bundles(
    before: Bundles,
    after: Bundles,
    store: Store,
    progress: Progress,
    *,
    targets: tuple[str, ...] = (),
    run: bool = True,
    measure: bool = False,
    key: Path | None = None,
) -> BundleDiff:
    """Every target that both sides have; two single bundles whatever their targets are called.

    Args:
        before, after: what to compare.
        store: where runtime environments are kept.
        progress: told of what takes time.
        targets: names to keep; all when empty.
        run: run both bundles on their golden inputs, where this host can.
        measure: race them, where this host can.
        key: a public key as PEM, with which all of them must be signed.

    Raises:
        SignatureError: with a key, a bundle is not as it was signed with it.
        StageError: a bundle cannot be read.
        UsageError: neither side has any of the targets.
    """
    if before.single:
        if targets:
            raise UsageError("one bundle has one target", help="without -t both bundles are compared")
        pairs = [(next(iter(before.bundles.values())), next(iter(after.bundles.values())))]
        added, removed = [], []
    else:
        old, new = ({k: v for k, v in side.bundles.items() if not targets or k in targets} for side in (before, after))
        if not old and not new:
            known = sorted({*before.bundles, *after.bundles})
            raise UsageError(f"neither side has any of these targets; there are {', '.join(known)}")
        pairs = [(old[name], new[name]) for name in old if name in new]
        added, removed = [name for name in new if name not in old], [name for name in old if name not in new]
    if key is not None:
        for bundle in {path for pair in pairs for path in pair}:
            verify(bundle, key)
    found = tuple(_target(one, other, store, progress, run=run, measure=measure) for one, other in pairs)
    return BundleDiff(
        before=before.label,
        after=after.label,
        same=not added and not removed and all(target.same for target in found),
        added=tuple(added),
        removed=tuple(removed),
        targets=found,
    )


def _target(one: Path, other: Path, store: Store, progress: Progress, *, run: bool, measure: bool) -> TargetDiff:
    before, after = Bundle(one), Bundle(other)
    host = describe()
    skipped = SAME if before.info() == after.info() else None if run else NOT_RUN
    ready: tuple[Runnable, Runnable] | str = NOT_RUN
    if measure or skipped is None:
        ready = prepare(before, after, host, store, progress)
    computed = _numerics(skipped or ready, host, progress, before.manifest.target)
    if computed.failed:
        # What does not run cannot be raced.
        ready = "; ".join(computed.failed)
    return TargetDiff(
        target=before.manifest.target,
        before=before.info(),
        after=after.info(),
        sections=sections(before, after),
        operators=operators(before, after),
        sizes=sizes(before, after),
        numerics=computed,
        timings=latency.timings(before, after, progress.note),
        race=_race(ready, host, progress, before.manifest.target) if measure else None,
    )


def _numerics(ready: tuple[Runnable, Runnable] | str, host: Host, progress: Progress, target: str) -> Numerics:
    if isinstance(ready, str):
        return Numerics(platform=host.platform, skipped=ready)
    with progress.step("numerics", target):
        return numerics(*ready, host.platform)


def _race(ready: tuple[Runnable, Runnable] | str, host: Host, progress: Progress, target: str) -> RaceResult:
    if isinstance(ready, str):
        return RaceResult(skipped=ready)
    with progress.step("measure", f"{target}: A and B"):
        return latency.race(*ready, host, progress.note)
