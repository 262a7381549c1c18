"""The teacher of a distilled student: what it answers, and how far from that what ships may be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ortc.build.context import Context
from ortc.build.observation import source_key
from ortc.build.stage_results import TeacherAnswers
from ortc.build.stages import TEACHER_REFERENCE
from ortc.build.workspace import about
from ortc.common.errors import StageError
from ortc.evaluation.accuracy import ReferenceCase
from ortc.evaluation.accuracy_gates import differs
from ortc.evaluation.gate_table import TEACHER
from ortc.evaluation.gates import Judge
from ortc.evaluation.report import Check, Verdict
from ortc.execution.host import cores
from ortc.execution.worker import Worker
from ortc.passes.canonical import Exported
from ortc.plan.plan import ExportPlan
from ortc.spec.model_sources import Teacher

REAL = "samples "
"""How the names of cases begin that are real samples."""


def teacher_key(context: Context) -> dict[str, Any] | None:
    """What decides the teacher's answers, for cache keys; None where there is no teacher."""
    teacher = context.plan.model.teacher
    if teacher is None:
        return None
    return {
        "model": source_key(teacher.model, context.workspace.beside["teacher"], context),
        "outputs": teacher.outputs,
        "code": TEACHER_REFERENCE.code_sha256,
    }


def with_teacher(
    context: Context, exported: Exported, cases: tuple[ReferenceCase, ...], decided: dict[str, Any]
) -> tuple[ReferenceCase, ...]:
    """The cases, with the teacher's answers at those that it is judged by.

    Only real samples are asked about where there are any: what two models make of random numbers says little of what
    the one has learnt from the other.

    Args:
        context: the build.
        exported: names the inputs and outputs.
        cases: where the student is judged.
        decided: everything that decides those cases.

    Raises:
        StageError: the teacher cannot be loaded, or does not take the student's inputs.
    """
    if context.plan.model.teacher is None:
        return cases
    real = any(case.name.startswith(REAL) for case in cases)
    judged = [index for index, case in enumerate(cases) if not real or case.name.startswith(REAL)]

    def work(output: Path) -> TeacherAnswers:
        with about("teacher"), running_teacher(context, exported) as worker:
            for index in judged:
                worker.call("run", inputs=str(cases[index].inputs), outputs=str(output / f"{index}.npz"))
        return TeacherAnswers(cases=tuple(cases[index].name for index in judged))

    asked = TEACHER_REFERENCE.action(f"{len(judged)} cases", {"teacher": teacher_key(context), "cases": decided})
    done = context.run(asked, work)
    answers = {index: path for index in judged if (path := done.files.get(f"{index}.npz")) is not None}
    return tuple(case.model_copy(update={"teacher": answers.get(index)}) for index, case in enumerate(cases))


@contextmanager
def running_teacher(context: Context, exported: Exported) -> Iterator[Worker]:
    """A process that has the teacher in PyTorch, with the student's inputs and the outputs that are compared.

    Raises:
        StageError: it cannot be loaded.
    """
    teacher = context.plan.model.teacher
    if teacher is None:
        raise StageError("the model has no teacher")
    outputs = teacher.outputs or tuple(output.name for output in exported.outputs)
    export: ExportPlan = context.plan.export.model_copy(update={"inputs": exported.inputs, "outputs": outputs})
    with Worker.for_reference() as worker:
        worker.call(
            "load",
            model=teacher.model.model_dump(mode="json"),
            export=export.model_dump(mode="json"),
            directory=str(context.workspace.beside["teacher"].directory),
            root=str(context.workspace.root),
            threads=cores(),
        )
        yield worker


def teacher_verdicts(check: Check, teacher: Teacher | None, platform: str, metric: float | None) -> tuple[Verdict, ...]:
    """Judge a check by how near its answers are to the teacher's; nothing without a teacher or of what did not run.

    Args:
        check: of a variant, over cases of which some have the teacher's answers.
        teacher: the limits.
        platform: where it was run.
        metric: the task metric of the teacher, or None where its drop is not limited.
    """
    if teacher is None or check.error is not None:
        return ()
    return tuple(_verdicts(Judge(platform, TEACHER), check, teacher, metric))


def _verdicts(judge: Judge, check: Check, teacher: Teacher, metric: float | None) -> Iterator[Verdict]:
    every = [(result.case, difference) for result in check.cases for difference in result.teacher]
    for case, entry in every:
        if entry.problem is not None:
            where = f"output `{entry.output}` at {case}"
            yield judge.words("outputs", entry.problem, "the shape and kind of the teacher's", where)
            return
    unequal = next(((case, entry) for case, entry in every if differs(entry)), None)
    if unequal is not None and teacher.top1_agreement is None:
        where = f"output `{unequal[1].output}` at {unequal[0]}"
        required = "the teacher's integers, or `top1_agreement`"
        yield judge.words("outputs", "integer values differ", required, where)
        return
    every_float = [pair for pair in every if pair[1].cosine is not None]
    if every_float and teacher.max_abs is not None:
        case, entry = max(every_float, key=lambda pair: pair[1].max_abs)
        yield judge.number("max_abs", entry.max_abs, teacher.max_abs, f"output `{entry.output}` at {case}")
    single = next(((case, entry) for case, entry in every if entry.values == 1), None)
    if single is not None and teacher.cosine is not None and teacher.max_abs is None:
        where = f"output `{single[1].output}` at {single[0]}"
        said, required = "one value a sample, whose cosine is its sign", "limited by `max_abs` besides"
        yield judge.words("cosine", said, required, where)
        return
    if every and teacher.cosine is not None:
        found = [(entry.cosine, case, entry.output) for case, entry in every if entry.cosine is not None]
        # Integers have no direction: they are equal, or judged by `top1_agreement`.
        cosine, case, output = min(found, default=(1.0, "every case", "of integers"))
        yield judge.number("cosine", cosine, teacher.cosine, f"output `{output}` at {case}")
    if every and teacher.top1_agreement is not None:
        shares = [entry.top1 for _, entry in every if entry.top1 is not None]
        share = sum(shares) / len(shares) if shares else None
        yield judge.number("top1_agreement", share, teacher.top1_agreement, said="no output has anything to rank")
    if teacher.max_drop is not None and metric is not None and check.metric is not None:
        yield judge.number("metric", check.metric, metric - teacher.max_drop, f"teacher: {metric:.4f}")
