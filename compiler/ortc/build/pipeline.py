"""Build one spec: the model's part, once, then every target's part, then publish all of it or nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from ortc.build.context import Context, executed
from ortc.build.model import build_model
from ortc.build.progress import Progress
from ortc.build.stages import BUNDLE
from ortc.build.target import build_target
from ortc.build.target_result import Shipment, TargetBuild
from ortc.bundle.assemble import Material, unfit_reason
from ortc.bundle.publish import Staging
from ortc.common.digests import sha256_file
from ortc.common.disk import room
from ortc.evaluation.report import BuildReport, TargetReport
from ortc.execution.action_cache import Store
from ortc.plan.plan import Plan


def build(
    plan: Plan,
    root: Path,
    output: Path,
    store: Store,
    progress: Progress,
    check: Callable[[Context], None] | None = None,
    *,
    remeasured: frozenset[str] = frozenset(),
) -> BuildReport:
    """Run the plan. Bundles appear below `output` only when every target keeps every promise.

    Args:
        plan: what to do.
        root: what the spec's relative paths resolve against.
        output: bundles go to `output`/NAME/VERSION/TARGET.
        store: finished actions, source files, runtime environments.
        progress: told of every stage.
        check: called before any work with the model's files at hand; may refuse.
        remeasured: stages of times that are done again though their results are in the cache.

    Raises:
        StageError: the model's part fails, so that there is nothing to judge.
        AccuracyError: the exported graph does not compute what PyTorch computes.
    """
    with executed(plan, root, store, progress, remeasured) as context:
        notes = context.workspace.notes
        for note in notes:
            progress.note(note)
        if check is not None:
            check(context)
        model = build_model(context)
        material = model.material
        targets: list[TargetBuild] = []
        for target in context.plan.targets:
            with progress.part(target.name):
                targets.append(build_target(context, model, target))
        context.reference.end()
        reports = _publish(context, material, targets, output)
        return _report(context, material, reports, notes)


def _report(context: Context, material: Material, reports: Sequence[TargetReport], notes: Sequence[str]) -> BuildReport:
    plan, exported = context.plan, material.exported
    return BuildReport(
        name=plan.name,
        version=plan.version,
        plan_sha256=plan.digest(),
        host=context.host,
        tools=context.tools,
        inputs=context.workspace.fetched.digests(),
        exporter=exported.exporter,
        exporter_reason=material.exporter_reason,
        notes=(*notes, *exported.warnings),
        parts_left_out=(*context.workspace.fetched.left_out, *exported.parts_left_out),
        inputs_left_out=exported.inputs_left_out,
        unfit_reason=unfit_reason(plan),
        skipped_cases=tuple(f"{case.shape}: {case.reason}" for case in plan.skipped_cases),
        stages=tuple(context.progress.times),
        targets=tuple(reports),
        exit_code=min((report.exit_code for report in reports if report.exit_code), default=0),
    )


def _publish(context: Context, material: Material, targets: list[TargetBuild], output: Path) -> list[TargetReport]:
    """Publish all bundles, or none when a target failed. A bundle that is there already, unchanged, is left alone."""
    if any(target.report.exit_code for target in targets):
        return [target.report for target in targets]
    base = output / context.plan.name / context.plan.version
    with ExitStack() as stack:
        staged: list[tuple[Shipment, Staging]] = []
        for target in targets:
            place = base / target.plan.name
            with context.progress.step(BUNDLE.name, target.plan.name) as step:
                shipment = Shipment.of(target, context, material)
                if shipment.is_published(place):
                    step.cached = True
                    continue
                staging = stack.enter_context(Staging(place))
                with room(("bundles", base), needed=target.report.model_bytes):
                    shipment.write(staging.directory)
                staged.append((shipment, staging))
        for shipment, staging in staged:
            sums = sha256_file(staging.directory / "SHA256SUMS")
            staging.commit()
            shipment.keep(sums)
    return [target.report.model_copy(update={"bundle": str(base / target.plan.name)}) for target in targets]
