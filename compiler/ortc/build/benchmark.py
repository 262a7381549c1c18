"""Benchmark a spec's model on this host: its bundles beside PyTorch, eager and compiled, at several batch sizes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ortc.build.context import Context, executed
from ortc.build.model import ModelBuild, build_model
from ortc.build.progress import Progress
from ortc.build.target import build_target
from ortc.build.target_result import Shipment, TargetBuild
from ortc.common.arrays import write_arrays
from ortc.common.errors import AccuracyError, BudgetError, OrtcError, StageError, UnmeasuredError
from ortc.common.statistics import Interval, percentile, ratio_of_rounds
from ortc.common.values import Frozen
from ortc.evaluation.gates import describe as explain
from ortc.evaluation.latency import REFERENCE, start_times
from ortc.evaluation.machine import exclusive
from ortc.evaluation.noise import race_noise
from ortc.evaluation.report import Contender, Load, Race
from ortc.evaluation.turns import Turn, interleave
from ortc.execution.action_cache import Store
from ortc.execution.host import Host, cores
from ortc.execution.worker import Worker
from ortc.plan.plan import AxisPlan, CasePlan, Plan, Shape, settled

FORMAT_VERSION = 1
BATCHES = (1, 4, 16)
COMPILED = "torch.compile"
ROUNDS, LEAST_ROUNDS = 20, 6
"""Fewer rounds than six give no interval of a ratio."""
RACE_SECONDS = 60.0
"""What the rounds at one batch size may take: slow models, and busy machines, get fewer of them."""
TURN_SECONDS, LEAST_RUNS = 0.6, 2
"""Every contender's turn lasts at least as long: 20 of them give p99 an interval where a request takes less than about
30 ms."""
STARTS = 3


class Row(Frozen):
    """One contender at one batch size.

    Milliseconds, seconds, bytes. `p99_ms` is None where the samples are too few to bound it; `requests_per_second` is
    of one client who asks again as soon as it is answered; `speedup` is over eager PyTorch; `compile_seconds`, of
    torch.compile, are in no other number. `failed` says why there are no numbers.
    """

    contender: str
    samples: int = 0
    p50_ms: Interval | None = None
    p90_ms: Interval | None = None
    p99_ms: Interval | None = None
    requests_per_second: float | None = None
    speedup: Interval | None = None
    start_seconds: float | None = None
    compile_seconds: float | None = None
    peak_rss_bytes: int | None = None
    failed: str | None = None


class AtBatch(Frozen):
    """All contenders at one shape, in one interleaved run; `batch` is None for a model without a batch axis.

    `noise` says why the numbers claim nothing, and `load` what ran beside them.
    """

    batch: int | None
    shape: str
    rounds: int
    rows: tuple[Row, ...]
    noise: tuple[str, ...] = ()
    load: Load | None = None


class Benchmark(Frozen):
    """What `ortc bench SPEC` found."""

    format_version: int = FORMAT_VERSION
    name: str
    version: str
    host: Host
    threads: int
    versions: dict[str, str]
    notes: tuple[str, ...]
    batches: tuple[AtBatch, ...]


class Candidate(NamedTuple):
    """A bundle that takes part: what it is called, its directory, and its runtime with the interpreter that has it."""

    name: str
    bundle: Path
    package: str
    interpreter: Path


@dataclass
class Started:
    """A contender whose process is up: how long that took, and compiling, in seconds; or why it is not."""

    name: str
    worker: Worker | None
    start_seconds: float | None = None
    compile_seconds: float | None = None
    failed: str | None = None


def benchmark(
    plan: Plan,
    root: Path,
    output: Path,
    store: Store,
    progress: Progress,
    batches: Sequence[int] = BATCHES,
    *,
    remeasured: frozenset[str] = frozenset(),
) -> Benchmark:
    """Build what is not built yet, and race it against PyTorch.

    Budgets of time are not judged: a bundle that breaks one is measured like any other.

    Args:
        plan: of the spec, with the targets to measure.
        root: what the spec's relative paths resolve against.
        output: bundles that lie here and are what the plan gives are taken from here.
        store: finished actions, source files, runtime environments.
        progress: told of every stage.
        batches: sizes of the batch axis; the other axes have their typical sizes.
        remeasured: stages of times that the bundles' builds do again; the benchmark itself is never cached.

    Raises:
        StageError: a stage fails.
        AccuracyError: the exported graph does not compute what PyTorch computes.
        OrtcError: no target can be measured on this host; with the exit code of its build.
    """
    with executed(plan, root, store, progress, remeasured) as context:
        model = build_model(context)
        candidates, missing = _candidates(context, model, output)
        context.reference.end()
        axis = next((axis for axis in plan.export.axes if axis.name == model.factory().batch_axis), None)
        shapes, clipped = shapes_of(plan.export.axes, axis, batches)
        notes = (*missing, *clipped)
        for note in notes:
            progress.note(note)
        versions = dict(context.tools)
        found = []
        for shape in shapes:
            with progress.step("bench", str(shape)):
                found.append(_at(context, model, candidates, shape, axis, versions))
        return Benchmark(
            name=plan.name,
            version=plan.version,
            host=context.host,
            threads=cores(),
            versions=versions,
            notes=notes,
            batches=tuple(found),
        )


def shapes_of(
    axes: Sequence[AxisPlan], batch: AxisPlan | None, batches: Sequence[int]
) -> tuple[tuple[Shape, ...], tuple[str, ...]]:
    """The shapes to measure at, with what had to be changed for the spec's bounds.

    Args:
        axes: the declared dynamic axes.
        batch: the one that is the batch, or None.
        batches: sizes asked for.
    """
    typical = {axis.name: axis.typical for axis in axes}
    if batch is None:
        return (Shape(sizes=tuple(typical.items())),), ("the model has no batch axis: it is measured at one shape",)
    step, notes = batch.multiple_of, []
    sizes: list[int] = []
    for wanted in batches:
        size = min(max(wanted, batch.min), batch.max) // step * step
        size = size if size >= batch.min else -(-batch.min // step) * step
        if size != wanted:
            steps = f" in steps of {step}" if step > 1 else ""
            notes.append(
                f"batch {wanted} is not within the spec's {batch.min} to {batch.max}{steps} of `{batch.name}`: "
                f"{size} is measured"
            )
        if size not in sizes:
            sizes.append(size)
    found = (settled(axes, {**typical, batch.name: size}) for size in sizes)
    return tuple(Shape(sizes=tuple(shape.items())) for shape in found), tuple(notes)


def _candidates(context: Context, model: ModelBuild, output: Path) -> tuple[list[Candidate], tuple[str, ...]]:
    """Bundles of the plan's targets that run here, and why others are missing or would not be published.

    Raises:
        OrtcError: there are none.
    """
    candidates: list[Candidate] = []
    notes: list[str] = []
    failures: list[str] = []
    codes: list[int] = []
    base = output / context.plan.name / context.plan.version
    for target in context.plan.targets:
        if context.host.platform not in target.platforms:
            notes.append(f"{target.name} is for {', '.join(target.platforms)}: not measured on {context.host.platform}")
            continue
        if target.requires_gpu and not context.host.gpus:
            notes.append(f"{target.name} needs a GPU, which this host lacks: not measured")
            continue
        made = build_target(context, model, target)
        if made.winner is None or made.interpreter is None:
            failures.append(f"{target.name}: {made.report.error}")
            codes.append(made.report.exit_code)
            continue
        notes += [
            f"{target.name}: {explain(verdict)}, so `ortc build` does not publish it"
            for verdict in made.report.verdicts
            if verdict.outcome == "fail"
        ]
        name = f"ortc {target.name}, {made.winner.made.variant.name}"
        if made.winner.made.tuning is not None:
            name += f", {made.winner.made.tuning.name}"
        package = made.winner.made.variant.runtime.package
        candidates.append(Candidate(name, _bundle(context, model, made, base), package, made.interpreter))
    if not candidates:
        raise _nothing((*failures, *notes), codes)
    return candidates, (*failures, *notes)


def _nothing(why: tuple[str, ...], codes: list[int]) -> OrtcError:
    """The error of a spec that has nothing to measure here, with the exit code of its build."""
    kinds = {kind.exit_code: kind for kind in (StageError, AccuracyError, BudgetError)}
    kind = kinds.get(min(codes, default=0), UnmeasuredError)
    return kind("no target of the spec can be measured on this host", details=why)


def _bundle(context: Context, model: ModelBuild, made: TargetBuild, base: Path) -> Path:
    """The bundle as it is published, or written to where this run works."""
    shipment = Shipment.of(made, context, model.material)
    if shipment.is_published(base / made.plan.name):
        return base / made.plan.name
    place = context.workspace.work / "bundles" / made.plan.name
    place.mkdir(parents=True)
    shipment.write(place)
    return place


def _at(
    context: Context,
    model: ModelBuild,
    candidates: Sequence[Candidate],
    shape: Shape,
    axis: AxisPlan | None,
    versions: dict[str, str],
) -> AtBatch:
    """One race, everybody in a fresh process, so that starts and peaks of memory are this shape's own."""
    inputs = context.workspace.work / "bench.npz"
    write_arrays(inputs, model.factory().case(CasePlan(shape=shape, padded=False)))
    with ExitStack() as stack:
        started = [*_pytorch(context, stack, inputs)]
        for candidate in candidates:
            worker = Worker.for_bundle(candidate.name, candidate.interpreter, candidate.bundle)
            stack.enter_context(worker)
            loaded = worker.call("load", bundle=str(candidate.bundle), verify="none", selftest=False, warmup=False)
            versions[candidate.package] = loaded["versions"]["onnxruntime"]
            started.append(Started(candidate.name, worker))
        running = [entry for entry in started if entry.worker is not None]
        turns = [Turn(entry.name, entry.worker, LEAST_RUNS) for entry in running if entry.worker is not None]
        with exclusive(context.progress.note):
            outcome = interleave(
                turns, inputs, ROUNDS, threads=cores(), turn=TURN_SECONDS, least=LEAST_ROUNDS, seconds=RACE_SECONDS
            )
        contenders = {entry.name: entry for entry in outcome.contenders}
        peaks = {e.name: int(e.worker.call("info")["peak_rss_bytes"]) for e in running if e.worker is not None}
    for candidate in candidates:
        say = context.progress.note
        starts = start_times(candidate.interpreter, candidate.bundle, shape.as_dict(), STARTS, say)
        entry = next(entry for entry in started if entry.name == candidate.name)
        entry.start_seconds = percentile(starts.seconds, 0.5).value
    return AtBatch(
        batch=None if axis is None else shape.as_dict()[axis.name],
        shape=str(shape),
        rounds=len(outcome.contenders[0].rounds),
        noise=race_noise(
            Race(
                shape=str(shape),
                host=context.host,
                threads=cores(),
                contenders=outcome.contenders,
                control=outcome.control,
                load=outcome.load,
            )
        ),
        load=outcome.load,
        rows=tuple(row(entry, contenders, peaks.get(entry.name)) for entry in started),
    )


def _pytorch(context: Context, stack: ExitStack, inputs: Path) -> list[Started]:
    """The model in PyTorch, as it is and compiled."""
    if not context.has_reference:
        why = "the source is an ONNX file: there is no model in PyTorch"
        return [Started(REFERENCE, None, failed=why)]
    started = []
    for name in (REFERENCE, COMPILED):
        # What an earlier compilation left would make this one look quick.
        cache = context.workspace.work / "inductor"
        worker = Worker.for_reference(
            {"TORCHINDUCTOR_CACHE_DIR": str(cache), "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"}
        )
        with ExitStack() as starting:
            begin = time.perf_counter()
            starting.enter_context(worker)
            context.reference.load(worker)
            worker.bench(inputs, runs=1, warmup=0)
            entry = Started(name, worker, start_seconds=time.perf_counter() - begin)
            if name == COMPILED:
                try:
                    entry.compile_seconds = float(worker.call("compile", inputs=str(inputs))["seconds"])
                except StageError as error:
                    started.append(Started(name, None, failed=error.message))
                    continue
            stack.push(starting.pop_all())
            started.append(entry)
    return started


def row(entry: Started, contenders: dict[str, Contender], peak: int | None) -> Row:
    """The numbers of one contender."""
    if entry.failed is not None:
        return Row(contender=entry.name, failed=entry.failed)
    found, eager = contenders[entry.name], contenders.get(REFERENCE)
    samples = found.samples()
    p99 = percentile(samples, 0.99)
    speedup = None if eager is None else ratio_of_rounds(eager.rounds, found.rounds)
    return Row(
        contender=entry.name,
        samples=len(samples),
        p50_ms=percentile(samples, 0.5),
        p90_ms=percentile(samples, 0.9),
        p99_ms=None if p99.high is None else p99,
        requests_per_second=1000 * len(samples) / sum(samples),
        speedup=speedup if entry.name != REFERENCE else None,
        start_seconds=entry.start_seconds,
        compile_seconds=entry.compile_seconds,
        peak_rss_bytes=peak,
    )
