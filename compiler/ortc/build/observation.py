"""What the functions of a spec make of the files that they read: in cache keys, and in ortc.lock.

The module that `build()` gives may hold weights of any file, variable or package. Its digest is part of every key.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ortc.build.reference_process import Observed, call_for
from ortc.build.runner import latest_action
from ortc.build.stage import OPENED, Action
from ortc.build.stage_results import BuiltModule, MetricOfReference, SamplesRead
from ortc.build.stages import ENTRYPOINT, SAMPLES
from ortc.common.values import digest
from ortc.execution.files_opened import INSTALLED, SEEN, Opened
from ortc.execution.worker import Worker
from ortc.frontend.fetch import Fetched, FetchedFile
from ortc.frontend.reachable.walk import state_of
from ortc.frontend.reference.trained import MAY_BE_DRAWN, refuse_drawn
from ortc.frontend.samples.sources import given_samples, samples_key
from ortc.inspection.entrypoint import entrypoint_digest
from ortc.plan.plan import SourcePlan
from ortc.spec.accuracy import SamplesFunction
from ortc.spec.model_sources import PyTorchSource, models_beside, reference_of

if TYPE_CHECKING:
    from ortc.build.context import Context

OUTSIDE = "outside/"
"""How the names of files begin that are neither the project's nor a package's."""
DRAWN = "drawn"
"""The records of modules that have no number which another seed would change."""
BESIDE = {"teacher", "reference"}
"""Fields of a source that are about other models."""
UNKNOWN = "unknown until it is built"
"""Stands for the digest of a module in the keys of a dry run, which runs no entry point."""


def source_key(source: SourcePlan, fetched: Fetched, context: Context) -> dict[str, Any]:
    """Everything that decides what a model of a build computes, for cache keys."""
    key: dict[str, Any] = {
        "source": source.model_dump(mode="json", exclude={"mirrors", "files", "path", *BESIDE}),
        "files": fetched.digests(),
        "tools": context.tools,
        "variables": context.variables,
        "code": ENTRYPOINT.code_sha256,
    }
    if isinstance(source, PyTorchSource):
        key["module"] = entrypoint_digest(source.entrypoint, context.workspace.root)
        key["state"] = built(context, source, fetched).key
    return key


def model_key(context: Context) -> dict[str, Any]:
    """Everything that decides what the model computes, for cache keys."""
    return source_key(context.plan.model, context.workspace.fetched, context)


def reference_key(context: Context) -> dict[str, Any]:
    """Everything that decides what answers are compared with, for cache keys."""
    key, declared = model_key(context), reference_of(context.plan.model)
    if declared is None:
        return key
    made_from = source_key(declared.model, context.workspace.beside["reference"], context)
    return {**key, "reference": {"model": made_from, "outputs": declared.outputs}}


def built(context: Context, source: PyTorchSource, fetched: Fetched) -> Observed:
    """Digest the module that an entry point builds now.

    The entry point runs once in every build: files, variables and anything else that nobody sees may have changed. A
    dry run runs nothing, and takes the digest of the last run where all that was recorded of it is the same.

    Raises:
        StageError: the entry point fails, or draws weights at random that it should load.
    """
    subject = f"{context.plan.name}: {source.entrypoint}"
    action = ENTRYPOINT.action(
        subject,
        {
            "source": source.model_dump(mode="json", exclude=BESIDE),
            "files": fetched.digests(),
            "module": entrypoint_digest(source.entrypoint, context.workspace.root),
            "tools": context.tools,
            "variables": context.variables,
        },
    )
    if action.key not in context.modules.states:
        context.modules.states[action.key] = _observe(context, source, fetched, action)
    return context.modules.states[action.key]


def _observe(context: Context, source: PyTorchSource, fetched: Fetched, asked: Action[BuiltModule]) -> Observed:
    store, modules = context.workspace.store, context.modules
    found = _run_entrypoint(context, source, fetched) if context.runner.executes else None
    action, entry = latest_action(store, asked, context.workspace.root)
    before = None if entry is None else ENTRYPOINT.read(entry.result)
    if found is not None:
        _check_drawn(context, source, fetched, asked, found.parts)
        if before != found:
            result = found.model_dump(mode="json")
            store.put(ENTRYPOINT.name, action.inputs, result, action.subject, offered=True)
    known = before if found is None else found
    if known is None or (found is None and known.opaque):
        return Observed(UNKNOWN, digest([UNKNOWN, action.inputs.get(OPENED)]))
    if fetched is context.workspace.fetched:
        modules.expected, modules.opened = known.parts, known.opened
    sha256 = digest(known.parts)
    # Nothing is known of the content of such an object, so that no result of an earlier build may stand for it.
    return Observed(sha256, digest([sha256, uuid.uuid4().hex]) if known.opaque else sha256, known.opaque)


def _check_drawn(
    context: Context, source: PyTorchSource, fetched: Fetched, asked: Action[BuiltModule], parts: dict[str, str]
) -> None:
    """Refuse numbers that another seed would change; once for the same numbers of the same code."""
    store, proven = context.workspace.store, {**asked.inputs, "parts": digest(parts)}
    if source.weights not in MAY_BE_DRAWN and store.find(DRAWN, proven) is None:
        refuse_drawn(source, parts, _run_with_other_numbers(context, source, fetched))
        store.put(DRAWN, proven, {}, asked.subject)


def _run_entrypoint(context: Context, source: PyTorchSource, fetched: Fetched) -> BuiltModule:
    """Run the entry point of a model: digests of all parts of the module that it builds, and what it has read.

    Raises:
        StageError: it fails.
    """
    workspace = context.workspace
    if fetched is workspace.fetched:
        worker = context.reference.worker()
        found = {**worker.call("state"), "opened": context.reference.opened}
    else:
        found = _build(context, source, fetched, other=False)
    opened = Opened.model_validate(found["opened"]).portable(workspace.root)
    return BuiltModule(parts=found["parts"], opaque=tuple(found["opaque"]), opened=opened)


def _run_with_other_numbers(context: Context, source: PyTorchSource, fetched: Fetched) -> dict[str, str]:
    """Digest the parts of the same module, built in another process where every random number is another.

    Raises:
        StageError: the entry point fails there.
    """
    if fetched is not context.workspace.fetched:
        return dict(_build(context, source, fetched, other=True)["parts"])
    with context.reference.new_worker() as worker:
        context.reference.load(worker, other=True)
        return dict(worker.call("state")["parts"])


def _build(context: Context, source: PyTorchSource, fetched: Fetched, *, other: bool) -> dict[str, Any]:
    request = {
        "model": source.model_dump(mode="json"),
        "directory": str(fetched.directory),
        "root": str(context.workspace.root),
    }
    with Worker.for_reference() as worker:
        return call_for(source, worker, "build", **request, other=other)


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
    return digest([found, _given(context, samples)]) if isinstance(samples, SamplesFunction) else found


def _given(context: Context, samples: SamplesFunction) -> str:
    """Digest what a function gives; it runs in every build, since nobody sees all that it depends on."""
    store, workspace, modules = context.workspace.store, context.workspace, context.modules
    action, entry = latest_action(store, _samples_action(context, samples), workspace.root)
    before = None if entry is None else SAMPLES.read(entry.result)
    if not context.runner.executes:
        return UNKNOWN if before is None else before.sha256
    if modules.given is None:
        with workspace.recorder() as recorder:
            given = given_samples(samples.entrypoint, workspace.root, workspace.fetched.directory)
            opened = recorder.opened().portable(workspace.root)
        modules.given = given, digest(state_of(given).parts)
        read = SamplesRead(opened=opened, sha256=modules.given[1])
        if read != before:
            action, _ = latest_action(store, _samples_action(context, samples), workspace.root)
            store.put(SAMPLES.name, action.inputs, read.model_dump(mode="json"), action.subject, offered=True)
    return modules.given[1]


def _samples_action(context: Context, samples: SamplesFunction) -> Action[SamplesRead]:
    inputs = {"samples": samples_key(samples, context.workspace.root), "files": context.workspace.fetched.digests()}
    return SAMPLES.action(f"{context.plan.name}: {samples.entrypoint}", inputs)


def observed(context: Context, metric: Action[MetricOfReference] | None) -> tuple[dict[str, Observed], dict[str, str]]:
    """For ortc.lock: the modules that entry points build, and digests of the data that functions of the spec read.

    Args:
        context: the build.
        metric: the task metric's action, None without one.
    """
    states = {}
    workspace = context.workspace
    if isinstance(context.plan.model, PyTorchSource):
        states["model"] = built(context, context.plan.model, workspace.fetched)
    for role, source in models_beside(context.plan.model).items():
        if isinstance(source, PyTorchSource):
            states[role] = built(context, source, workspace.beside[role])
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
