"""A plan from a file: its spec and profiles pass every check, and its choices and pins fit them and this ortc."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ortc import __version__
from ortc.common.suggest import listed
from ortc.plan.checks import run_checks, without_values
from ortc.plan.plan import Plan
from ortc.plan.plan_file import FORMAT_VERSION, PlanFile, pins_of
from ortc.plan.precision_mix import is_asked_for
from ortc.plan.resolve import resolve
from ortc.spec.deployment import Spec
from ortc.spec.diagnostics.diagnostic import Diagnostic, in_order, quoted
from ortc.spec.diagnostics.errors import SpecError
from ortc.spec.diagnostics.rules import plans as rules
from ortc.spec.diagnostics.source import Document, Entry, Mapping, Scalar, Span
from ortc.spec.diagnostics.source import Path as Steps
from ortc.spec.env_references import substitute
from ortc.spec.former_keys import former_keys
from ortc.spec.inheritance import KEY
from ortc.spec.load import LoadedProfile, LoadedSpec, is_path
from ortc.spec.profile import TargetProfile
from ortc.spec.runtimes import pins
from ortc.spec.syntax.json_parser import parse_json
from ortc.spec.syntax.text import PLAN, decode, read
from ortc.spec.syntax.validation import validate
from ortc.spec.syntax.yaml_parser import describe

_AGAIN = "make the plan again: `ortc plan SPEC --print`"
_OTHER = f"{_AGAIN}; or take the ortc that made it"
_HEADER = {"format_version": str(FORMAT_VERSION), "ortc_version": __version__}
_PRINTED = "`ortc plan --json` prints this document, which describes the stages of a plan"


@dataclass(frozen=True, slots=True)
class CheckedPlan:
    """A plan that can be built, as far as can be told without building it."""

    plan: Plan
    warnings: tuple[Diagnostic, ...]


def check_plan(place: Path | bytes, root: Path) -> CheckedPlan:
    """Read the plan in a file; every check has passed.

    Args:
        place: The file, or what was read from stdin.
        root: What the plan's relative paths resolve against.

    Raises:
        SpecError: with every error and warning, sorted by place.
    """
    source = decode(place, "stdin", PLAN) if isinstance(place, bytes) else read(place, kind=PLAN)
    document = parse_json(source)
    if foreign := tuple(_foreign(document)):
        raise SpecError(in_order(foreign))
    document = _with_environment(document)
    if former := tuple(_former(document)):
        raise SpecError(in_order(former))
    file = validate(PlanFile, document)
    if confused := (*_profiles(file, document), *_choices(file, document)):
        raise SpecError(in_order(confused))
    part = _part(document, "spec")
    loaded = LoadedSpec(file.spec, part, root, part)
    profiles = {
        # The file does not say where a profile came from; `ortc check` has warned when the plan was made.
        name: LoadedProfile(profile, _part(document, "profiles", name), shipped=True)
        for name, profile in file.profiles.items()
    }
    found = in_order(tuple(map(without_values, run_checks(loaded, profiles))))
    if any(diagnostic.severity == "error" for diagnostic in found):
        raise SpecError(found)
    # The checks have found that this ortc knows every set by its name.
    if other := tuple(_other_pins(file, document)):
        raise SpecError(in_order((*found, *other)))
    plan = resolve(file.spec, file.profiles, file.targets, search=file.search, variant=file.variant)
    return CheckedPlan(plan, found)


def _with_environment(document: Document) -> Document:
    """The document with the values of the environment in its spec; what looks like a reference elsewhere is text."""
    spec = document.root.entries.get("spec")
    if spec is None or not isinstance(spec.value, Mapping):
        return document
    part, wrong = substitute(Spec, Document(document.source, spec.value), os.environ)
    if wrong:
        raise SpecError(in_order(wrong))
    entries = document.root.entries | {"spec": Entry(spec.key, part.root)}
    return replace(document, root=replace(document.root, entries=entries))


def _former(document: Document) -> Iterator[Diagnostic]:
    """Find keys of the profiles that the language had before."""
    profiles = document.find(["profiles"])
    for entry in profiles.entries.values() if isinstance(profiles, Mapping) else ():
        if isinstance(entry.value, Mapping):
            yield from former_keys(Document(document.source, entry.value))


def _part(document: Document, *path: str) -> Document:
    """The mapping at a path as a document, whose values stand where they are in the file."""
    node = document.find(path)
    if not isinstance(node, Mapping):
        raise TypeError(f"{path} of a plan file is no mapping, though the file was validated")
    return Document(document.source, node)


def _foreign(document: Document) -> Iterator[Diagnostic]:
    """What says that the rest of the document is written in another language, or for another ortc."""
    if isinstance(document.find(["plan"]), Mapping) and document.find(["format_version"]) is not None:
        yield Diagnostic(rules.PLAN_OTHER, _PRINTED, document.locate(["plan"], key=True), help=_AGAIN)
        return
    for key, expected in _HEADER.items():
        node = document.find([key])
        found = node.text if isinstance(node, Scalar) else "" if node is None else describe(node)
        if found != expected:
            what = f"`{key}` is {quoted(found)}" if node is not None else f"the plan has no `{key}`"
            yield Diagnostic(
                rules.PLAN_OTHER,
                f"{what}; this ortc makes plans with `{expected}`",
                document.locate([key]),
                help=_OTHER if node is not None else _AGAIN,
            )


def _profiles(file: PlanFile, document: Document) -> Iterator[Diagnostic]:
    """Find targets of the spec without a profile, and profiles that no target of the spec names."""
    if file.spec.base is not None:
        span = document.locate(("spec", KEY), key=True)
        yield _inconsistent("the spec of a plan has a `base`, and a plan holds the spec with its base", span)
    for name, target in file.spec.targets.items():
        if name not in file.profiles:
            span = document.locate(("spec", "targets", name), key=True)
            yield _inconsistent(f"the target `{name}` has no profile in `profiles`", span)
            continue
        wanted, found = target.profile or name, file.profiles[name].name
        if wanted != found and not is_path(wanted):
            span = document.locate(("profiles", name, "name"))
            yield _inconsistent(f"the profile of `{name}` is {quoted(found)}, its target wants {quoted(wanted)}", span)
    for name in file.profiles:
        if name not in file.spec.targets:
            span = document.locate(("profiles", name), key=True)
            yield _inconsistent(f"the profile of `{name}` belongs to no target of the spec", span)
    named = pins_of(file.profiles)
    for name in sorted({*named, *file.pins}):
        if (name in named) != (name in file.pins):
            place: Steps = ("pins", name) if name in file.pins else ("pins",)
            why = "no profile names it" if name in file.pins else "a profile names it, and `pins` has no digest of it"
            yield _inconsistent(f"the pinned set {quoted(name)}: {why}", document.locate(place, key=True))


def _choices(file: PlanFile, document: Document) -> Iterator[Diagnostic]:
    """Find targets and variants that were chosen and do not exist."""
    known = file.spec.targets
    for index, name in enumerate(file.targets):
        span = document.locate(("targets", index))
        if name not in known:
            yield _inconsistent(f"the spec has no target {quoted(name)}; it has {listed(known, 'and')}", span)
        elif name in file.targets[:index]:
            yield _inconsistent(f"the target {quoted(name)} is there twice", span)
        elif file.variant is not None and name in file.profiles and not _has(file.profiles[name], file.variant):
            span = document.locate(("variant",))
            yield _inconsistent(f"the profile of `{name}` has no variant {quoted(file.variant)}", span)


def _has(profile: TargetProfile, variant: str) -> bool:
    return any(is_asked_for(variant, entry) for entry in profile.variants)


def _other_pins(file: PlanFile, document: Document) -> Iterator[Diagnostic]:
    """Find pinned sets whose content is another one in this ortc."""
    for name, sha256 in file.pins.items():
        if sha256 != (here := pins(name).sha256):
            yield Diagnostic(
                rules.PLAN_OTHER,
                f"the pins {quoted(name)} of this ortc are not those of the plan",
                document.locate(("pins", name)),
                f"this ortc has {here[:12]}...",
                help=_OTHER,
            )


def _inconsistent(message: str, span: Span) -> Diagnostic:
    return Diagnostic(rules.PLAN_INCONSISTENT, message, span, help=_AGAIN)
