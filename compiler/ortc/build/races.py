"""The timed parts of a target: races between its variants and PyTorch, and starts. Cached by the host's fingerprint."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from ortc.build.search.choice import name_of
from ortc.build.stages import MEASURE, START, START_OF_PYTORCH
from ortc.build.tried import Tried
from ortc.build.variant import VariantBuilder
from ortc.bundle.assemble import assemble
from ortc.bundle.publish import seal
from ortc.common.arrays import write_arrays
from ortc.evaluation import latency
from ortc.evaluation.footprint import Footprint, loader_bytes
from ortc.evaluation.machine import ControlClock, Watch, control_worker, exclusive
from ortc.evaluation.report import Numbers, Race, Starts
from ortc.evaluation.turns import REST_SECONDS
from ortc.execution.host import cores
from ortc.execution.worker_pool import Loaded
from ortc.plan.plan import CasePlan, Shape


def race(
    builder: VariantBuilder,
    entries: Sequence[Tried],
    rounds: int,
    runs: int,
    *,
    with_reference: bool = False,
    shape: Shape | None = None,
    names: Sequence[str] | None = None,
    quantity: Literal["latency", "throughput"] | None = None,
    loaded: Loaded | None = None,
) -> Race:
    """Race made variants at a shape, interleaved, each in its own process.

    Args:
        builder: of the target.
        entries: variants; a session that runs several requests at once is raced with as many clients.
        rounds, runs: turns, and least runs of a turn.
        with_reference: race PyTorch, too.
        shape: the shape of the budget when None.
        names: what the contenders are called; their variants' names when None.
        quantity: what is measured; what the target's objective is about when None.
        loaded: processes that have loaded some of the bundles; those started here join them.
    """
    context, target = builder.context, builder.target
    called = list(names or [name_of(entry) for entry in entries])
    with_reference = with_reference and context.has_reference
    at = shape or target.measure_at
    if quantity is None:
        quantity = "throughput" if target.objective == "throughput" else "latency"
    inputs = {**_inputs(builder, entries, at, quantity), "rounds": [rounds, runs], "reference": with_reference}

    def work(output: Path) -> Race:
        request = _request(builder, at, output)
        if not with_reference:
            # It would only take memory from the contenders.
            context.reference.end()
        return latency.race(
            [_entrant(builder, name, entry) for name, entry in zip(called, entries, strict=True)],
            context.reference.timed() if with_reference else None,
            request,
            measure=quantity,
            shape=str(at),
            host=context.host,
            threads=cores(),
            rounds=rounds,
            runs=runs,
            loaded=loaded,
            say=context.progress.note,
        )

    where = ("" if shape is None else f" at {shape}") + (", throughput" if quantity == "throughput" else "")
    # Of the same contenders there may be several races.
    subject = f"{target.name}: {', '.join(called)}{' and PyTorch' if with_reference else ''}{where}, {rounds} rounds"
    return context.run(MEASURE.action(subject, inputs), work).result


def _inputs(builder: VariantBuilder, entries: Sequence[Tried], at: Shape, quantity: str) -> dict[str, Any]:
    """What decides a race, but for how long it is."""
    return {
        "variants": [builder.key(entry) for entry in entries],
        "model": builder.model.key,
        "shape": at.model_dump(mode="json"),
        "host": builder.context.host.fingerprint(),
        "threads": cores(),
        "quantity": quantity,
    }


def _entrant(builder: VariantBuilder, name: str, entry: Tried) -> latency.Entrant:
    clients = cores() if entry.made.session.concurrency == "physical" else 1
    return latency.Entrant(name, builder.runner(entry.made), builder.bundle(entry.made), clients)


def _request(builder: VariantBuilder, at: Shape, directory: Path) -> Path:
    """Write one request of a shape, and return its .npz file."""
    request = directory / "inputs.npz"
    write_arrays(request, builder.model.factory().case(CasePlan(shape=at, padded=False)))
    return request


def start(builder: VariantBuilder, entry: Tried, starts: int = latency.START_RUNS) -> Starts:
    """Starts of a sealed bundle up to its first answer."""
    context = builder.context
    shape = builder.target.measure_at.model_dump(mode="json")
    inputs = {
        **builder.key(entry),
        "model": builder.model.key,
        "shape": shape,
        "starts": starts,
    }

    def work(_: Path) -> Starts:
        # A place of its own: the same variant starts again when it is tuned.
        prefix = f"{builder.target.name}-{name_of(entry)}-start-"
        bundle = Path(tempfile.mkdtemp(prefix=prefix, dir=context.workspace.work))
        seal(bundle, assemble(bundle, builder.model.material, builder.target, entry.made))
        sizes = builder.target.measure_at.as_dict()
        say = context.progress.note
        return latency.start_times(builder.runner(entry.made), bundle, sizes, starts, say)

    subject = f"{builder.target.name}: {name_of(entry)}"
    return context.run(START.action(subject, inputs), work).result


def reference_start(builder: VariantBuilder) -> Starts | None:
    """PyTorch's own start, import and loading included.

    Once: it takes seconds, and the files were read before. None where the model is not PyTorch's.
    """
    context, at = builder.context, builder.target.measure_at
    if not context.has_reference:
        return None
    inputs = {
        "model": builder.model.key,
        "shape": at.model_dump(mode="json"),
        "host": context.host.fingerprint(),
        "threads": cores(),
    }

    def work(output: Path) -> Starts:
        request = _request(builder, at, output)
        context.reference.end()
        with exclusive(context.progress.note), control_worker() as controlled:
            clock, watch = ControlClock(controlled, cores()), Watch()
            time.sleep(REST_SECONDS)
            clock.take()
            worker = context.reference.timed()
            worker.bench(request, runs=1, warmup=0)
            seconds = time.perf_counter() - worker.started
            clock.take()
            control, load = clock.control(), watch.load()
        peak = int(worker.call("info")["peak_rss_bytes"])
        return Starts(seconds=(seconds,), peak_rss_bytes=peak, control=control, load=load)

    subject = f"{builder.target.name}: PyTorch at {at}"
    return context.run(START_OF_PYTORCH.action(subject, inputs), work).result


def footprint_of(builder: VariantBuilder, entry: Tried, measured: Numbers | None) -> Footprint:
    """What a variant takes besides time: known of its runtime's wheels, measured of the rest."""
    made, wheels = entry.made, loader_bytes(entry.made.variant, builder.target)
    packages = builder.environments.installed(made)
    return Footprint(
        environment_bytes=None if packages is None else packages.unpacked,
        image_bytes=None if packages is None else packages.kept + made.graph.bytes,
        download_bytes=made.graph.bytes + max(wheels.values()),
        model_bytes=made.graph.bytes,
        memory_bytes=None if measured is None else measured.peak_rss_bytes,
        start_seconds=None if measured is None else measured.start_seconds.value,
    )
