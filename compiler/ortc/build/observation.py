"""What the functions of a spec make of the files that they read: in cache keys, and in ortc.lock.

The module that `build()` gives may hold weights of any file, variable or package. Its digest is part of every key, and
is known without running anything as long as all that the function read is the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ortc.common.errors import StageError
from ortc.common.values import digest
from ortc.execution.code_closure import code_of
from ortc.execution.files_opened import INSTALLED, SEEN, Opened, latest
from ortc.frontend.fetch import Fetched, FetchedFile
from ortc.frontend.samples.sources import samples_key
from ortc.inspection.entrypoint import entrypoint_digest
from ortc.spec.accuracy import SamplesFunction
from ortc.spec.model_sources import PyTorchSource

if TYPE_CHECKING:
    from ortc.build.context import Context

OUTSIDE = "outside/"
"""How the names of files begin that are neither the project's nor a package's."""
UNKNOWN = "unknown until it is built"
"""Stands for the digest of a module in the keys of a dry run, which runs no entry point."""


def built(context: Context, source: PyTorchSource, fetched: Fetched) -> str:
    """The digest of the module that an entry point builds from what it reads now.

    The entry point runs if it never ran, if something that it read has changed, or if compiled code may have read more
    than is known.

    Raises:
        StageError: it fails.
    """
    inputs: dict[str, Any] = {
        "source": source.model_dump(mode="json", exclude={"teacher"}),
        "files": fetched.digests(),
        "module": entrypoint_digest(source.entrypoint, context.root),
        "tools": context.tools,
        "variables": context.variables,
        "code": code_of("model"),
    }
    asked = digest(inputs)
    if asked not in context.states:
        inputs, entry = latest(context.store, "entrypoint", inputs, context.root)
        result = None if entry is None else entry.result
        if result is None or result["opened"]["blind"]:
            observed_now = context.observe(source, fetched)
            if observed_now is not None:
                opened = Opened.model_validate(observed_now["opened"]).portable(context.root)
                result = {**observed_now, "opened": opened.model_dump(mode="json")}
                subject = f"{context.plan.name}: {source.entrypoint}"
                context.store.put("entrypoint", inputs, result, subject, offered=True)
        context.states[asked] = {UNKNOWN: str(inputs.get("opened"))} if result is None else result["parts"]
        if fetched is context.fetched and result is not None:
            context.expected = result["parts"]
            context.opened = Opened.model_validate(result["opened"])
    return digest(context.states[asked])


def check_built(expected: dict[str, str], parts: dict[str, str], entrypoint: str) -> None:
    """Refuse an entry point that builds another module every time.

    Raises:
        StageError: naming a part that differs.
    """
    if parts == expected:
        return
    differing = [name for name in {**expected, **parts} if expected.get(name) != parts.get(name)]
    raise StageError(
        f"`{entrypoint}` builds another module each time that it is called: `{differing[0]}` differs"
        + (f", and {len(differing) - 1} more" if len(differing) > 1 else ""),
        help="what was proven must be what ships: load trained weights (`model.weights`), or seed every random number "
        "generator that the function draws from (ortc seeds torch's)",
    )


def opened_files(context: Context) -> tuple[FetchedFile, ...]:
    """The files that the model's entry point read by itself, with names that mean the same on other machines.

    A file outside of the project and of installed packages is named by its digest and its own name. Files of the
    packages that every build has are part of those.
    """
    found: dict[str, str] = {}
    for name, sha256 in context.opened.data().items():
        package = name.removeprefix(INSTALLED).partition("/")[0] if name.startswith(INSTALLED) else ""
        if package not in SEEN:
            found[f"{OUTSIDE}{sha256[:12]}/{Path(name).name}" if Path(name).is_absolute() else name] = sha256
    return tuple(FetchedFile(name=name, sha256=found[name], origin="entrypoint") for name in sorted(found))


def samples_key_of(context: Context) -> str | None:
    """What decides the samples, for cache keys; None without any.

    Raises:
        StageError: there is no such file or module.
    """
    samples = context.plan.accuracy.samples
    if samples is None:
        return None
    found = samples_key(samples, context.root)
    if not isinstance(samples, SamplesFunction):
        return found
    inputs, _ = latest(context.store, "samples", _samples_inputs(context, found), context.root)
    return digest([found, inputs["opened"]]) if "opened" in inputs else found


def keep_samples(context: Context, opened: Opened) -> None:
    """Remember what a function that gives samples has read."""
    samples = context.plan.accuracy.samples
    if isinstance(samples, SamplesFunction):
        asked = _samples_inputs(context, samples_key(samples, context.root))
        inputs, _ = latest(context.store, "samples", asked, context.root)
        result = {"opened": opened.portable(context.root).model_dump(mode="json")}
        context.store.put("samples", inputs, result, f"{context.plan.name}: {samples.entrypoint}", offered=True)


def _samples_inputs(context: Context, key: str) -> dict[str, Any]:
    return {"samples": key, "files": context.fetched.digests()}


def observed(context: Context, metric: dict[str, Any] | None) -> tuple[dict[str, str], dict[str, str]]:
    """For ortc.lock: digests of the modules that entry points build, and of the data that functions of the spec read.

    Args:
        context: the build.
        metric: what decides the task metric's action, None without one.
    """
    states = {}
    teacher = context.plan.model.teacher
    if isinstance(context.plan.model, PyTorchSource):
        states["model"] = built(context, context.plan.model, context.fetched)
    if teacher is not None and context.teacher is not None and isinstance(teacher.model, PyTorchSource):
        states["teacher"] = built(context, teacher.model, context.teacher)
    data: dict[str, str] = {}
    samples = context.plan.accuracy.samples
    asked = [] if metric is None else [("metric", metric)]
    if isinstance(samples, SamplesFunction):
        asked.append(("samples", _samples_inputs(context, samples_key(samples, context.root))))
    for stage, inputs in asked:
        _, entry = latest(context.store, stage, inputs, context.root)
        if entry is not None:
            data |= Opened.model_validate(entry.result.get("opened", {})).data()
    return states, data
