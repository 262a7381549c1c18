"""ortc.lock: what a build was made of and came to, so that the next one is the same or fails."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import Field

from ortc.common.atomic_files import replace_file
from ortc.common.digests import sha256_file
from ortc.common.errors import StageError
from ortc.common.plain_files import read_plain
from ortc.common.values import Frozen
from ortc.evaluation.report import BuildReport
from ortc.execution.files_opened import located
from ortc.plan.plan import Plan
from ortc.plan.precision_mix import Mix, is_made_from, mixed
from ortc.spec.profile import GraphLevel

FORMAT_VERSION = 1
LOCK_FILE = "ortc.lock"


class Ingredients(Frozen):
    """What a build is made of: digests of the model's files, of samples and code, versions of tools.

    `states` are digests of the modules that entry points build, `data` those of files that functions of the spec read.
    `opaque` names objects of those modules that nothing can see into. `code_sha256` is of ortc's own code and of the
    files that lie in the directories of entry points or that these import; `beside` are digests of each of those files.
    """

    files: dict[str, str]
    samples_sha256: str | None
    code_sha256: str
    tools: dict[str, str]
    states: dict[str, str] = Field(default_factory=dict)
    opaque: dict[str, list[str]] = Field(default_factory=dict)
    data: dict[str, str] = Field(default_factory=dict)
    beside: dict[str, str] = Field(default_factory=dict)


class LockedTarget(Frozen):
    """What ships on one target; `mix` says which nodes are kept in higher precision."""

    variant: str
    mix: Mix | None = None
    graph_level: GraphLevel
    tuning: str | None
    runtime: str
    pins_sha256: str


class LockedSpec(Frozen):
    """Everything that decides the bytes of a spec's bundles."""

    version: str
    plan_sha256: str
    revision: str | None
    ingredients: Ingredients
    targets: dict[str, LockedTarget]


class Lock(Frozen):
    """ortc.lock: one entry for each spec of its directory, by the spec's name."""

    format_version: int = FORMAT_VERSION
    specs: dict[str, LockedSpec]


def lock_path(spec: Path) -> Path:
    """Where the lock of a spec lies: beside it."""
    return spec.parent / LOCK_FILE


def read_lock(path: Path) -> Lock:
    """The lock in a file; an empty one where there is no file.

    Raises:
        StageError: the file is not a lock.
    """
    try:
        return Lock.model_validate_json(read_plain(path))
    except FileNotFoundError:
        return Lock(specs={})
    except OSError as error:
        raise StageError(f"the lock {path} cannot be read: {error.strerror}", help="give a plain file") from error
    except ValueError as error:
        raise StageError(
            f"{path} is not a lock that this ortc reads", help="write it again: `ortc lock SPEC`"
        ) from error


def write_lock(path: Path, name: str, entry: LockedSpec, *, replace: bool = False) -> None:
    """Put a spec's entry into a lock, and leave the others.

    Args:
        path: of the lock.
        name: of the spec.
        entry: what the spec is made of now.
        replace: an entry of the same version that has other content.

    Raises:
        StageError: there is such an entry, and it may not be replaced.
    """
    lock = read_lock(path)
    before = lock.specs.get(name)
    if before is not None and before.version == entry.version and before != entry and not replace:
        raise StageError(
            f"{path.name} has {name} {entry.version} with other content; a version keeps its content",
            help=f"raise `version` in the spec, or replace {entry.version} with `ortc lock --replace`",
            details=_different(before, entry),
        )
    specs = dict(sorted({**lock.specs, name: entry}.items()))
    text = json.dumps(Lock(specs=specs).model_dump(mode="json"), indent=2) + "\n"
    replace_file(path, text.encode(), mode=0o644)


def _different(before: LockedSpec, now: LockedSpec) -> tuple[str, ...]:
    """The fields, and the ingredients, in which two entries of a version differ."""
    old, new = before.model_dump(mode="json"), now.model_dump(mode="json")
    fields = [name for name in new if name != "ingredients" and old[name] != new[name]]
    parts, others = old["ingredients"], new["ingredients"]
    fields += [f"ingredients.{name}" for name in others if parts[name] != others[name]]
    return tuple(f"differs: {name}" for name in fields)


def locked(plan: Plan, report: BuildReport, ingredients: Ingredients) -> LockedSpec:
    """The entry of a spec that was just built.

    Raises:
        StageError: a target has no variant, so that there is nothing to lock.
    """
    chosen: dict[str, LockedTarget] = {}
    planned = {target.name: target for target in plan.targets}
    for target in report.targets:
        if target.variant is None or target.graph_level is None or target.exit_code:
            raise StageError(f"target `{target.target}` was not built; only what ships can be locked")
        variants = planned[target.target].variants
        runtime = next(variant.runtime for variant in variants if is_made_from(target.variant, variant.name))
        chosen[target.target] = LockedTarget.model_validate(
            {
                "variant": target.variant,
                "mix": target.mix,
                "graph_level": target.graph_level,
                "tuning": target.tuning,
                "runtime": f"{runtime.package}=={runtime.version}",
                "pins_sha256": runtime.pins_sha256,
            }
        )
    return LockedSpec(
        version=plan.version,
        plan_sha256=plan.digest(),
        revision=getattr(plan.model, "revision", None),
        ingredients=ingredients,
        targets=chosen,
    )


def restrict(plan: Plan, entry: LockedSpec) -> Plan:
    """The plan with each target's variant, its mix of precisions and its graph level fixed to the locked ones.

    Raises:
        StageError: the plan is not the one that was locked.
    """
    if plan.digest() != entry.plan_sha256:
        raise StageError(
            f"`{plan.name}` differs from {LOCK_FILE}: the plan has sha256 {plan.digest()[:12]}…, "
            f"locked is {entry.plan_sha256[:12]}…",
            help="the spec, a profile, the pins, `--search`, `--variant` or ortc itself changed; look at `ortc plan`, "
            "then `ortc lock` again",
        )
    targets = []
    for target in plan.targets:
        fixed = entry.targets[target.name]
        variants = tuple(variant for variant in target.variants if is_made_from(fixed.variant, variant.name))
        if fixed.mix is not None:
            # The very nodes: another machine's measurements might choose others.
            variants = tuple(mixed(variant, fixed.mix) for variant in variants)
        tuning = tuple(entry for entry in target.tuning if entry.name == fixed.tuning)
        update = {
            "variants": variants,
            "graph_levels": (fixed.graph_level,),
            "left_out": (),
            "tuning": tuning,
            "tuned": fixed.tuning,
        }
        targets.append(target.model_copy(update=update))
    return plan.model_copy(update={"targets": tuple(targets)})


def _tools(tools: dict[str, str]) -> dict[str, str]:
    """Versions that decide a build: `2.13.0` for `2.13.0+cpu`, and of Python two numbers."""
    releases = {name: version.partition("+")[0] for name, version in tools.items()}
    return {name: ".".join(v.split(".")[:2]) if name == "python" else v for name, v in releases.items()}


def check_locked(before: Ingredients, now: Ingredients, root: Path) -> None:
    """Refuse ingredients that are not the locked ones, before any work is done with them.

    Raises:
        StageError: naming every difference.
    """
    changed = [
        f"{what} {name}: locked {old.get(name)}, found {new.get(name)}"
        for what, old, new in (("file", before.files, now.files), ("tool", _tools(before.tools), _tools(now.tools)))
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
    for name, sha256 in before.data.items():
        place = located(name, root)
        found = sha256_file(place) if place.is_file() else "nothing"
        if found != sha256:
            changed.append(f"file {name}, which a function of the spec reads: locked {sha256}, found {found}")
    changed += [
        f"the {name} that its entry point builds, such as its weights: locked {state}, found {now.states.get(name)}"
        for name, state in sorted(before.states.items())
        if state != now.states.get(name)
    ]
    changed += [
        f"the {name} holds {', '.join(now.opaque[name])}: nothing shows whether the content is the locked one"
        for name in sorted(now.opaque)
    ]
    if before.samples_sha256 != now.samples_sha256:
        changed.append(f"samples: locked {before.samples_sha256}, found {now.samples_sha256}")
    if before.code_sha256 != now.code_sha256:
        names = sorted(before.beside.keys() | now.beside.keys())
        files = [
            f"file {name}: locked {before.beside.get(name)}, found {now.beside.get(name)}"
            for name in names
            if before.beside and before.beside.get(name) != now.beside.get(name)
        ]
        # A lock from before files were named says only that one of them differs.
        changed += files or [
            f"code of ortc or of the spec's entry points: locked {before.code_sha256}, found {now.code_sha256}"
        ]
    if changed:
        raise StageError(
            f"the build would differ from {LOCK_FILE}",
            help="restore what was locked, or write the lock again: `ortc lock SPEC`",
            details=tuple(changed),
        )
