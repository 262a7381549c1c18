"""The model's part of a build: export, reference outputs, and the check of the canonical graph."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from ortc.build.answers import build_answers, prove
from ortc.build.context import Context, T, error_data, is_deterministic, is_of_the_model
from ortc.build.distillation import teacher_inputs, teacher_key, teacher_verdicts, with_teacher
from ortc.build.observation import keep_samples, opened_files, samples_key_of
from ortc.build.original import import_error, run_original, serve_original
from ortc.build.output_shapes import confirmed
from ortc.build.task_metric import Metric, task_metric
from ortc.bundle.answers import Answers
from ortc.bundle.assemble import Made, Material, assemble
from ortc.common.arrays import Array, read_shapes, write_arrays
from ortc.common.errors import AccuracyError, StageError
from ortc.common.values import digest
from ortc.evaluation.accuracy import ReferenceCase, check_bundle
from ortc.evaluation.accuracy_gates import accuracy_verdicts
from ortc.evaluation.answers import TextAnswer
from ortc.evaluation.report import Check
from ortc.execution.action_cache import Entry
from ortc.execution.code_closure import code_of
from ortc.frontend.samples.inputs import InputFactory, Samples, padded_cases
from ortc.frontend.samples.sources import load_samples
from ortc.passes.canonical import DATA_FILE, MODEL_FILE, Exported
from ortc.passes.variant_graph import VariantGraph
from ortc.plan.plan import Plan, ProviderPlan, VariantPlan
from ortc.plan.shape_matrix import without_largest
from ortc.plan.texts import TEXT
from ortc.spec.model_sources import OnnxSource
from ortc.spec.runtimes import pins

CHECK_PINS = "onnxruntime"
"""The runtime that the canonical graph is checked in: the CPU one runs everywhere."""


class Request(NamedTuple):
    """Inputs of a case; see `ReferenceCase` for the rest."""

    name: str
    inputs: dict[str, Array]
    is_sample: bool = False
    is_padded: bool = False


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
    references: Callable[[str, dict[str, Any], Callable[[], list[Request]]], tuple[ReferenceCase, ...]]
    """Gives the reference's answers for inputs, from a name, what decides the inputs, and what makes them."""

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
    exporters: tuple[str, ...] = (plan.export.exporter,)
    if plan.export.exporter == "auto":
        exporters = ("dynamo", "torchscript")
    if isinstance(plan.model, OnnxSource):
        exporters = ("onnx",)
    for exporter in exporters:
        try:
            exported, entry = _export(context, exporter)
            key = entry.key
            factory = _factory(exported, plan, samples)
            inputs = reference_inputs(context, samples_sha256)
            cases = _reference_cases(context, exported, factory, inputs)
            exported = confirmed(exported, cases)
            cases = with_teacher(context, exported, cases, teacher_inputs(context, inputs))
            material = Material(
                plan=plan,
                fetched=context.fetched,
                exported=exported,
                exporter_reason="; ".join(reasons) or None,
                cases=cases,
                tools=context.tools,
                cases_key=digest(inputs),
                opened=opened_files(context),
            )
            answers = build_answers(context, exported)
            material = replace(material, answers=answers)
            metric = task_metric(context, exported)
            full_key: dict[str, Any] = {
                "export": key,
                "samples": samples_sha256,
                "split": samples_sha256 is not None and plan.calibrates,
                "cases": [str(case) for case in plan.cases],
                "references": digest(inputs),
                "calibration": [axis.model_dump(mode="json") for axis in plan.export.axes],
            }
            if (taught := teacher_key(context)) is not None:
                full_key["teacher"] = taught
            if answers is not None:
                full_key["answers"] = answers.key
            _check_canonical(context, material, full_key, entry, factory)
            if answers is not None:
                _prove_answers(context, material, answers, full_key, entry)
        except ExportError as error:
            if exporter == exporters[-1]:
                raise StageError(error.message, help=error.help, details=(*reasons, *error.details)) from error
            reasons.append(f"{exporter}: {error.message}")
            context.progress.note(f"{error.message}; trying the {exporters[-1]} exporter")
        else:
            references = partial(_references, context, exported)
            return ModelBuild(material, full_key, _checked_out(context, entry), factory, metric, references)
    raise AssertionError(exporters)


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
    declared, root = context.plan.accuracy.samples, context.root
    if declared is None:
        return None, lambda _: Samples()

    def load(exported: Exported) -> Samples:
        with context.recorder() as recorder:
            found = load_samples(declared, root, context.fetched.directory, exported.inputs, context.plan.export.axes)
            keep_samples(context, recorder.opened())
        return found

    return samples_key_of(context), load


def _export(context: Context, exporter: str) -> tuple[Exported, Entry]:
    plan = context.plan.export
    inputs = {
        "model": context.model_key(),
        "export": plan.model_dump(mode="json", exclude={"exporter"}),
        "exporter": exporter,
        "code": code_of("export"),
    }

    def action(output: Path) -> dict[str, Any]:
        if isinstance(context.plan.model, OnnxSource):
            from ortc.frontend.import_onnx import import_onnx

            source = context.fetched.directory / Path(context.plan.model.path).name
            return {"exported": import_onnx(source, plan, output).model_dump(mode="json")}
        worker = context.reference()
        try:
            return {"exported": worker.call("export", exporter=exporter, output=str(output))}
        except StageError as error:
            if not is_deterministic(error) or is_of_the_model(error):
                raise
            return {"error": error_data(error)}

    entry = context.run("export", exporter, inputs, action)
    if (failure := entry.result.get("error")) is not None:
        raise ExportError(failure["message"], help=failure["help"], details=tuple(failure["details"]))
    return Exported.model_validate(entry.result["exported"]), entry


def _prove_answers(context: Context, material: Material, answers: Answers, key: dict[str, Any], graph: Entry) -> None:
    """Check that the exported graph answers texts as PyTorch does, in a bundle of its own.

    Raises:
        AccuracyError: token ids or an answer differ.
    """
    pin_set = f"{CHECK_PINS}{TEXT}"
    interpreter = context.interpreter(pin_set, (context.host.platform,))
    inputs = {
        "model": key,
        "host": context.host.fingerprint(),
        "runtime": pins(pin_set).sha256,
        "variables": context.variables,
        "accuracy": context.plan.accuracy.answer_cosine,
        "code": code_of("answers"),
    }

    def action(_: Path) -> dict[str, Any]:
        prove(context, answers, interpreter, _canonical_bundle(context, material, graph))
        return {}

    context.run("answers", f"{len(answers.odd)} texts", inputs, action)


def _checked_out(context: Context, entry: Entry) -> Callable[[], Path]:
    """Gives a directory with the canonical graph, made when it is first needed."""

    @cache
    def directory() -> Path:
        return context.store.check_out(entry, Path(tempfile.mkdtemp(prefix="graph-", dir=context.work)))

    return _one_at_a_time(directory)


def reference_inputs(context: Context, samples: str | None) -> dict[str, Any]:
    """What the reference's outputs depend on: not the export."""
    export = context.plan.export
    return {
        "model": context.model_key(),
        "runtime": None if context.has_reference else pins(CHECK_PINS).sha256,
        "interface": export.model_dump(mode="json", include={"axes", "inputs", "outputs"}),
        "cases": [case.model_dump(mode="json") for case in context.plan.cases],
        "samples": samples,
        "split": samples is not None and context.plan.calibrates,
        "code": code_of("reference" if context.has_reference else "reference of ONNX"),
    }


def _reference_cases(
    context: Context,
    exported: Exported,
    factory: Callable[[], InputFactory],
    inputs: dict[str, Any],
) -> tuple[ReferenceCase, ...]:
    """Inputs of every case and what the reference gives for them."""

    def named() -> list[Request]:
        cases = (*context.plan.cases, *padded_cases(factory(), context.plan.cases))
        made = [Request(str(case), factory().case(case), is_padded=case.padded) for case in cases]
        return made + [Request(name, arrays, is_sample=True) for name, arrays in factory().real()]

    return _references(context, exported, f"{len(context.plan.cases)} shapes", inputs, named)


def _references(
    context: Context,
    exported: Exported,
    subject: str,
    inputs: dict[str, Any],
    named: Callable[[], list[Request]],
) -> tuple[ReferenceCase, ...]:
    """What the reference gives for named inputs, which `inputs` decides."""

    def action(output: Path) -> dict[str, Any]:
        cases = []
        with ExitStack() as stack:
            if context.has_reference:
                worker = context.reference()
            else:
                worker = stack.enter_context(serve_original(context, exported, CHECK_PINS))
            for index, request in enumerate(named()):
                given, answers = output / f"{index}.inputs.npz", output / f"{index}.outputs.npz"
                write_arrays(given, request.inputs)
                if context.has_reference:
                    worker.call("run", inputs=str(given), outputs=str(answers))
                else:
                    run_original(worker, request.name, given, answers)
                cases.append(
                    {
                        "name": request.name,
                        "is_sample": request.is_sample,
                        "is_padded": request.is_padded,
                        "input_shapes": read_shapes(given),
                        "output_shapes": read_shapes(answers),
                    }
                )
        return {"cases": cases}

    entry = context.run("reference", subject, inputs, action)
    return tuple(
        ReferenceCase(
            **case,
            inputs=entry.files[f"{index}.inputs.npz"],
            outputs=entry.files[f"{index}.outputs.npz"],
        )
        for index, case in enumerate(entry.result.get("cases", ()))
    )


def _canonical_variant(plan: Plan) -> VariantPlan:
    """The exported graph as it is, on the plain CPU runtime with every optimization off."""
    first = plan.targets[0].variants[0]
    session = first.session.model_copy(
        update={"providers": (ProviderPlan(name="CPUExecutionProvider", options={}),), "config_entries": {}}
    )
    return VariantPlan(
        name="canonical",
        precision="fp32",
        offline=False,
        runtime=first.runtime,
        session=session,
    )


def _canonical_bundle(context: Context, material: Material, entry: Entry) -> Path:
    exported = material.exported
    bundle = Path(tempfile.mkdtemp(prefix="canonical-", dir=context.work))
    size = sum(file.bytes for file in entry.kept if file.path in (MODEL_FILE, DATA_FILE))
    graph = VariantGraph(bytes=size, domains=exported.domains, operators=exported.operators)
    material = replace(material, exporter_reason=None, cases_key="", opened=())
    files = partial(context.store.proven, entry)
    made = Made(variant=_canonical_variant(context.plan), level="off", files=files, graph=graph)
    assemble(bundle, material, context.plan.targets[0], made)
    return bundle


def _check_canonical(
    context: Context, material: Material, key: dict[str, Any], graph: Entry, factory: Callable[[], InputFactory]
) -> None:
    """Run the exported graph, unoptimized, over the shape matrix.

    A quick search looks at the largest shape with what ships alone.

    Raises:
        ExportError: it does not load or run at some shape: the export baked something in.
        AccuracyError: it runs, and computes something else than PyTorch.
    """
    interpreter = context.interpreter(CHECK_PINS, (context.host.platform,))
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
        "code": code_of("shape matrix"),
    }

    def action(output: Path) -> dict[str, Any]:  # the result is all there is
        bundle = _canonical_bundle(context, material, graph)
        return check_bundle(interpreter, bundle, cases, factory(), None).model_dump(mode="json")

    entry = context.run("shape matrix", f"{len(cases)} cases", inputs, action)
    if entry.pending:
        return
    check = Check.model_validate(entry.result)
    original = not context.has_reference
    if check.error is not None and original:
        raise StageError(f"the imported graph does not run where the ONNX file does: {check.error}")
    if check.error is not None:
        raise ExportError(
            f"the {material.exported.exporter} export does not run as PyTorch does: {check.error}",
            help="the export fixed a shape or took one branch of the model's code; see the case above",
        )
    for verdict in accuracy_verdicts(check, "fp32", context.plan.accuracy, context.host.platform, None):
        if verdict.outcome != "pass" and verdict.gate in ("max_abs", "outputs"):
            if original:
                raise import_error(material.exported, verdict)
            raise AccuracyError(
                f"the exported graph differs from PyTorch: {verdict.gate} {verdict.observed}, allowed {verdict.limit}, "
                f"{verdict.where}",
                help="raise `accuracy.max_abs` if that much is acceptable; this is fp32 without any optimization",
            )
    for verdict in teacher_verdicts(check, context.plan.model.teacher, context.host.platform, None):
        if verdict.outcome != "pass":
            raise AccuracyError(
                f"the student is too far from its teacher: {verdict.gate} {verdict.observed}, must be {verdict.limit}, "
                f"{verdict.where}",
                help="this is the student in fp32, without any optimization: train it further, or change the limit in "
                "`model.teacher`",
            )
