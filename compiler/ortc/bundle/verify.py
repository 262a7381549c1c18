"""Judge a finished bundle again, on this host, with nothing but the bundle."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ortc.bundle.emulation import emulation
from ortc.bundle.identity import Expected
from ortc.bundle.interpreter import interpreter_of, platform_here, why_not_here
from ortc.bundle.manifest import PLACEMENT_KEYS, PROMISE_KEYS, Manifest, promise_of, read_bundle
from ortc.bundle.measurement import take
from ortc.common.arrays import read_arrays, write_arrays
from ortc.common.errors import UsageError
from ortc.common.plain_files import read_plain_text
from ortc.common.values import Frozen
from ortc.evaluation import latency as measure
from ortc.evaluation.accuracy import CPU, soak
from ortc.evaluation.budget_gates import budget_verdicts
from ortc.evaluation.evidence import Evidence, Placed
from ortc.evaluation.gate_table import BUDGETS
from ortc.evaluation.machine import Say
from ortc.evaluation.report import Numbers, Race, Verdict
from ortc.execution.action_cache import Store
from ortc.execution.host import Host, cores, describe
from ortc.execution.worker import Worker, is_script, place_of
from ortc.execution.worker_process import WorkerError
from ortc.plan.plan import BudgetPlan, Shape

WITHOUT_PYTORCH = tuple(gate for gate in BUDGETS if gate.scope != "beside PyTorch")


class Reverified(Frozen):
    """What this host says of a bundle."""

    format_version: int = 1
    bundle: str
    manifest_sha256: str
    host: Host
    verdicts: tuple[Verdict, ...]
    numbers: Numbers | None
    race: Race | None
    unfit_reason: str | None = None


def reverify(
    bundle: Path,
    store: Store,
    *,
    timed: bool = True,
    platform: str | None = None,
    measurement: Path | None = None,
    expected: Expected | None = None,
    say: Say = measure.silent,
) -> Reverified:
    """Digests, golden answers, size and, where the bundle is for this platform, its time budgets.

    Args:
        bundle: the directory.
        store: where the runtime environment is kept.
        timed: measure latency, start and memory.
        platform: judge for this one, which is emulated where this host is another; `linux/arm64`.
        measurement: a file to write, as the bundle measures itself, for `ortc attach`; none where nothing is timed.
        expected: the bundle that was asked for; nothing of another one is run.
        say: told when another measurement on this machine is waited for.

    Raises:
        StageError: the directory is no bundle or not the expected one, the platform cannot be emulated here, or the
            bundle cannot measure.
        UsageError: the bundle is not for that platform.
    """
    from ortc.common.digests import sha256_file

    manifest = _asked_for(bundle, platform, expected)
    if measurement is not None:
        _expect_measuring(bundle)
    host = describe()
    verdicts: list[Verdict] = []
    numbers, race = None, None
    gpu = "CUDAExecutionProvider" in read_plain_text(bundle / "session.json")
    missing, here = why_not_here(bundle, manifest, host, is_for_gpu=gpu), platform_here(manifest, host)
    if platform not in (None, here) and is_script(bundle):
        verdicts += [_not_run(platform or here, f"ortc runs no {place_of(bundle)} under emulation")]
    elif platform not in (None, here) and not gpu:
        verdicts += _emulated(bundle, manifest, store, platform)
        verdicts += _untimed(manifest, platform) if timed else ()
    elif missing is not None:
        verdicts += [_not_run(name, missing) for name in manifest.platforms]
    else:
        interpreter = interpreter_of(bundle, store.root / "environments")
        candidate = Worker.for_bundle(bundle.name, interpreter, bundle)
        verdicts += _selftest(candidate, bundle, here, placed=manifest)
        verdicts += budget_verdicts(files_of(manifest, here), budgets_of(manifest), here)
        if timed and verdicts[0].outcome == "pass":
            numbers, race = _numbers(bundle, interpreter, manifest, host, measurement, say)
            verdicts += _timed(numbers, manifest, here)
    return Reverified(
        bundle=f"{manifest.name}/{manifest.version}/{manifest.target}",
        manifest_sha256=sha256_file(bundle / "manifest.json"),
        host=host,
        verdicts=tuple(verdicts),
        numbers=numbers,
        race=race,
        unfit_reason=manifest.unfit_reason,
    )


def _expect_measuring(bundle: Path) -> None:
    """Refuse a bundle that cannot write a file for `ortc attach`."""
    if is_script(bundle):
        raise UsageError(
            f"{bundle} is for {place_of(bundle)}, and no bundle measures itself there for `ortc attach`",
            help="without that file, ortc measures it on this machine",
        )


def _not_run(platform: str, reason: str) -> Verdict:
    required = "run on the target"
    return Verdict(gate="self-test", platform=platform, outcome="unmeasured", said=reason, required=required)


def _asked_for(bundle: Path, platform: str | None, expected: Expected | None) -> Manifest:
    """The manifest of a bundle, where it is the expected one and for that platform."""
    manifest = read_bundle(bundle)
    if expected is not None:
        expected.check(manifest, bundle)
    if platform is not None and platform not in manifest.platforms:
        raise UsageError(
            f"the bundle is not for {platform}",
            help=f"it is for {', '.join(manifest.platforms)}; see its manifest.json",
        )
    return manifest


def _numbers(
    bundle: Path, interpreter: Path, manifest: Manifest, host: Host, measurement: Path | None, say: Say
) -> tuple[Numbers, Race]:
    """Measure the bundle here: by ortc or, where there is a file to write, by the bundle itself."""
    if measurement is None:
        return _measure(interpreter, bundle, manifest, host, say)
    found = take(bundle, interpreter, measurement, say)
    race = found.race(manifest.variant.name)
    return found.numbers(race), race


def _timed(numbers: Numbers, manifest: Manifest, platform: str) -> tuple[Verdict, ...]:
    """Judge times and memory by what the bundle promises; PyTorch, which is not part of it, was beside the build."""
    at = Shape(sizes=tuple(manifest.promises.at.items()))
    seen = Evidence(numbers=numbers, peak_rss_bytes=numbers.peak_rss_bytes, at=at)
    return budget_verdicts(seen, budgets_of(manifest), platform, WITHOUT_PYTORCH)


def _emulated(bundle: Path, manifest: Manifest, store: Store, platform: str) -> Iterator[Verdict]:
    requirements = read_plain_text(bundle / "requirements.txt")
    emulated = emulation(platform, manifest, requirements, store.root / "environments")
    # One thread: the emulator gains nothing from more.
    environment = {**emulated.environment, "ORT_INTRA_OP_NUM_THREADS": "1"}
    worker = Worker.emulated(bundle.name, emulated.command, environment, bundle)
    yield from _selftest(worker, bundle, platform, f", on a {emulated.description}")
    yield from budget_verdicts(files_of(manifest, platform), budgets_of(manifest), platform)


def files_of(manifest: Manifest, platform: str) -> Evidence:
    """Return what the manifest says of the bundle's size, and of the download on a platform."""
    wheels = {name: size for name, size in manifest.runtime.loader_bytes.items() if name == platform}
    return Evidence(model_bytes=manifest.model.bytes, wheels=wheels)


def _untimed(manifest: Manifest, platform: str) -> tuple[Verdict, ...]:
    """List promises that an emulator says nothing about."""
    absent = ("emulated", f"measured on {platform}")
    return budget_verdicts(Evidence(), budgets_of(manifest), platform, WITHOUT_PYTORCH, absent)


def _selftest(
    candidate: Worker, bundle: Path, platform: str, where: str = "", placed: Manifest | None = None
) -> Iterator[Verdict]:
    """Digests and golden answers; with a manifest also what its budgets say of the placement."""
    copies = None
    try:
        with candidate as worker:
            loaded = worker.call("load", bundle=str(bundle), verify="full", selftest=True, warmup=False)
            if placed is not None and placed.placement.max_memcpy_nodes is not None:
                request = str(bundle / placed.golden[0].inputs)
                copies = sum(worker.call("copies", inputs=request)["copies"].values())
    except WorkerError as error:
        yield Verdict(
            gate="self-test",
            platform=platform,
            outcome="fail",
            said=error.message,
            required="digests and golden answers",
        )
        return
    cases = len(loaded["golden"])
    yield Verdict(
        gate="self-test",
        platform=platform,
        outcome="pass",
        said=f"every digest and {cases} golden cases{where}",
        required="digests and golden answers",
    )
    if placed is not None:
        # A loader from before the two were told apart says how many nodes each provider has.
        left = loaded.get("fallback") or {"nodes": loaded["placement"].get(CPU, 0), "shape_nodes": 0}
        if loaded["providers"] == [CPU]:
            left, copies = {"nodes": 0, "shape_nodes": 0}, 0
        seen = Evidence(placed=Placed(left["nodes"], left["shape_nodes"], copies))
        yield from budget_verdicts(seen, budgets_of(placed), platform)


def _measure(interpreter: Path, bundle: Path, manifest: Manifest, host: Host, say: Say) -> tuple[Numbers, Race]:
    with tempfile.TemporaryDirectory(prefix="ortc-verify-") as scratch:
        request = Path(scratch) / "inputs.npz"
        write_arrays(request, request_of(bundle, manifest))
        shape = Shape(sizes=tuple(manifest.promises.at.items()))
        race = measure.race(
            [measure.Entrant(manifest.variant.name, interpreter, bundle)],
            None,
            request,
            shape=str(shape),
            host=host,
            threads=cores(),
            say=say,
        )
    starts = measure.start_times(interpreter, bundle, manifest.promises.at, say=say)
    with Worker.for_bundle(bundle.name, interpreter, bundle) as worker:
        worker.call("load", bundle=str(bundle), verify="none", selftest=True, warmup=True)
        soaked = soak(worker)
    peak = max(starts.peak_rss_bytes, 0 if soaked is None else soaked.peak_rss_bytes)
    found = measure.numbers(race, manifest.variant.name, starts, peak)
    return found.model_copy(update={"soak": soaked}), race


def request_of(bundle: Path, manifest: Manifest) -> dict[str, Any]:
    """A request of the promised shape, cut and tiled from the first golden case."""
    import numpy as np

    golden = read_arrays(bundle / manifest.golden[0].inputs)
    request = {}
    for tensor in manifest.inputs:
        array = golden[tensor.name]
        for dimension, entry in enumerate(tensor.shape):
            size = manifest.promises.at[entry] if isinstance(entry, str) else entry
            array = np.take(array, np.arange(size) % array.shape[dimension], axis=dimension)
        request[tensor.name] = np.ascontiguousarray(array)
    return request


def budgets_of(manifest: Manifest) -> BudgetPlan:
    """Return the budgets that a bundle promises, as the plan had them."""
    promises, placement = manifest.promises, manifest.placement
    limits: dict[str, int | float | None] = {
        f"latency_budget.{name}": limit for name, limit in promises.latency.items()
    }
    limits |= {key: promises.limits.get(promise_of(key)) for key in PROMISE_KEYS}
    limits |= {key: getattr(placement, key) for key in PLACEMENT_KEYS}
    return BudgetPlan(limits={key: limit for key, limit in limits.items() if limit is not None})
