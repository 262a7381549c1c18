"""Build one spec: the model's part, once, then every target's part, then publish all of it or nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from ortc.build.context import Context
from ortc.build.distillation import fetch_teacher
from ortc.build.model import build_model
from ortc.build.progress import Progress
from ortc.build.target import build_target
from ortc.build.target_result import TargetBuild
from ortc.bundle.assemble import Material, unfit_reason
from ortc.bundle.publish import Staging, is_intact
from ortc.common.digests import sha256_file
from ortc.common.disk import room
from ortc.evaluation.report import BuildReport, TargetReport
from ortc.execution.action_cache import Store
from ortc.execution.cache_users import in_use
from ortc.execution.host import describe
from ortc.execution.work_directory import workplace
from ortc.frontend.fetch import fetch
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
    with ExitStack() as stack:
        with room(("the cache", store.root)):
            stack.enter_context(in_use(store.root))
            work = stack.enter_context(workplace(store.root))
        with progress.step("fetch", plan.name):
            sources = work / "source"
            sources.mkdir()
            fetched = fetch(plan.model, root, store, sources)
            teacher = fetch_teacher(plan, root, store, work)
        notes = (*fetched.notes, *(teacher.notes if teacher is not None else ()))
        for note in notes:
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
            teacher=teacher,
            remeasured=remeasured,
        )
        if check is not None:
            check(context)
        model = build_model(context)
        material = model.material
        targets = [build_target(context, model, target) for target in context.plan.targets]
        context.fresh_reference()
        reports = _publish(context, material, targets, output)
        return _report(context, material, reports, notes)


def _report(context: Context, material: Material, reports: Sequence[TargetReport], notes: Sequence[str]) -> BuildReport:
    plan, exported = context.plan, material.exported
    return BuildReport(
        name=plan.name,
        version=plan.version,
        plan_sha256=plan.digest(),
        host=context.host,
        exporter=exported.exporter,
        exporter_reason=material.exporter_reason,
        notes=(*notes, *exported.warnings),
        parts_left_out=(*context.fetched.left_out, *exported.parts_left_out),
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
        staged: list[tuple[TargetBuild, Staging]] = []
        for target in targets:
            with context.progress.step("bundle", target.plan.name) as step:
                if is_published(context, target, material, base):
                    step.cached = True
                    continue
                staging = stack.enter_context(Staging(base / target.plan.name))
                with room(("bundles", base), needed=target.report.model_bytes):
                    target.write(context, material, staging.directory)
                staged.append((target, staging))
        for target, staging in staged:
            sums = sha256_file(staging.directory / "SHA256SUMS")
            staging.commit()
            context.store.put("bundle", target.key(context, material), {"sums": sums}, bundle_subject(context, target))
    return [target.report.model_copy(update={"bundle": str(base / target.plan.name)}) for target in targets]


def bundle_subject(context: Context, target: TargetBuild) -> str:
    """What a bundle's cache entry is about."""
    return f"{context.plan.name}: {target.plan.name}"


def is_published(context: Context, target: TargetBuild, material: Material, base: Path) -> bool:
    """Whether the very bundle lies below `base` already, whole."""
    done = context.store.find("bundle", target.key(context, material))
    return done is not None and is_intact(base / target.plan.name, done.result["sums"])
