"""Verify: a variant, as a bundle in its own runtime, against the reference at every case."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path

import numpy as np

from ortc.arrays import Arrays, read_arrays
from ortc.compare import Difference, compare
from ortc.crew import Loaded
from ortc.embeddings import check_embeddings, pooled
from ortc.errors import StageError
from ortc.plan import AccuracyPlan, BudgetPlan, Frozen, TargetPlan, VariantPlan
from ortc.report import CaseResult, Check, EmbeddingCheck, Verdict
from ortc.samples import MASK, SAMPLES, InputFactory
from ortc.spec import Embeddings
from ortc.units import format_bytes
from ortc.verdicts import EMBEDDING_GATES, against
from ortc.versions import pins
from ortc.worker import Worker, WorkerError

CPU = "CPUExecutionProvider"
INVARIANCE_ROWS = 4


class ReferenceCase(Frozen):
    """A case with its files: inputs, the reference's outputs for them, and the teacher's where it was asked."""

    name: str
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
    """
    try:
        with (
            nullcontext(loaded) if loaded is not None else Loaded() as crew,
            crew.worker(bundle.name, interpreter, bundle) as worker,
        ):
            results, compared = run_cases(worker, cases, embeddings)
            # Peak memory of serving, before the extra runs that only this check makes.
            info = worker.call("info")
            left = info["fallback"]
            return Check(
                cases=results,
                invariance=_invariance(worker, cases, factory),
                placement=info["placement"],
                cpu_nodes=int(left["nodes"]),
                shape_nodes=int(left["shape_nodes"]),
                memcpy_nodes=_copies(worker, cases[0]) if copies else None,
                peak_rss_bytes=int(info["peak_rss_bytes"]),
                metric=None if metric is None else metric(worker.run),
                embeddings=compared,
            )
    except WorkerError as error:
        return Check(error="; ".join([error.message, *error.details[-2:]]))


def _copies(worker: Worker, case: ReferenceCase) -> int:
    return sum(int(count) for count in worker.call("copies", inputs=str(case.inputs))["copies"].values())


def run_cases(
    worker: Worker, cases: Iterable[ReferenceCase], embeddings: Embeddings | None
) -> tuple[tuple[CaseResult, ...], EmbeddingCheck | None]:
    """Run a loaded model on every case, and compare; the embeddings of real samples, too, where they are asked for.

    Raises:
        WorkerError: a case does not run.
    """
    results, expected, actual = [], [], []
    for case in cases:
        inputs, wanted = read_arrays(case.inputs), read_arrays(case.outputs)
        found = _answer(worker, case.name, inputs, wanted)
        mask = inputs.get(MASK)
        differences = tuple(compare(name, wanted[name], found[name], mask) for name in wanted)
        taught = {} if case.teacher is None else read_arrays(case.teacher)
        beside = tuple(compare(name, taught[name], found[name], mask) for name in taught)
        results.append(CaseResult(case=case.name, differences=differences, teacher=beside))
        if embeddings is not None and case.name.startswith(SAMPLES) and not any(d.problem for d in differences):
            expected.append(pooled(wanted, embeddings, mask))
            actual.append(pooled(found, embeddings, mask))
    if not expected:
        return tuple(results), None
    return tuple(results), check_embeddings(np.concatenate(expected), np.concatenate(actual))


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


def accuracy_verdicts(
    check: Check, precision: str, accuracy: AccuracyPlan, platform: str, reference_metric: float | None
) -> tuple[Verdict, ...]:
    """Judge a check by the promises for its precision: max_abs for fp32, cosine for less."""
    return tuple(_accuracy(check, precision, accuracy, platform, reference_metric))


def _accuracy(
    check: Check, precision: str, accuracy: AccuracyPlan, platform: str, reference_metric: float | None
) -> Iterator[Verdict]:
    if check.error is not None:
        yield Verdict(gate="runs", platform=platform, outcome="fail", observed=check.error, limit="every case runs")
        return
    every = [(result.case, difference) for result in check.cases for difference in result.differences]
    if not every:
        raise StageError("no case was checked: a model without outputs cannot be verified")
    broken = next(((case, entry) for case, entry in every if entry.problem is not None), None)
    if broken is not None:
        case, entry = broken
        yield Verdict(
            gate="outputs",
            platform=platform,
            outcome="fail",
            observed=str(entry.problem),
            limit="the shape and kind of PyTorch's",
            where=f"output `{entry.output}` at {case}",
        )
        return
    if precision == "fp32":
        case, worst = max(every, key=lambda pair: pair[1].max_abs)
        yield Verdict(
            gate="max_abs",
            platform=platform,
            outcome="pass" if worst.max_abs <= accuracy.max_abs else "fail",
            observed=f"{worst.max_abs:.3g}",
            limit=f"<= {accuracy.max_abs:.3g}",
            where=f"output `{worst.output}` at {case}",
        )
    else:
        similarities = [(case, entry, entry.cosine) for case, entry in every if entry.cosine is not None]
        if similarities:
            case, entry, similarity = min(similarities, key=lambda triple: triple[2])
            yield Verdict(
                gate="cosine",
                platform=platform,
                outcome="pass" if similarity >= accuracy.cosine else "fail",
                observed=against(similarity, accuracy.cosine),
                limit=f">= {accuracy.cosine:.15g}",
                where=f"output `{entry.output}` at {case}",
            )
        else:
            yield Verdict(gate="outputs", platform=platform, outcome="pass", observed="equal", limit="equal integers")
    if accuracy.top1_agreement is not None:
        shares = [entry.top1 for _, entry in every if entry.top1 is not None]
        share = sum(shares) / len(shares) if shares else 0.0
        yield Verdict(
            gate="top1_agreement",
            platform=platform,
            outcome="pass" if share >= accuracy.top1_agreement else "fail",
            observed=against(share, accuracy.top1_agreement, 4) if shares else "no output has anything to rank",
            limit=f">= {accuracy.top1_agreement:.15g}",
        )
    if accuracy.embeddings is not None:
        yield from _embeddings(check.embeddings, accuracy.embeddings, platform)
    if accuracy.metric is not None and check.metric is not None and reference_metric is not None:
        least = reference_metric - accuracy.metric.max_drop
        if accuracy.metric.minimum is not None:
            least = max(least, accuracy.metric.minimum)
        yield Verdict(
            gate="metric",
            platform=platform,
            outcome="pass" if check.metric >= least else "fail",
            observed=f"{check.metric:.4f}",
            limit=f">= {least:.4f}",
            where=f"{accuracy.metric.entrypoint} (PyTorch: {reference_metric:.4f})",
        )


def _embeddings(found: EmbeddingCheck | None, promised: Embeddings, platform: str) -> Iterator[Verdict]:
    samples = 0 if found is None else found.samples
    for gate in EMBEDDING_GATES:
        least, value = getattr(promised, gate), getattr(found, gate, None)
        if least is not None:
            yield Verdict(
                gate=gate,
                platform=platform,
                outcome="pass" if value is not None and value >= least else "fail",
                observed="too few samples" if value is None else against(value, least),
                limit=f">= {least:.15g}",
                where=f"embeddings of {samples} samples",
            )


def worst_case(check: Check, precision: str) -> str | None:
    """Name of the case at which a variant is furthest off, by the measure of its precision; None when nothing ran."""

    def distance(difference: Difference) -> float:
        if difference.problem is not None:
            return float("inf")
        if precision == "fp32" or difference.cosine is None:
            return difference.max_abs if precision == "fp32" else 0.0
        return 1 - difference.cosine

    pairs = [(distance(entry), result.case) for result in check.cases for entry in result.differences]
    return max(pairs)[1] if pairs else None


def size_verdicts(target: TargetPlan, variant: VariantPlan, model_bytes: int, platform: str) -> tuple[Verdict, ...]:
    """Judge the size of the model's files, and on every promised platform what is downloaded with them."""
    wheels = loader_bytes(variant, target)
    return (
        *most("size", model_bytes, target.budgets.size, platform, format_bytes),
        *download_verdicts(model_bytes, wheels, target.budgets.download),
    )


def loader_bytes(variant: VariantPlan, target: TargetPlan) -> dict[str, int]:
    """Bytes of the wheels that the loader needs, by promised platform."""
    pinned = pins(variant.runtime.pins)
    return {platform: pinned.loader_bytes(platform) for platform in target.platforms}


def download_verdicts(model_bytes: int, wheels: Mapping[str, int], limit: int | None) -> Iterator[Verdict]:
    """Judge what is downloaded before the first answer, on every platform: sizes are known without running there."""
    for platform, size in wheels.items():
        for verdict in most("download", model_bytes + size, limit, platform, format_bytes):
            where = f"model {format_bytes(model_bytes)}, the loader's wheels {format_bytes(size)}"
            yield verdict.model_copy(update={"where": where})


def budget_verdicts(check: Check, target: TargetPlan, accuracy: AccuracyPlan, platform: str) -> tuple[Verdict, ...]:
    """Judge memory, placement and batch invariance."""
    budgets = target.budgets
    verdicts = [
        *most("memory", check.peak_rss_bytes, budgets.memory, platform, format_bytes),
        *placement_verdicts(check.cpu_nodes, check.shape_nodes, check.memcpy_nodes, budgets, platform),
    ]
    if target.batch_invariance == "require":
        invariant = is_invariant(check, accuracy)
        verdicts.append(
            Verdict(
                gate="batch_invariance",
                platform=platform,
                outcome="pass" if invariant else "fail",
                observed="no batch axis" if check.invariance is None else f"{check.invariance:.3g}",
                limit=f"<= {accuracy.max_abs:.3g}",
            )
        )
    return tuple(verdicts)


def placement_verdicts(
    cpu_nodes: int, shape_nodes: int, memcpy_nodes: int | None, budgets: BudgetPlan, platform: str
) -> Iterator[Verdict]:
    """Judge what another provider left to the CPU, and the copies between the two; None: those were not counted."""
    for verdict in most("cpu_nodes", cpu_nodes, budgets.max_cpu_nodes, platform, _nodes):
        besides = f" ({shape_nodes} more compute shapes)" if shape_nodes else ""
        yield verdict.model_copy(update={"observed": verdict.observed + besides})
    limit = budgets.max_memcpy_nodes
    if memcpy_nodes is not None:
        yield from most("memcpy_nodes", memcpy_nodes, limit, platform, _nodes)
    elif limit is not None:
        yield Verdict(
            gate="memcpy_nodes",
            platform=platform,
            outcome="unmeasured",
            observed="not counted",
            limit=f"<= {_nodes(limit)}",
        )


def _nodes(count: int) -> str:
    return f"{count} node" if count == 1 else f"{count} nodes"


def most(gate: str, observed: int, limit: int | None, platform: str, text: Callable[[int], str]) -> Iterator[Verdict]:
    """Judge a count by the most that is allowed; nothing where nothing was promised."""
    if limit is not None:
        if observed != limit and text(observed) == text(limit):
            # One is more than the other, and it must show.
            text = "{:,} bytes".format
        yield Verdict(
            gate=gate,
            platform=platform,
            outcome="pass" if observed <= limit else "fail",
            observed=text(observed),
            limit=f"<= {text(limit)}",
        )


def is_invariant(check: Check, accuracy: AccuracyPlan) -> bool:
    """Whether a row's answer is the same, within the fp32 promise, whatever other rows are in the batch."""
    return check.invariance is not None and check.invariance <= accuracy.max_abs
