"""Verify: a variant, as a bundle in its own runtime, against the reference at every case."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from pydantic import Field

from ortc.common.arrays import Array, Arrays, read_arrays
from ortc.common.values import Frozen
from ortc.evaluation.answers import TextAnswer, check_answers
from ortc.evaluation.compare import compare
from ortc.evaluation.details import OperatorTimes, operator_times
from ortc.evaluation.embeddings import check_embeddings, embedded, pooled
from ortc.evaluation.report import CaseResult, Check, Soak
from ortc.evaluation.spread import Spreads
from ortc.execution.worker import Worker
from ortc.execution.worker_pool import Loaded
from ortc.execution.worker_process import WorkerError
from ortc.frontend.samples.inputs import InputFactory, is_read
from ortc.plan.plan import InputPlan
from ortc.spec.accuracy import Embeddings

CPU = "CPUExecutionProvider"
INVARIANCE_ROWS = 4
SOAK_SECONDS = 15.0
"""How long the soak of a bundle may take, and one large run more."""


class ReferenceCase(Frozen):
    """A case with its files: inputs, the reference's outputs for them, and the teacher's where it was asked.

    `is_sample`: a batch of real samples, and not a point of the shape matrix. `is_padded`: rows of different lengths.
    The shapes are those of the arrays in both files, by name. `excluding` names the outputs at which the reference
    treats positions as padding that the mask `padding` marks: these are not compared. `is_whole`: there are none.
    `telling` names the outputs that have other values than masked ones, 0, NaN and infinity; None where nobody looked.
    """

    name: str
    is_sample: bool = False
    is_padded: bool = False
    input_shapes: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    output_shapes: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    inputs: Path
    outputs: Path
    teacher: Path | None = None
    excluding: tuple[str, ...] = ()
    padding: InputPlan | None = None
    is_whole: bool = True
    telling: tuple[str, ...] | None = None

    def mask(self, output: str, inputs: Arrays) -> Array | None:
        """Where positions of an output are read and no padding; None where every value is compared."""
        if self.padding is None or output not in self.excluding:
            return None
        return is_read(self.padding, inputs[self.padding.name])


def check_bundle(
    interpreter: Path,
    bundle: Path,
    cases: tuple[ReferenceCase, ...],
    factory: InputFactory,
    metric: Callable[[Callable[[Arrays], Arrays]], float] | None,
    loaded: Loaded | None = None,
    embeddings: Embeddings | None = None,
    *,
    answers: Sequence[TextAnswer] = (),
    proof: Callable[[Worker], None] | None = None,
    copies: bool = False,
    measured_at: str | None = None,
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
        answers: texts with the reference's answers, of a bundle that takes texts.
        proof: checks the loaded bundle further, and raises what ends the build.
        copies: count those between host and device, in a second session.
        measured_at: the case at which to profile operators, after many shapes have shown the peak of memory, or None.
    """
    try:
        with (
            nullcontext(loaded) if loaded is not None else Loaded() as crew,
            crew.worker(bundle.name, interpreter, bundle) as worker,
        ):
            if proof is not None:
                proof(worker)
            ran = run_cases(worker, cases, embeddings)
            # Peak memory of serving, before the extra runs that only this check makes.
            info = worker.call("info")
            soaked = soak(worker) if measured_at is not None else None
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
                answers=check_answers(answers, worker) if answers else None,
                times=None if measured_at is None else _operator_times(worker, cases, measured_at),
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


def _operator_times(worker: Worker, cases: Sequence[ReferenceCase], name: str) -> OperatorTimes | None:
    """Where the time of a run goes, in a second session; None where the runtime tells nothing of its nodes."""
    case = next((case for case in cases if case.name == name), cases[0])
    return operator_times(case.name, worker.call("operators", inputs=str(case.inputs))["operators"])


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
        masks = {name: case.mask(name, inputs) for name in wanted}
        differences = tuple(compare(name, wanted[name], found[name], masks[name]) for name in wanted)
        for entry in differences:
            name = entry.output
            if entry.problem is None:
                spreads.add(name, wanted[name], found[name], masks[name], is_sample=case.is_sample)
        taught = {} if case.teacher is None else read_arrays(case.teacher)
        beside = tuple(compare(name, taught[name], found[name], masks.get(name)) for name in taught)
        results.append(CaseResult(case=case.name, differences=differences, teacher=beside))
        if embeddings is not None and case.is_sample and not any(d.problem for d in differences):
            mask = case.mask(embedded(wanted, embeddings), inputs)
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
