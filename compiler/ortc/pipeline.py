"""Build one spec: the model's part, once, then every target's part, then publish all of it or nothing."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ortc.arrays import Arrays, write_arrays
from ortc.candidate import Made, Material, assemble
from ortc.context import Context, entrypoint_digest, error_data, is_deterministic
from ortc.errors import AccuracyError, OrtcError, StageError
from ortc.fetch import fetch
from ortc.host import describe
from ortc.plan import Plan, ProviderPlan, TargetPlan, VariantPlan
from ortc.progress import Progress
from ortc.publish import Staging
from ortc.report import BuildReport, Check, TargetReport
from ortc.samples import InputFactory, Samples, load_samples
from ortc.spec import OnnxSource
from ortc.stages.export import Exported
from ortc.stages.optimize import VariantGraph
from ortc.stages.verify import ReferenceCase, accuracy_verdicts, check_bundle
from ortc.store import Store, code_digest, sha256_file
from ortc.target_build import Metric, TargetBuild, build_target
from ortc.worker import Worker

CANONICAL = VariantPlan(name="canonical", precision="fp32", quantization="none", operators=(), offline=False)
CHECK_PINS = "onnxruntime"
"""The runtime that the canonical graph is checked in: the CPU one runs everywhere."""


class ExportError(StageError):
    """One exporter could not do it; another may."""


def build(plan: Plan, root: Path, output: Path, store: Store, progress: Progress) -> BuildReport:
    """Run the plan. Bundles appear below `output` only when every target keeps every promise.

    Args:
        plan: what to do.
        root: what the spec's relative paths resolve against.
        output: bundles go to `output`/NAME/VERSION/TARGET.
        store: finished actions, source files, runtime environments.
        progress: told of every stage.

    Raises:
        StageError: the model's part fails, so that there is nothing to judge.
        AccuracyError: the exported graph does not compute what PyTorch computes.
    """
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ortc-build-")))
        with progress.step("fetch", plan.name):
            sources = work / "source"
            sources.mkdir()
            fetched = fetch(plan.model, root, store, sources)
        for note in fetched.notes:
            progress.note(note)
        context = Context(
            plan=plan,
            root=root,
            store=store,
            host=describe(),
            progress=progress,
            work=work,
            stack=stack,
            fetched=fetched,
        )
        material, key, factory, metric, reference_metric = _model(context)
        targets = [
            build_target(context, material, key, factory, metric, reference_metric, target) for target in plan.targets
        ]
        context.fresh_reference()
        reports = _publish(context, material, targets, output)
        return BuildReport(
            name=plan.name,
            version=plan.version,
            plan_sha256=plan.digest(),
            host=context.host,
            exporter=material.exported.exporter,
            exporter_reason=material.exporter_reason,
            notes=(*fetched.notes, *material.exported.warnings),
            skipped_cases=tuple(f"{case.shape}: {case.reason}" for case in plan.skipped_cases),
            stages=tuple(progress.times),
            targets=tuple(reports),
            exit_code=min((report.exit_code for report in reports if report.exit_code), default=0),
        )


def _publish(context: Context, material: Material, targets: list[TargetBuild], output: Path) -> list[TargetReport]:
    """Publish all bundles, or none when a target failed."""
    if any(target.report.exit_code for target in targets):
        return [target.report for target in targets]
    base = output / context.plan.name / context.plan.version
    with ExitStack() as stack:
        staged = []
        for target in targets:
            with context.progress.step("bundle", target.plan.name):
                staging = stack.enter_context(Staging(base / target.plan.name))
                target.write(context, material, staging.directory)
                staged.append(staging)
        for staging in staged:
            staging.commit()
    return [target.report.model_copy(update={"bundle": str(base / target.plan.name)}) for target in targets]


def _model(context: Context) -> tuple[Material, dict[str, Any], InputFactory, Metric | None, float | None]:
    """Export, reference outputs and the check of the canonical graph."""
    plan = context.plan
    samples_key, samples = _samples(context)
    reasons: list[str] = []
    exporters: tuple[str, ...] = (plan.export.exporter,)
    if plan.export.exporter == "auto":
        exporters = ("dynamo", "torchscript")
    if isinstance(plan.model, OnnxSource):
        exporters = ("onnx",)
    for exporter in exporters:
        try:
            exported, directory, key = _export(context, exporter)
            factory = InputFactory(exported.inputs, plan.export.axes, samples)
            cases = _reference_cases(context, exported, directory, factory, samples_key)
            material = Material(
                plan=plan,
                fetched=context.fetched,
                exported=exported,
                exporter_reason="; ".join(reasons) or None,
                cases=cases,
                tools=context.tools,
            )
            metric, reference_metric = _metric(context, key)
            _check_canonical(context, material, key, directory, factory)
        except ExportError as error:
            if exporter == exporters[-1]:
                raise StageError(error.message, help=error.help, details=(*reasons, *error.details)) from error
            reasons.append(f"{exporter}: {error.message}")
            context.progress.note(f"{error.message}; trying the {exporters[-1]} exporter")
        else:
            full_key = {"export": key, "samples": samples_key, "cases": [str(case) for case in plan.cases]}
            return material, {**full_key, "directory": str(directory)}, factory, metric, reference_metric
    raise AssertionError(exporters)


def _samples(context: Context) -> tuple[str | None, Samples]:
    name = context.plan.accuracy.samples
    if name is None:
        return None, Samples()
    path = context.root / name
    if not path.is_file():
        raise StageError(
            f"samples `{name}` do not exist", help=f"paths of a spec resolve against its root, {context.root}"
        )
    return sha256_file(path), load_samples(path, context.fetched.directory)


def _export(context: Context, exporter: str) -> tuple[Exported, Path, str]:
    plan = context.plan.export
    inputs = {
        "model": context.model_key(),
        "export": plan.model_dump(mode="json", exclude={"exporter"}),
        "exporter": exporter,
        "code": code_digest("stages/export.py", "stages/import_onnx.py"),
    }

    def action(output: Path) -> dict[str, Any]:
        if isinstance(context.plan.model, OnnxSource):
            from ortc.stages.import_onnx import import_onnx

            source = context.fetched.directory / Path(context.plan.model.path).name
            return {"exported": import_onnx(source, plan, output).model_dump(mode="json")}
        worker = context.reference()
        try:
            return {"exported": worker.call("export", exporter=exporter, output=str(output))}
        except StageError as error:
            if not is_deterministic(error):
                raise
            return {"error": error_data(error)}

    entry = context.run("export", exporter, inputs, action)
    if (failure := entry.result.get("error")) is not None:
        raise ExportError(failure["message"], help=failure["help"], details=tuple(failure["details"]))
    return Exported.model_validate(entry.result["exported"]), entry.directory, entry.key


def _reference_cases(
    context: Context, exported: Exported, directory: Path, factory: InputFactory, samples_key: str | None
) -> tuple[ReferenceCase, ...]:
    """Inputs of every case and what the reference gives for them."""
    plan = context.plan
    inputs = {
        "model": context.model_key(),
        "inputs": [tensor.model_dump(mode="json") for tensor in exported.inputs],
        "outputs": [output.name for output in exported.outputs],
        "axes": [axis.model_dump() for axis in plan.export.axes],
        "cases": [case.model_dump(mode="json") for case in plan.cases],
        "samples": samples_key,
        "code": code_digest("samples.py"),
    }

    def action(output: Path) -> dict[str, Any]:
        named = [(str(case), factory.case(case)) for case in plan.cases] + factory.real()
        names = []
        with ExitStack() as stack:
            if context.has_reference:
                worker = context.reference()
            else:
                bundle = _canonical_bundle(context, exported, directory, ())
                interpreter = context.interpreter(CHECK_PINS, (context.host.platform,))
                worker = stack.enter_context(Worker.for_bundle("canonical", interpreter, bundle))
                worker.call("load", bundle=str(bundle), verify="none", selftest=False, warmup=False)
            for index, (name, arrays) in enumerate(named):
                write_arrays(output / f"{index}.inputs.npz", arrays)
                worker.call(
                    "run", inputs=str(output / f"{index}.inputs.npz"), outputs=str(output / f"{index}.outputs.npz")
                )
                names.append(name)
        return {"cases": names}

    entry = context.run("reference", f"{len(plan.cases)} shapes", inputs, action)
    return tuple(
        ReferenceCase(
            name=name,
            inputs=entry.directory / f"{index}.inputs.npz",
            outputs=entry.directory / f"{index}.outputs.npz",
        )
        for index, name in enumerate(entry.result["cases"])
    )


def _cpu_target(plan: Plan) -> TargetPlan:
    """The first target, on the plain CPU runtime with every optimization off."""
    target = plan.targets[0]
    session = target.session.model_copy(
        update={"providers": (ProviderPlan(name="CPUExecutionProvider", options={}),), "config_entries": {}}
    )
    return target.model_copy(update={"session": session})


def _canonical_bundle(context: Context, exported: Exported, directory: Path, cases: tuple[ReferenceCase, ...]) -> Path:
    bundle = Path(tempfile.mkdtemp(prefix="canonical-", dir=context.work))
    size = sum(file.stat().st_size for file in directory.glob("model.onnx*"))
    graph = VariantGraph(bytes=size, domains=exported.domains, operators=exported.operators)
    material = Material(context.plan, context.fetched, exported, None, cases, context.tools)
    made = Made(variant=CANONICAL, level="off", directory=directory, graph=graph)
    assemble(bundle, material, _cpu_target(context.plan), made)
    return bundle


def _check_canonical(context: Context, material: Material, key: str, directory: Path, factory: InputFactory) -> None:
    """Run the exported graph, unoptimized, over the whole shape matrix.

    Raises:
        ExportError: it does not load or run at some shape: the export baked something in.
        AccuracyError: it runs, and computes something else than PyTorch.
    """
    interpreter = context.interpreter(CHECK_PINS, (context.host.platform,))
    inputs = {
        "export": key,
        "cases": [[case.name, sha256_file(case.outputs)] for case in material.cases],
        "host": context.host.fingerprint(),
        "code": code_digest("stages/verify.py", "compare.py", "worker.py"),
    }

    def action(output: Path) -> dict[str, Any]:  # the result is all there is
        bundle = _canonical_bundle(context, material.exported, directory, material.cases)
        return check_bundle(interpreter, bundle, material.cases, factory, None).model_dump(mode="json")

    entry = context.run("shape matrix", f"{len(material.cases)} cases", inputs, action)
    check = Check.model_validate(entry.result)
    if check.error is not None:
        raise ExportError(
            f"the {material.exported.exporter} export does not run as PyTorch does: {check.error}",
            help="the export fixed a shape or took one branch of the model's code; see the case above",
        )
    for verdict in accuracy_verdicts(check, "fp32", context.plan.accuracy, context.host.platform, None):
        if verdict.outcome != "pass" and verdict.gate in ("max_abs", "outputs"):
            raise AccuracyError(
                f"the exported graph differs from PyTorch: {verdict.gate} {verdict.observed}, allowed {verdict.limit}, "
                f"{verdict.where}",
                help="raise `accuracy.max_abs` if that much is acceptable; the export is canonical fp32 without optimizations",
            )


def _metric(context: Context, key: str) -> tuple[Metric | None, float | None]:
    """The task metric as a function of `predict`, and its value for the reference."""
    declared = context.plan.accuracy.metric
    if declared is None:
        return None, None
    from ortc.reference.custom import resolve_entrypoint

    function = resolve_entrypoint(declared.entrypoint, context.root)
    takes_directory = "model_dir" in inspect.signature(function).parameters

    def metric(predict: Callable[[Arrays], Arrays]) -> float:
        try:
            value = function(predict, model_dir=context.fetched.directory) if takes_directory else function(predict)
            return float(value)
        except OrtcError:
            raise
        except Exception as error:
            raise StageError(f"the metric `{declared.entrypoint}` fails: {type(error).__name__}: {error}") from error

    if not context.has_reference:
        raise StageError(
            "a task metric needs a PyTorch reference, which an ONNX source has not",
            help="remove `accuracy.metric`, or give `minimum` in a later version of the spec",
        )
    inputs = {
        "model": key,
        "metric": declared.entrypoint,
        "module": entrypoint_digest(declared.entrypoint, context.root),
    }
    entry = context.run("metric", declared.entrypoint, inputs, lambda _: {"value": metric(context.reference().run)})
    return Metric(metric, inputs["module"]), float(entry.result["value"])
