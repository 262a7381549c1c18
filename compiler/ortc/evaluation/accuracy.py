"""Verify: a variant, as a bundle in its own runtime, against the reference at every case."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from pydantic import Field

from ortc.common.arrays import Arrays, read_arrays
from ortc.common.units import format_bytes
from ortc.common.values import Frozen
from ortc.evaluation.compare import compare
from ortc.evaluation.embeddings import check_embeddings, pooled
from ortc.evaluation.report import CaseResult, Check, Soak, Verdict
from ortc.evaluation.spread import Spreads
from ortc.evaluation.wording import Unit
from ortc.execution.worker import Worker, WorkerError
from ortc.execution.worker_pool import Loaded
from ortc.frontend.samples.inputs import MASK, InputFactory
from ortc.passes.variant_graph import VariantGraph
from ortc.plan.plan import AccuracyPlan, BudgetPlan, TargetPlan, VariantPlan
from ortc.spec.accuracy import Embeddings
from ortc.spec.runtimes import pins

CPU = "CPUExecutionProvider"
INVARIANCE_ROWS = 4
SOAK_SECONDS = 15.0
"""How long the soak of a bundle may take, and one large run more."""


class ReferenceCase(Frozen):
    """A case with its files: inputs, the reference's outputs for them, and the teacher's where it was asked.

    `is_sample`: a batch of real samples, and not a point of the shape matrix. `is_padded`: rows of different lengths.
    The shapes are those of the arrays in both files, by name.
    """

    name: str
    is_sample: bool = False
    is_padded: bool = False
    input_shapes: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    output_shapes: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    inputs: Path
    outputs: Path
    teacher: Path | None = None


def check_bundle(
    interpreter: Path,
    bundle: Path,
    cases: tuple[ReferenceCase, ...],
    factory: InputFactory,
    metric: Callable[[Callable[[Arrays], Arrays]], float] | None,
    loaded: Loaded | None = None,
    embeddings: Embeddings | None = None,
    *,
    copies: bool = False,
    soaks: bool = False,
) -> Check:
    """Load a candidate bundle once and run every case on that one session.

    Args:
        interpreter: of the target's runtime environment.
        bundle: the candidate.
        cases: every case with the reference's outputs.
        factory: the model's inputs; finds the batch axis.
        metric: task metric of a predict function, or None.
        loaded: processes that the one started here joins, for what comes next.
        embeddings: what to compare of the samples' embeddings, or None.
        copies: count those between host and device, in a second session.
        soaks: run many distinct shapes, so that the peak of memory is one for all of them.
    """
    try:
        with (
            nullcontext(loaded) if loaded is not None else Loaded() as crew,
            crew.worker(bundle.name, interpreter, bundle) as worker,
        ):
            ran = run_cases(worker, cases, embeddings)
            # Peak memory of serving, before the extra runs that only this check makes.
            info = worker.call("info")
            soaked = soak(worker) if soaks else None
            left = info["fallback"]
            return Check(
                cases=ran.cases,
                outputs=ran.outputs,
                labels=ran.labels,
                invariance=_invariance(worker, cases, factory),
                placement=info["placement"],
                cpu_nodes=int(left["nodes"]),
                shape_nodes=int(left["shape_nodes"]),
                memcpy_nodes=_copies(worker, cases[0]) if copies else None,
                peak_rss_bytes=max(int(info["peak_rss_bytes"]), 0 if soaked is None else soaked.peak_rss_bytes),
                soak=soaked,
                metric=None if metric is None else metric(worker.run),
                embeddings=ran.embeddings,
            )
    except WorkerError as error:
        return Check(error="; ".join([error.message, *error.details[-2:]]))


def soak(worker: Worker) -> Soak | None:
    """Let a loaded model run many distinct shapes; None where its loader is from before there were soaks.

    Raises:
        WorkerError: a shape does not run.
    """
    try:
        return Soak.model_validate(worker.call("soak", seconds=SOAK_SECONDS))
    except WorkerError as error:
        if error.code == "usage":
            return None
        raise


def _copies(worker: Worker, case: ReferenceCase) -> int:
    return sum(int(count) for count in worker.call("copies", inputs=str(case.inputs))["copies"].values())


def run_cases(worker: Worker, cases: Iterable[ReferenceCase], embeddings: Embeddings | None) -> Check:
    """Run a loaded model on every case, and compare; the embeddings of real samples, too, where they are asked for.

    Returns:
        A check with `cases`, `outputs`, `labels` and `embeddings`.

    Raises:
        WorkerError: a case does not run.
    """
    results, expected, actual = [], [], []
    spreads = Spreads()
    for case in cases:
        inputs, wanted = read_arrays(case.inputs), read_arrays(case.outputs)
        found = _answer(worker, case.name, inputs, wanted)
        mask = inputs.get(MASK)
        differences = tuple(compare(name, wanted[name], found[name], mask) for name in wanted)
        for entry in differences:
            if entry.problem is None:
                spreads.add(entry.output, wanted[entry.output], found[entry.output], mask, is_sample=case.is_sample)
        taught = {} if case.teacher is None else read_arrays(case.teacher)
        beside = tuple(compare(name, taught[name], found[name], mask) for name in taught)
        results.append(CaseResult(case=case.name, differences=differences, teacher=beside))
        if embeddings is not None and case.is_sample and not any(d.problem for d in differences):
            expected.append(pooled(wanted, embeddings, mask))
            actual.append(pooled(found, embeddings, mask))
    compared = check_embeddings(np.concatenate(expected), np.concatenate(actual)) if expected else None
    return Check(cases=tuple(results), outputs=spreads.errors(), labels=spreads.labels(), embeddings=compared)


def _answer(worker: Worker, name: str, inputs: Arrays, expected: Arrays) -> Arrays:
    try:
        actual = worker.run(inputs)
    except WorkerError as error:
        if error.code in ("died", "timeout"):
            raise
        raise WorkerError(error.code, f"at {name}: {error.message}", details=error.details) from error
    if missing := [output for output in expected if output not in actual]:
        raise WorkerError("outputs", f"the model has no output `{missing[0]}`")
    return actual


def _invariance(worker: Worker, cases: tuple[ReferenceCase, ...], factory: InputFactory) -> float | None:
    """Greatest difference between a row's answer among others and alone; None when rows cannot be told apart."""
    axis = factory.batch_axis
    if axis is None or factory.axes[axis].min != 1 or factory.axes[axis].max < 2:
        return None
    for case in reversed(cases):
        inputs = read_arrays(case.inputs)
        rows = next(iter(inputs.values())).shape[0]
        if 2 <= rows <= 2 * INVARIANCE_ROWS:
            break
    else:
        return None
    together = worker.run(inputs)
    worst = 0.0
    for row in range(min(rows, INVARIANCE_ROWS)):
        alone = worker.run({name: array[row : row + 1] for name, array in inputs.items()})
        for name, array in together.items():
            if array.ndim == 0 or array.shape[0] != rows:
                return None
            if array.dtype.kind == "f":
                delta = np.abs(array[row].astype(np.float64) - alone[name][0].astype(np.float64))
                worst = max(worst, float(np.nanmax(delta, initial=0.0)))
    return worst


def size_verdicts(target: TargetPlan, variant: VariantPlan, model_bytes: int, platform: str) -> tuple[Verdict, ...]:
    """Judge the size of the model's files, and on every promised platform what is downloaded with them."""
    wheels = loader_bytes(variant, target)
    return (
        *most("size", model_bytes, target.budgets.size, platform, "bytes"),
        *download_verdicts(model_bytes, wheels, target.budgets.download),
    )


def weight_verdicts(variant: VariantPlan, graph: VariantGraph, platform: str) -> tuple[Verdict, ...]:
    """Refuse a quantized graph with more weights than the canonical one: a tied table may have to be there twice."""
    if variant.quantization == "none" or graph.weights <= graph.exact_weights:
        return ()
    (verdict,) = most("weights", graph.weights, graph.exact_weights, platform, "bytes")
    return (verdict.model_copy(update={"required": "the weights of fp32"}),)


def loader_bytes(variant: VariantPlan, target: TargetPlan) -> dict[str, int]:
    """Bytes of the wheels that the loader needs, by promised platform."""
    pinned = pins(variant.runtime.pins)
    return {platform: pinned.loader_bytes(platform) for platform in target.platforms}


def download_verdicts(model_bytes: int, wheels: Mapping[str, int], limit: int | None) -> Iterator[Verdict]:
    """Judge what is downloaded before the first answer, on every platform: sizes are known without running there."""
    for platform, size in wheels.items():
        for verdict in most("download", model_bytes + size, limit, platform, "bytes"):
            where = f"model {format_bytes(model_bytes)}, the loader's wheels {format_bytes(size)}"
            yield verdict.model_copy(update={"where": where})


def budget_verdicts(check: Check, target: TargetPlan, accuracy: AccuracyPlan, platform: str) -> tuple[Verdict, ...]:
    """Judge memory, placement and batch invariance."""
    budgets = target.budgets
    verdicts = [
        *most("memory", check.peak_rss_bytes, budgets.memory, platform, "bytes"),
        *placement_verdicts(check.cpu_nodes, check.shape_nodes, check.memcpy_nodes, budgets, platform),
    ]
    if target.batch_invariance == "require":
        invariant = is_invariant(check, accuracy)
        verdicts.append(
            Verdict(
                gate="batch_invariance",
                platform=platform,
                outcome="pass" if invariant else "fail",
                value=check.invariance,
                comparison="<=",
                bound=accuracy.max_abs,
                said="no batch axis" if check.invariance is None else "",
            )
        )
    return tuple(verdicts)


def placement_verdicts(
    cpu_nodes: int, shape_nodes: int, memcpy_nodes: int | None, budgets: BudgetPlan, platform: str
) -> Iterator[Verdict]:
    """Judge what another provider left to the CPU, and the copies between the two; None: those were not counted."""
    for verdict in most("cpu_nodes", cpu_nodes, budgets.max_cpu_nodes, platform, "nodes"):
        yield verdict.model_copy(update={"said": f"{shape_nodes} more compute shapes" if shape_nodes else ""})
    limit = budgets.max_memcpy_nodes
    if memcpy_nodes is not None:
        yield from most("memcpy_nodes", memcpy_nodes, limit, platform, "nodes")
    elif limit is not None:
        yield Verdict(
            gate="memcpy_nodes",
            platform=platform,
            outcome="unmeasured",
            comparison="<=",
            bound=limit,
            unit="nodes",
            said="not counted",
        )


def most(gate: str, observed: int, limit: int | None, platform: str, unit: Unit) -> Iterator[Verdict]:
    """Judge a count by the most that is allowed; nothing where nothing was promised."""
    if limit is not None:
        yield Verdict(
            gate=gate,
            platform=platform,
            outcome="pass" if observed <= limit else "fail",
            value=observed,
            comparison="<=",
            bound=limit,
            unit=unit,
        )


def is_invariant(check: Check, accuracy: AccuracyPlan) -> bool:
    """Whether a row's answer is the same, within the fp32 promise, whatever other rows are in the batch."""
    return check.invariance is not None and check.invariance <= accuracy.max_abs
