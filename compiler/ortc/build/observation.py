"""What the functions of a spec make of the files that they read: in cache keys, and in ortc.lock.

The module that `build()` gives may hold weights of any file, variable or package. Its digest is part of every key, and
is known without running anything as long as all that the function read is the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ortc.build.runner import latest_action
from ortc.build.stage_results import BuiltModule, MetricOfReference, SamplesRead
from ortc.build.stages import ENTRYPOINT, OPENED, SAMPLES, Action
from ortc.common.values import digest
from ortc.execution.files_opened import INSTALLED, SEEN, Opened
from ortc.execution.worker import Worker
from ortc.frontend.fetch import Fetched, FetchedFile
from ortc.frontend.reference.trained import MAY_BE_DRAWN, refuse_drawn
from ortc.frontend.samples.sources import samples_key
from ortc.inspection.entrypoint import entrypoint_digest
from ortc.plan.plan import SourcePlan
from ortc.spec.accuracy import SamplesFunction
from ortc.spec.model_sources import PyTorchSource

if TYPE_CHECKING:
    from ortc.build.context import Context

OUTSIDE = "outside/"
"""How the names of files begin that are neither the project's nor a package's."""
UNKNOWN = "unknown until it is built"
"""Stands for the digest of a module in the keys of a dry run, which runs no entry point."""


def source_key(source: SourcePlan, fetched: Fetched, context: Context) -> dict[str, Any]:
    """Everything that decides what a model of a build computes, for cache keys."""
    key: dict[str, Any] = {
        "source": source.model_dump(mode="json", exclude={"mirrors", "files", "path", "teacher"}),
        "files": fetched.digests(),
        "tools": context.tools,
        "variables": context.variables,
        "code": ENTRYPOINT.code_sha256,
    }
    if isinstance(source, PyTorchSource):
        key["module"] = entrypoint_digest(source.entrypoint, context.workspace.root)
        key["state"] = built(context, source, fetched)
    return key


def model_key(context: Context) -> dict[str, Any]:
    """Everything that decides what the model computes, for cache keys."""
    return source_key(context.plan.model, context.workspace.fetched, context)


def built(context: Context, source: PyTorchSource, fetched: Fetched) -> str:
    """The digest of the module that an entry point builds from what it reads now.

    The entry point runs if it never ran, if something that it read has changed, or if compiled code may have read more
    than is known.

    Raises:
        StageError: it fails.
    """
    root, modules = context.workspace.root, context.modules
    subject = f"{context.plan.name}: {source.entrypoint}"
    action = ENTRYPOINT.action(
        subject,
        {
            "source": source.model_dump(mode="json", exclude={"teacher"}),
            "files": fetched.digests(),
            "module": entrypoint_digest(source.entrypoint, root),
            "tools": context.tools,
            "variables": context.variables,
        },
    )
    asked = action.key
    if asked not in modules.states:
        action, entry = latest_action(context.workspace.store, action, root)
        found = None if entry is None else ENTRYPOINT.read(entry.result)
        if (found is None or found.opened.blind) and context.runner.executes:
            found = _run_entrypoint(context, source, fetched)
            result = found.model_dump(mode="json")
            context.workspace.store.put(ENTRYPOINT.name, action.inputs, result, subject, offered=True)
        modules.states[asked] = {UNKNOWN: str(action.inputs.get(OPENED))} if found is None else found.parts
        if fetched is context.workspace.fetched and found is not None:
            modules.expected, modules.opened = found.parts, found.opened
    return digest(modules.states[asked])


def _run_entrypoint(context: Context, source: PyTorchSource, fetched: Fetched) -> BuiltModule:
    """Run the entry point of a model: digests of all parts of the module that it builds, and what it has read.

    Raises:
        StageError: it fails.
    """
    workspace = context.workspace
    if fetched is workspace.fetched:
        worker = context.reference.worker()
        parts, opened = worker.call("state")["parts"], context.reference.opened
        if source.weights not in MAY_BE_DRAWN:
            refuse_drawn(source, parts, worker.call("state of another")["parts"])
    else:
        request = {
            "model": source.model_dump(mode="json"),
            "directory": str(fetched.directory),
            "root": str(workspace.root),
        }
        with Worker.for_reference() as worker:
            found = worker.call("build", **request, other=False)
            parts, opened = found["parts"], found["opened"]
            if source.weights not in MAY_BE_DRAWN:
                refuse_drawn(source, parts, worker.call("build", **request, other=True)["parts"])
    return BuiltModule(parts=parts, opened=Opened.model_validate(opened).portable(workspace.root))


def opened_files(context: Context) -> tuple[FetchedFile, ...]:
    """The files that the model's entry point read by itself, with names that mean the same on other machines.

    A file outside of the project and of installed packages is named by its digest and its own name. Files of the
    packages that every build has are part of those.
    """
    found: dict[str, str] = {}
    for name, sha256 in context.modules.opened.data().items():
        package = name.removeprefix(INSTALLED).partition("/")[0] if name.startswith(INSTALLED) else ""
        if package not in SEEN:
            found[f"{OUTSIDE}{sha256[:12]}/{Path(name).name}" if Path(name).is_absolute() else name] = sha256
    return tuple(FetchedFile(name=name, sha256=found[name], origin="entrypoint") for name in sorted(found))


def samples_key_of(context: Context) -> str | None:
    """What decides the samples, for cache keys; None without any.

    Raises:
        StageError: there is no such file or module.
    """
    samples, root = context.plan.accuracy.samples, context.workspace.root
    if samples is None:
        return None
    found = samples_key(samples, root)
    if not isinstance(samples, SamplesFunction):
        return found
    action, _ = latest_action(context.workspace.store, _samples_action(context, samples), root)
    return digest([found, action.inputs[OPENED]]) if OPENED in action.inputs else found


def keep_samples(context: Context, opened: Opened) -> None:
    """Remember what a function that gives samples has read."""
    samples, store, root = context.plan.accuracy.samples, context.workspace.store, context.workspace.root
    if isinstance(samples, SamplesFunction):
        action, _ = latest_action(store, _samples_action(context, samples), root)
        result = SamplesRead(opened=opened.portable(root)).model_dump(mode="json")
        store.put(SAMPLES.name, action.inputs, result, action.subject, offered=True)


def _samples_action(context: Context, samples: SamplesFunction) -> Action[SamplesRead]:
    inputs = {"samples": samples_key(samples, context.workspace.root), "files": context.workspace.fetched.digests()}
    return SAMPLES.action(f"{context.plan.name}: {samples.entrypoint}", inputs)


def observed(context: Context, metric: Action[MetricOfReference] | None) -> tuple[dict[str, str], dict[str, str]]:
    """For ortc.lock: digests of the modules that entry points build, and of the data that functions of the spec read.

    Args:
        context: the build.
        metric: the task metric's action, None without one.
    """
    states = {}
    workspace, teacher = context.workspace, context.plan.model.teacher
    if isinstance(context.plan.model, PyTorchSource):
        states["model"] = built(context, context.plan.model, workspace.fetched)
    if teacher is not None and workspace.teacher is not None and isinstance(teacher.model, PyTorchSource):
        states["teacher"] = built(context, teacher.model, workspace.teacher)
    data: dict[str, str] = {}
    samples = context.plan.accuracy.samples
    asked: list[Action[Any]] = [] if metric is None else [metric]
    if isinstance(samples, SamplesFunction):
        asked.append(_samples_action(context, samples))
    for action in asked:
        _, entry = latest_action(workspace.store, action, workspace.root)
        if entry is not None:
            data |= action.stage.read(entry.result).opened.data()
    return states, data
