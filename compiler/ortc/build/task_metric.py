"""What an answer is worth: the task metric of a spec, and every promise that is about answers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ortc.build.context import Context
from ortc.build.distillation import running_teacher, teacher_key, teacher_verdicts
from ortc.build.observation import reference_key
from ortc.build.references import answering
from ortc.build.stage import Action
from ortc.build.stage_results import MetricOfReference, MetricOfTeacher
from ortc.build.stages import METRIC, METRIC_OF_ONNX, METRIC_OF_TEACHER
from ortc.common.arrays import Arrays, read_arrays, write_arrays
from ortc.common.errors import OrtcError, StageError
from ortc.common.values import digest
from ortc.evaluation.accuracy_gates import accuracy_verdicts
from ortc.evaluation.report import Check, Verdict
from ortc.frontend.reachable.arrays import array_digest
from ortc.inspection.entrypoint import entrypoint_digest
from ortc.passes.canonical import Exported
from ortc.plan.plan import Plan


@dataclass(frozen=True)
class Metric:
    """A task metric of a predict function, the digest of its name and code, and its value for the reference.

    `teacher` is its value for the teacher, None where the spec does not limit how far below that the student may be.
    """

    function: Callable[[Callable[[Arrays], Arrays]], float]
    code: str
    reference: float
    teacher: float | None = None


def metric_action(context: Context) -> Action[MetricOfReference] | None:
    """The action that gives the task metric of the reference, but for the files that its function reads."""
    declared = context.plan.accuracy.metric
    if declared is None:
        return None
    interface = context.plan.export.model_dump(mode="json", include={"axes", "inputs", "outputs"})
    inputs = {
        "model": reference_key(context),
        "interface": interface,
        "metric": declared.entrypoint,
        "module": entrypoint_digest(declared.entrypoint, context.workspace.root),
    }
    if context.has_reference:
        return METRIC.action(declared.entrypoint, inputs)
    return METRIC_OF_ONNX.action(declared.entrypoint, {**inputs, "runtime": context.reference_runtime})


def task_metric(context: Context, exported: Exported) -> Metric | None:
    """The task metric as a function of `predict`, with its value for the reference.

    Raises:
        StageError: the metric fails, or the reference cannot be loaded.
    """
    declared, action = context.plan.accuracy.metric, metric_action(context)
    if declared is None or action is None:
        return None
    workspace = context.workspace

    def metric(predict: Callable[[Arrays], Arrays]) -> float:
        from ortc.common.project import ending_is_an_error, resolve_entrypoint

        with ending_is_an_error(declared.entrypoint):
            function = resolve_entrypoint(declared.entrypoint, workspace.root)
            given = {"model_dir": workspace.fetched.directory}
            takes_directory = "model_dir" in inspect.signature(function).parameters
            try:
                return float(function(predict, **(given if takes_directory else {})))
            except OrtcError:
                raise
            except Exception as error:
                message = f"the metric `{declared.entrypoint}` fails: {type(error).__name__}: {error}"
                raise StageError(message) from error

    def of_the_reference(output: Path) -> MetricOfReference:
        with answering(context, exported) as worker, workspace.recorder() as recorder:
            answers = Answers(worker.run, output)
            value, opened = metric(answers.ask), recorder.opened().portable(workspace.root)
        return MetricOfReference(value=value, opened=opened, asked=tuple(answers.asked))

    done = context.run_with_files(action, of_the_reference)
    inputs, taught = done.action.inputs, None
    # No key depends on the value: without it, a dry run and a comparison go on.
    value = 0.0 if done.known is None else done.known.value
    if context.runner.executes and done.entry is not None and done.entry.cached:
        with ExitStack() as stack:
            files = done.entry.files
            value = again(metric, done.result, files, lambda: stack.enter_context(answering(context, exported)).run)
    if context.plan.model.teacher is not None and context.plan.model.teacher.max_drop is not None:

        def of_the_teacher(_: Path) -> MetricOfTeacher:
            with running_teacher(context, exported) as worker:
                return MetricOfTeacher(value=metric(worker.run))

        asked = {**inputs, "model": teacher_key(context)}
        found = context.run(METRIC_OF_TEACHER.action(f"teacher: {declared.entrypoint}", asked), of_the_teacher)
        taught = 0.0 if found.known is None else found.known.value
    code = digest({name: part for name, part in inputs.items() if name not in ("model", "interface")})
    if done.known is not None and repr(value) != repr(done.known.value):
        # It depends on something that nobody saw, and so do its values for variants.
        code = digest([code, repr(value)])
    return Metric(metric, code, value, taught)


@dataclass
class Answers:
    """Predictions that a metric asks for, kept with the digests of their inputs."""

    predict: Callable[[Arrays], Arrays]
    place: Path
    asked: list[str] = field(default_factory=list)

    def ask(self, inputs: Arrays) -> Arrays:
        """The answer to inputs."""
        answer = self.predict(inputs)
        write_arrays(self.place / f"{len(self.asked)}.npz", answer)
        self.asked.append(_digest_of(inputs))
        return answer


def again(
    metric: Callable[[Callable[[Arrays], Arrays]], float],
    before: MetricOfReference,
    files: Mapping[str, Path],
    reference: Callable[[], Callable[[Arrays], Arrays]],
) -> float:
    """The value of a metric, run again on the answers that the reference gave to the same inputs.

    Args:
        metric: may read what nobody sees, such as labels.
        before: the last run.
        files: its answers.
        reference: gives the reference itself, which is asked about everything if the metric asks about other inputs.
    """
    kept = {asked: files[f"{index}.npz"] for index, asked in enumerate(before.asked)}
    others: list[str] = []

    def answer(inputs: Arrays) -> Arrays:
        asked = _digest_of(inputs)
        if asked not in kept:
            others.append(asked)
            raise LookupError(asked)
        return read_arrays(kept[asked])

    try:
        value = metric(answer)
    except StageError:
        if not others:
            raise
    return metric(reference()) if others else value


def _digest_of(arrays: Arrays) -> str:
    return digest([[name, array_digest(np.asarray(array))] for name, array in sorted(arrays.items())])


def answers_verdicts(
    plan: Plan, metric: Metric | None, check: Check, precision: str, platform: str
) -> tuple[Verdict, ...]:
    """Judge a check of a variant by all that the spec promises of answers, beside PyTorch's and the teacher's."""
    reference, taught = (None, None) if metric is None else (metric.reference, metric.teacher)
    return (
        *accuracy_verdicts(check, precision, plan.accuracy, platform, reference),
        *teacher_verdicts(check, plan.model.teacher, platform, taught),
    )
