"""The model's part of a build: export, reference outputs, and the check of the canonical graph."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from ortc.build.answer_proof import prove
from ortc.build.answers import build_answers
from ortc.build.canonical_bundle import canonical_bundle
from ortc.build.context import Context, is_deterministic, is_of_the_model
from ortc.build.distillation import teacher_key, teacher_verdicts, with_teacher
from ortc.build.file_verdicts import IMPORT_GATES, judge_import
from ortc.build.observation import model_key, opened_files, reference_key, samples_key_of
from ortc.build.original import kernel_help
from ortc.build.output_shapes import confirmed
from ortc.build.plain_runtime import CHECK_PINS
from ortc.build.references import Asking, Request, answering
from ortc.build.runner import Done, T
from ortc.build.stage import Action
from ortc.build.stage_results import ExportDone, ExportFailed, Failure, Proven, References
from ortc.build.stages import ANSWERS, EXPORT, REFERENCE, REFERENCE_OF_ONNX, SHAPE_MATRIX
from ortc.build.task_metric import Metric, task_metric
from ortc.bundle.answers import Answers
from ortc.bundle.assemble import Material
from ortc.common.errors import AccuracyError, StageError
from ortc.common.values import digest
from ortc.evaluation.accuracy import ReferenceCase, check_bundle
from ortc.evaluation.accuracy_gates import accuracy_verdicts
from ortc.evaluation.answers import TextAnswer
from ortc.evaluation.report import Check
from ortc.frontend.samples.inputs import InputFactory, Samples, padded_cases
from ortc.frontend.samples.sources import load_samples
from ortc.passes.canonical import Exported
from ortc.plan.masks import mask_of
from ortc.plan.plan import Plan, TargetPlan
from ortc.plan.shape_matrix import without_largest
from ortc.spec.model_sources import HuggingFaceSource, OnnxSource, reference_of
from ortc.spec.runtimes import pins

ANSWER_LIMITS = {"answer_cosine", "answer_f1", "answer_top1", "answer_token_errors"}
"""What a spec says of answers."""


class ExportError(StageError):
    """One exporter could not do it; another may."""


@dataclass(frozen=True)
class ModelBuild:
    """What the targets' parts build on.

    `key` is everything that decides the canonical graph and the cases it is judged at, for cache keys; `canonical`
    gives the directory of the graph; `factory` makes inputs of any case.
    """

    material: Material
    key: dict[str, Any]
    canonical: Callable[[], Path]
    factory: Callable[[], InputFactory]
    metric: Metric | None
    references: Callable[[Action[References], Callable[[], list[Request]]], tuple[ReferenceCase, ...]]
    """Gives the reference's answers for inputs, from the action and what makes the inputs."""

    def answers_of(self, target: TargetPlan) -> Answers | None:
        """What the bundles of a target have around their tensors; None where they take tensors alone."""
        return None if self.material.answers is None else self.material.answers.of_target(target)

    @property
    def judged(self) -> tuple[TextAnswer, ...]:
        """Texts with PyTorch's answers, of bundles that take texts."""
        return () if self.material.answers is None else self.material.answers.judged

    @property
    def calibration_key(self) -> dict[str, Any]:
        """What decides the inputs that quantization is calibrated on, for cache keys."""
        return {"samples": self.key["samples"], "at": self.key["calibration"]}


def build_model(context: Context) -> ModelBuild:
    """Export the model with the first exporter that can, and prove the canonical graph over the shape matrix.

    Raises:
        StageError: no exporter can, or a part of the spec cannot be used.
        AccuracyError: the exported graph does not compute what PyTorch computes.
    """
    plan = context.plan
    samples_sha256, samples = _samples(context)
    reasons: list[str] = []
    exporters = _exporters(plan)
    for exporter in exporters:
        try:
            exported, graph = _export(context, exporter)
            context.reference.interface = exported
            factory = _factory(exported, plan, samples)
            asked = reference_action(context, samples_sha256)
            decided = digest(asked.inputs)
            cases = _reference_cases(context, exported, factory, asked)
            exported = confirmed(exported, cases)
            cases = with_teacher(context, exported, cases, asked.inputs)
            material = Material(
                plan=plan,
                fetched=context.workspace.fetched,
                exported=exported,
                exporter_reason="; ".join(reasons) or None,
                cases=cases,
                tools=context.tools,
                cases_key=decided,
                opened=opened_files(context),
            )
            answers = build_answers(context, exported)
            material = replace(material, answers=answers)
            metric = task_metric(context, exported)
            full_key: dict[str, Any] = {
                "export": graph.key,
                "samples": samples_sha256,
                "split": samples_sha256 is not None and plan.calibrates,
                "cases": [str(case) for case in plan.cases],
                "references": decided,
                "calibration": [axis.model_dump(mode="json") for axis in plan.export.axes],
            }
            if (taught := teacher_key(context)) is not None:
                full_key["teacher"] = taught
            if answers is not None:
                full_key["answers"] = answers.key
            _check_canonical(context, material, full_key, graph, factory)
            if answers is not None:
                _prove_answers(context, material, answers, full_key, graph)
        except ExportError as error:
            if exporter == exporters[-1]:
                raise StageError(error.message, help=error.help, details=(*reasons, *error.details)) from error
            reasons.append(f"{exporter}: {error.message}")
            context.progress.note(f"{error.message}; trying the {exporters[-1]} exporter")
        else:
            references = partial(_references, context, exported)
            return ModelBuild(material, full_key, _checked_out(context, graph), factory, metric, references)
    raise AssertionError(exporters)


def _exporters(plan: Plan) -> tuple[str, ...]:
    """The exporters to try, in order."""
    if isinstance(plan.model, OnnxSource):
        return ("onnx",)
    return ("dynamo", "torchscript") if plan.export.exporter == "auto" else (plan.export.exporter,)


def _factory(exported: Exported, plan: Plan, samples: Callable[[Exported], Samples]) -> Callable[[], InputFactory]:
    """Makes the input factory when it is first needed: a build that finds everything done reads no samples."""

    def make() -> InputFactory:
        found = samples(exported)
        judged, calibration = found.split() if plan.calibrates else (found, None)
        return InputFactory(exported.inputs, plan.export.axes, judged, calibration)

    return _one_at_a_time(cache(make))


def _one_at_a_time(function: Callable[[], T]) -> Callable[[], T]:
    """Called by several threads, a cached function would be evaluated by each of those that come first."""
    lock = threading.Lock()

    def locked() -> T:
        with lock:
            return function()

    return locked


def _samples(context: Context) -> tuple[str | None, Callable[[Exported], Samples]]:
    """The key of the samples, None without any; and what reads them for the inputs of an exported graph."""
    declared, workspace = context.plan.accuracy.samples, context.workspace
    if declared is None:
        return None, lambda _: Samples()

    def load(exported: Exported) -> Samples:
        directory, axes = workspace.fetched.directory, context.plan.export.axes
        given = None if context.modules.given is None else context.modules.given[0]
        return load_samples(declared, workspace.root, directory, exported.inputs, axes, given)

    return samples_key_of(context), load


def _export(context: Context, exporter: str) -> tuple[Exported, Done[ExportDone | ExportFailed]]:
    plan = context.plan.export
    inputs = {
        "model": model_key(context),
        "export": plan.model_dump(mode="json", exclude={"exporter"}),
        "exporter": exporter,
    }

    def work(output: Path) -> ExportDone | ExportFailed:
        if isinstance(context.plan.model, OnnxSource):
            from ortc.frontend.import_onnx import import_onnx

            source = context.workspace.fetched.directory / Path(context.plan.model.path).name
            return ExportDone(exported=import_onnx(source, plan, output))
        worker = context.reference.worker()
        try:
            found = worker.call("export", exporter=exporter, output=str(output))
            return ExportDone(exported=Exported.model_validate(found))
        except StageError as error:
            if not is_deterministic(error) or is_of_the_model(error):
                raise
            return ExportFailed(error=Failure.of(error))

    done = context.run(EXPORT.action(exporter, inputs), work)
    if isinstance(done.result, ExportFailed):
        failure = done.result.error
        raise ExportError(failure.message, help=failure.help, details=failure.details)
    return done.result.exported, done


def _prove_answers(
    context: Context, material: Material, answers: Answers, key: dict[str, Any], graph: Done[Any]
) -> None:
    """Check that the exported graph answers as PyTorch does, in a bundle of its own.

    Raises:
        AccuracyError: token ids, pixels or an answer differ.
    """
    pin_set = f"{CHECK_PINS}{answers.needs}"
    interpreter = context.runner.interpreter(pin_set, (context.host.platform,))
    inputs = {
        "model": key,
        "host": context.host.fingerprint(),
        "runtime": pins(pin_set).sha256,
        "variables": context.variables,
        "accuracy": context.plan.accuracy.model_dump(include=ANSWER_LIMITS),
    }

    def work(_: Path) -> Proven:
        prove(answers, context.plan.accuracy, interpreter, canonical_bundle(context, material, graph))
        return Proven()

    context.run(ANSWERS.action(f"{len(answers.odd)} {answers.what}", inputs), work)


def _checked_out(context: Context, graph: Done[ExportDone | ExportFailed]) -> Callable[[], Path]:
    """Gives a directory with the canonical graph, made when it is first needed."""

    @cache
    def directory() -> Path:
        place = Path(tempfile.mkdtemp(prefix="graph-", dir=context.workspace.work))
        return context.workspace.store.check_out(graph.kept, place)

    return _one_at_a_time(directory)


def reference_action(context: Context, samples: str | None) -> Action[References]:
    """The reference's outputs, which do not depend on the export; `samples` is what decides the samples."""
    export = context.plan.export
    inputs = {
        "model": reference_key(context),
        "runtime": context.reference_runtime,
        "interface": export.model_dump(mode="json", include={"axes", "inputs", "outputs"}),
        "cases": [case.model_dump(mode="json") for case in context.plan.cases],
        "samples": samples,
        "split": samples is not None and context.plan.calibrates,
    }
    stage = REFERENCE if context.has_reference else REFERENCE_OF_ONNX
    return stage.action(f"{len(context.plan.cases)} shapes", inputs)


def _reference_cases(
    context: Context,
    exported: Exported,
    factory: Callable[[], InputFactory],
    asked: Action[References],
) -> tuple[ReferenceCase, ...]:
    """Inputs of every case and what the reference gives for them."""

    def named() -> list[Request]:
        cases = (*context.plan.cases, *padded_cases(factory(), context.plan.cases))
        made = [Request(str(case), factory().case(case), is_padded=case.padded) for case in cases]
        return made + [Request(name, arrays, is_sample=True) for name, arrays in factory().real()]

    return _references(context, exported, asked, named)


def _references(
    context: Context,
    exported: Exported,
    asked: Action[References],
    named: Callable[[], list[Request]],
) -> tuple[ReferenceCase, ...]:
    """What the reference gives for named inputs, which the action's inputs decide."""

    def work(output: Path) -> References:
        with answering(context, exported) as worker:
            asking = Asking(worker, output, by_file=not context.has_reference)
            made_from = reference_of(context.plan.model)
            source = context.plan.model if made_from is None else made_from.model
            is_declared = isinstance(source, HuggingFaceSource)
            return asking.answers(named(), exported.inputs, is_declared=is_declared)

    done = context.run(asked, work)
    # No key depends on the answers: without them, a dry run and a comparison go on.
    return tuple(
        ReferenceCase(
            **dict(case),
            excluding=() if done.known is None else done.known.excluding,
            padding=mask_of(exported.inputs),
            inputs=done.files[f"{index}.inputs.npz"],
            outputs=done.files[f"{index}.outputs.npz"],
        )
        for index, case in enumerate(() if done.known is None else done.known.cases)
    )


def _judge_export(context: Context, check: Check) -> None:
    """Refuse an exported graph that computes something else than PyTorch."""
    for verdict in accuracy_verdicts(check, "fp32", context.plan.accuracy, context.host.platform, None):
        if verdict.outcome != "pass" and verdict.gate in IMPORT_GATES:
            raise AccuracyError(
                f"the exported graph differs from PyTorch: {verdict.gate} {verdict.observed}, allowed {verdict.limit}, "
                f"{verdict.where}",
                help="raise `accuracy.max_abs` if that much is acceptable; this is fp32 without any optimization",
            )


def _check_canonical(
    context: Context, material: Material, key: dict[str, Any], graph: Done[Any], factory: Callable[[], InputFactory]
) -> None:
    """Run the exported graph, unoptimized, over the shape matrix.

    A quick search looks at the largest shape with what ships alone.

    Raises:
        ExportError: it does not load or run at some shape: the export baked something in.
        AccuracyError: it runs, and computes something else than PyTorch.
    """
    interpreter = context.runner.interpreter(CHECK_PINS, (context.host.platform,))
    cases = material.cases
    if context.plan.search == "quick":
        kept = without_largest(context.plan.export.axes, context.plan.cases)
        left = {str(case) for case in context.plan.cases} - {str(case) for case in kept}
        cases = tuple(case for case in cases if case.name not in left)
    inputs = {
        "model": key,
        "only": [case.name for case in cases],
        "host": context.host.fingerprint(),
        "runtime": pins(CHECK_PINS).sha256,
        "variables": context.variables,
    }

    def work(_: Path) -> Check:
        bundle = canonical_bundle(context, material, graph)
        return check_bundle(interpreter, bundle, cases, factory(), None)

    check = context.run(SHAPE_MATRIX.action(f"{len(cases)} cases", inputs), work).known
    if check is None:
        return
    if isinstance(context.plan.model, OnnxSource):
        judge_import(context.plan, material.exported, check, context.host.platform)
    elif check.error is not None:
        raise ExportError(
            f"the {material.exported.exporter} export does not run as PyTorch does: {check.error}",
            help=kernel_help(check.error)
            or "the export fixed a shape or took one branch of the model's code; see the case above",
        )
    else:
        _judge_export(context, check)
    for verdict in teacher_verdicts(check, context.plan.model.teacher, context.host.platform, None):
        if verdict.outcome != "pass":
            raise AccuracyError(
                f"the student is too far from its teacher: {verdict.gate} {verdict.observed}, must be {verdict.limit}, "
                f"{verdict.where}",
                help="this is the student in fp32, without any optimization: train it further, or change the limit in "
                "`model.teacher`",
            )
