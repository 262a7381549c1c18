"""Add to a bundle what it measured of itself on another machine, judged by the promises of its manifest."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ortc.bundle.integrity import SUMS, verified
from ortc.bundle.manifest import ATTESTATIONS, MEASUREMENTS, Manifest
from ortc.bundle.measurement import Fallback, Measurement, read_measurement
from ortc.bundle.performance import KeptMeasurement, read_kept
from ortc.bundle.publish import Staging
from ortc.bundle.session_file import read_session
from ortc.bundle.supply_chain.companions import companions, left_out
from ortc.bundle.supply_chain.sbom import performance
from ortc.bundle.verify import budgets_of, files_of
from ortc.common.digests import sha256_file
from ortc.common.disk import full, is_full
from ortc.common.errors import StageError, UsageError
from ortc.common.plain_files import read_plain
from ortc.common.values import Frozen
from ortc.evaluation.budget_gates import budget_verdicts
from ortc.evaluation.evidence import Evidence, Placed
from ortc.evaluation.report import Numbers, Race, Verdict
from ortc.evaluation.trade import Trade
from ortc.execution.host import Host
from ortc.execution.ownership import within_umask
from ortc.plan.plan import Shape

SELF_TEST = "self-test"
REMOVE = "remove it, and attach again"
AHEAD = timedelta(days=1)
"""How far another machine's clock may be ahead: with one beyond, nothing measured later could ever be attached."""


class Attached(Frozen):
    """What was attached: the file, below the bundle, and what it says of the promises.

    `unmeasured` are promises, as GATE on PLATFORM, that no measurement of the bundle says anything about. `signature`
    is the signature of an older measurement that was removed with it. `gpu_mem_limit` is the option of CUDA's provider,
    in bytes, that follows from the device memory that was in use, and `copies` are nodes between host and device.
    `fallback` is what the first provider left to the CPU, `unfit_reason` why the bundle is not fit to serve.
    `not_kept` says whose verdicts were not taken over: those of an older measurement that no signature covers.
    """

    format_version: int = 1
    bundle: str
    measurement: str
    measured: datetime
    host: Host
    verdicts: tuple[Verdict, ...]
    numbers: Numbers | None
    unmeasured: tuple[str, ...]
    signature: str | None
    gpu_mem_limit: int | None
    copies: dict[str, int] | None
    fallback: Fallback | None
    unfit_reason: str | None = None
    not_kept: str | None = None


def attach(bundle: Path, file: Path) -> Attached:
    """Check that a measurement is of exactly this bundle, judge it, and put it into measurements/.

    A measurement that breaks a promise is attached, too. At every moment the bundle holds the older measurement of the
    hardware or the new one; of several that are attached at once the newest stays.

    Args:
        bundle: the directory.
        file: what runtime/measure.py wrote.

    Raises:
        UsageError: the file is not there, or is of another bundle or platform.
        StageError: the bundle is damaged; the file was edited, is of an unknown format, or is older than what is
            attached; what was measured is not what ships; the bundle cannot be written.
    """
    bundle = bundle.resolve()
    found = read_measurement(file)
    manifest = verified(bundle)
    _same_bundle(found, file, bundle, manifest)
    _what_ships(found, file, bundle, manifest)
    fingerprint = found.host.fingerprint()
    name = f"{MEASUREMENTS}/{fingerprint}.json"
    race = None if found.failed is not None else found.race(manifest.variant.name)
    numbers = None if race is None else found.numbers(race)
    judged = tuple(_verdicts(found, manifest, numbers))
    # The lock of publishing: a build that replaces the bundle waits, or has replaced it.
    with Staging(bundle) as staging:
        _same_bundle(found, file, bundle, manifest)
        before = _there(bundle / name)
        kept = _kept(before, found, bundle / name, file)
        usable = companions(bundle)
        if name in usable.unsigned:
            before, kept = None, ()
        verdicts = _joined(judged, kept)
        document = _document(found, verdicts, numbers, race, () if before is None else before.trades)
        texts = {
            f"{MEASUREMENTS}/{fingerprint}.cdx.json": performance(manifest, fingerprint, numbers, verdicts),
            # Last: as long as this one is the older, attaching again makes good what a kill left undone.
            name: json.dumps(document, indent=1) + "\n",
        }
        done = Attached(
            bundle=f"{manifest.name}/{manifest.version}/{manifest.target}",
            measurement=name,
            measured=found.measured,
            host=found.host,
            verdicts=judged,
            numbers=numbers,
            unmeasured=_unmeasured(bundle, {*usable.measurements} - {name}, verdicts),
            signature=None,
            gpu_mem_limit=found.gpu_mem_limit,
            copies=found.copies,
            fallback=found.fallback,
            unfit_reason=manifest.unfit_reason,
            not_kept=left_out(str(bundle), (name,) if name in usable.unsigned else ()),
        )
        # Nothing is written before everything was read and judged.
        signature = _write(
            bundle, staging.directory, texts, f"{ATTESTATIONS}/{MEASUREMENTS}/{fingerprint}.sig", manifest
        )
    return done.model_copy(update={"signature": signature})


def _joined(judged: Sequence[Verdict], kept: Sequence[Verdict]) -> tuple[Verdict, ...]:
    """New verdicts, and older ones on other gates and platforms."""
    gates = {(verdict.gate, verdict.platform) for verdict in judged}
    return (*judged, *(verdict for verdict in kept if (verdict.gate, verdict.platform) not in gates))


def _document(
    found: Measurement,
    verdicts: tuple[Verdict, ...],
    numbers: Numbers | None,
    race: Race | None,
    trades: tuple[Trade, ...],
) -> dict[str, Any]:
    """What the bundle keeps of a measurement, as JSON."""
    return {
        "format_version": 1,
        "host": found.host.model_dump(mode="json"),
        "verdicts": [verdict.model_dump(mode="json") for verdict in verdicts],
        "numbers": None if numbers is None else numbers.model_dump(mode="json"),
        "race": None if race is None else race.model_dump(mode="json"),
        "trades": [trade.model_dump(mode="json") for trade in trades],
        "attached": found.about(),
    }


def _same_bundle(found: Measurement, file: Path, bundle: Path, manifest: Manifest) -> None:
    """Raise UsageError unless the measurement is of this bundle, to the digest, and of one of its platforms."""
    measured = f"{found.name} {found.version} for {found.target}"
    here = f"{manifest.name} {manifest.version} for {manifest.target}"
    if measured != here:
        raise UsageError(f"{file} was measured of {measured}, {bundle} is {here}", help="name the bundle it is of")
    sums = sha256_file(bundle / SUMS)
    if found.sums_sha256 != sums:
        raise UsageError(
            f"{file} was measured of another build of {here}: its {SUMS} had sha256 {found.sums_sha256}, "
            f"that of {bundle} has {sums}",
            help=f"copy {bundle} to that machine and measure there again",
        )
    if found.host.platform not in manifest.platforms:
        raise UsageError(
            f"{file} was measured on {found.host.platform}, the bundle is for {', '.join(manifest.platforms)}",
            help="measure on one of its platforms",
        )


def _what_ships(found: Measurement, file: Path, bundle: Path, manifest: Manifest) -> None:
    """Raise StageError unless runtime, providers, threads, shape and golden cases are those of the bundle."""
    session = read_session(bundle)
    policy = session.threads.intra_op
    pairs: dict[str, tuple[Any, Any]] = {
        "manifest.json with sha256": (found.manifest_sha256, sha256_file(bundle / "manifest.json")),
        manifest.runtime.package: (found.versions.get("onnxruntime", "").partition("+")[0], manifest.runtime.version),
        "the providers": (", ".join(found.providers), ", ".join(provider.name for provider in session.providers)),
        "threads": (found.threads, found.host.cores if policy == "physical" else policy),
        "the shape": (found.at, manifest.promises.at),
    }
    if found.failed is None:
        pairs["the golden cases"] = ([case.name for case in found.golden], [case.name for case in manifest.golden])
    for what, (measured, ships) in pairs.items():
        if measured != ships:
            raise StageError(
                f"{file} is not of what {bundle} ships: it was measured with {what} {measured}, the bundle has {ships}",
                help="measure again with what requirements.txt of the bundle pins, without ORT_INTRA_OP_NUM_THREADS",
            )
    left, names = found.fallback, manifest.placement.shape_nodes
    if left is not None and left.shape_nodes > (most := sum(map(len, names.values()))):
        raise StageError(
            f"{file} is not of what {bundle} ships: it has {left.shape_nodes} nodes that compute shapes, the manifest "
            f"names {most}",
            help="measure again with the bundle's own runtime/measure.py",
        )
    if found.measured > datetime.now(UTC) + AHEAD:
        raise StageError(
            f"{file} says that it was measured at {found.measured.isoformat()}, which is still to come",
            help="set the clock of the machine that measured, and measure again",
        )


def _verdicts(found: Measurement, manifest: Manifest, numbers: Numbers | None) -> Iterator[Verdict]:
    platform, promises = found.host.platform, manifest.promises
    wrong = found.failed or next(_beyond(found, manifest), None)
    yield Verdict(
        gate=SELF_TEST,
        platform=platform,
        outcome="fail" if wrong else "pass",
        said=wrong or f"every digest and {len(found.golden)} golden cases",
        required="digests and golden answers",
    )
    files, budgets = files_of(manifest, platform), budgets_of(manifest)
    seen = Evidence(
        model_bytes=files.model_bytes,
        wheels=files.wheels,
        peak_rss_bytes=None if numbers is None else numbers.peak_rss_bytes,
        placed=Placed(found.cpu_nodes, found.shape_nodes, found.memcpy_nodes),
        numbers=numbers,
        at=Shape(sizes=tuple(promises.at.items())),
    )
    yield from budget_verdicts(seen, budgets, platform, absent=("wrong answers", "right answers first"))


def _beyond(found: Measurement, manifest: Manifest) -> Iterator[str]:
    """Golden cases that are farther off than the manifest allows, whatever the other machine's loader said."""
    for case, allowed in zip(found.golden, manifest.golden, strict=True):
        tolerance = allowed.tolerance
        if tolerance.max_abs is not None and not case.max_abs <= tolerance.max_abs:
            yield f"golden case {case.name}: max_abs {case.max_abs:.3g}, allowed {tolerance.max_abs:.3g}"
        limits = [limit.max_abs for limit in tolerance.outputs.values() if limit.max_abs is not None]
        if limits and not case.max_abs <= max(limits):
            yield f"golden case {case.name}: max_abs {case.max_abs:.3g}, allowed {max(limits):.3g}"
        if tolerance.cosine is not None and not case.cosine >= tolerance.cosine:
            yield f"golden case {case.name}: cosine {case.cosine:.6f}, allowed {tolerance.cosine:.6f}"


def _there(place: Path) -> KeptMeasurement | None:
    """The measurement that the bundle has already at a place.

    Raises:
        StageError: what is there is none.
    """
    try:
        content = read_plain(place)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StageError(f"{place} cannot be read: {error.strerror or error}", help=REMOVE) from error
    return read_kept(content, str(place), REMOVE)


def _kept(before: KeptMeasurement | None, found: Measurement, place: Path, file: Path) -> tuple[Verdict, ...]:
    """What the build judged on this hardware and this measurement does not say.

    Raises:
        StageError: what is there is newer, or has been compared with PyTorch.
    """
    if before is None:
        return ()
    if (attached := before.attached) is not None:
        if found.measured <= attached.measured and found.sha256 != attached.sha256:
            raise StageError(
                f"{file} was measured at {found.measured.isoformat()}, and {place} at "
                f"{attached.measured.isoformat()}: the newer one stays",
                help="measure again, on a machine whose clock is right; or remove that file",
            )
    elif before.numbers is not None:
        raise StageError(
            f"{place} is what the build itself measured on the same hardware, beside PyTorch where there was one",
            help="there is nothing to add; `ortc build` measures anew",
        )
    return before.verdicts


def _write(bundle: Path, staging: Path, texts: dict[str, str], signature: str, manifest: Manifest) -> str | None:
    """Put files into place, each whole; tell the signature that covered what was there."""
    changed = {name: text for name, text in texts.items() if not _holds(bundle / name, text)}
    removed = None
    try:
        for name, text in changed.items():
            fresh = staging / Path(name).name
            with fresh.open("w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            fresh.chmod(within_umask(0o644))
            os.utime(fresh, (manifest.stamp, manifest.stamp))
        if changed and (bundle / signature).exists():
            # First: one that no longer matches would break the signatures of the whole bundle.
            (bundle / signature).unlink()
            removed = signature
        (bundle / MEASUREMENTS).mkdir(exist_ok=True)
        for name in changed:
            (staging / Path(name).name).replace(bundle / name)
    except OSError as error:
        if is_full(error):
            raise full(("bundles", bundle)) from error
        raise StageError(
            f"cannot write to {bundle / MEASUREMENTS}: {error.strerror or error}",
            help="check permissions; a bundle cannot be a file system of its own while it is attached to",
        ) from error
    return removed


def _holds(place: Path, text: str) -> bool:
    try:
        return read_plain(place) == text.encode()
    except OSError:
        return False


def _unmeasured(bundle: Path, others: set[str], verdicts: tuple[Verdict, ...]) -> tuple[str, ...]:
    """Promises, as GATE on PLATFORM, of which these verdicts and the other measurements say no more than that."""
    outcomes: dict[str, set[str]] = {}
    kept = [document for name in sorted(others) if (document := _there(bundle / name)) is not None]
    for verdict in (*verdicts, *(verdict for document in kept for verdict in document.verdicts)):
        outcomes.setdefault(f"{verdict.gate} on {verdict.platform}", set()).add(verdict.outcome)
    return tuple(sorted(promise for promise, found in outcomes.items() if found == {"unmeasured"}))
