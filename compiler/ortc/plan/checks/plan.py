"""A plan from a file: all that is checked of a spec and its profiles, and that it is a plan that this ortc makes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ortc import __version__
from ortc.plan.checks import run_checks
from ortc.plan.plan import FORMAT_VERSION, Plan
from ortc.plan.resolve import resolve
from ortc.plan.unresolve import profile_of, spec_of
from ortc.spec.diagnostics.diagnostic import Diagnostic, Related, in_order, quoted
from ortc.spec.diagnostics.errors import SpecError
from ortc.spec.diagnostics.rules import plans as rules
from ortc.spec.diagnostics.rules.reuse import ENVIRONMENT_PLACE
from ortc.spec.diagnostics.source import Document, Mapping, Node, Scalar, Sequence
from ortc.spec.diagnostics.source import Path as Steps
from ortc.spec.env_references import substitute
from ortc.spec.syntax.json_parser import parse_json
from ortc.spec.syntax.text import PLAN, decode, read
from ortc.spec.syntax.validation import dotted, validate
from ortc.spec.syntax.yaml_parser import describe

_AGAIN = "make the plan again: `ortc plan SPEC --print`"
_HEADER = {"format_version": str(FORMAT_VERSION), "ortc_version": __version__}
_NAMED = (("export", "axes"), ("export", "inputs"), ("targets",))
_OF_TARGETS = ("variants", "tuning")
"""Lists whose items are known by their names."""
_DERIVED = ("cases", "skipped_cases")
"""Lists that follow from the axes."""
_WHOLE = (*_DERIVED, "sizes", "percentiles")
"""Lists that are right or wrong as a whole: what differs inside of them says nothing more."""
_MAX_SHOWN = 60


@dataclass(frozen=True, slots=True)
class CheckedPlan:
    """A plan that can be built, as far as can be told without building it."""

    plan: Plan
    warnings: tuple[Diagnostic, ...]


def check_plan(place: Path | bytes, root: Path) -> CheckedPlan:
    """The plan in a file, once every check has passed.

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
    # What the plan took from the environment; everything else that looks like a reference is text.
    document, wrong = substitute(Plan, document, os.environ)
    if wrong := tuple(entry for entry in wrong if entry.rule is not ENVIRONMENT_PLACE):
        raise SpecError(in_order(wrong))
    plan = validate(Plan, document)
    if confused := (*_repeated(document), *_unpromised(document, plan)):
        raise SpecError(in_order(confused))
    with _consistent(document, ()):
        loaded = spec_of(plan, document, root)
    profiles = {}
    for index, target in enumerate(plan.targets):
        with _consistent(document, ("targets", index)):
            profiles[target.name] = profile_of(target, document, index)
    found = in_order(run_checks(loaded, profiles))
    if any(diagnostic.severity == "error" for diagnostic in found):
        raise SpecError(found)
    made = resolve(
        loaded.spec,
        {name: item.profile for name, item in profiles.items()},
        search=plan.search,
        variant=plan.variant,
        holds_out=plan.holds_out,
    )
    if impossible := tuple(_impossible(document, plan, made)):
        raise SpecError(in_order((*found, *impossible)))
    if differences := tuple(_differences(document, plan, made)):
        raise SpecError(in_order((*found, *differences)))
    return CheckedPlan(plan, found)


@contextmanager
def _consistent(document: Document, place: Steps) -> Iterator[None]:
    """Turn the rules of specs and profiles, which look at several values at once, into diagnostics of the plan."""
    try:
        yield
    except ValidationError as error:
        span = document.locate(place, key=True)
        messages = [item["msg"].removeprefix("Value error, ") for item in error.errors(include_url=False)]
        raise SpecError(
            tuple(Diagnostic(rules.PLAN_INCONSISTENT, message, span, help=_AGAIN) for message in messages)
        ) from error


def _foreign(document: Document) -> Iterator[Diagnostic]:
    """What says that the rest of the document is written in another language, or for another ortc."""
    if isinstance(document.find(["plan"]), Mapping) and document.find(["format_version"]) is not None:
        message = "this is what `ortc plan --json` prints, with the plan inside of it"
        yield Diagnostic(rules.PLAN_OTHER, message, document.locate(["plan"], key=True), help=_AGAIN)
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
                help=f"{_AGAIN}; or take the ortc that made it" if node is not None else _AGAIN,
            )


def _repeated(document: Document) -> Iterator[Diagnostic]:
    """Names that two items of one list have."""
    inner = (("targets", index, key) for index in range(len(_items(document, ("targets",)))) for key in _OF_TARGETS)
    places = [*_NAMED, *inner]
    for place in places:
        first: dict[str, Node] = {}
        for index, item in enumerate(_items(document, place)):
            name = item.entries["name"].value if isinstance(item, Mapping) else None
            if not isinstance(name, Scalar):
                continue
            if name.text in first:
                yield Diagnostic(
                    rules.PLAN_INCONSISTENT,
                    f"`{dotted((*place, index))}` has the name {quoted(name.text)} of another",
                    name.span,
                    "again here",
                    help="give each a name of its own",
                    related=(Related(first[name.text].span, "first here"),),
                )
            first.setdefault(name.text, name)


def _unpromised(document: Document, plan: Plan) -> Iterator[Diagnostic]:
    """Targets without variants, and variants of another precision than their target's."""
    for index, target in enumerate(plan.targets):
        place = ("targets", index, "precision")
        if not target.variants:
            message, span = (
                f"the target `{target.name}` has no variant",
                document.locate(("targets", index, "variants")),
            )
            yield Diagnostic(rules.PLAN_INCONSISTENT, message, span, help=_AGAIN)
        for number, variant in enumerate(target.variants):
            if plan.variant is None and target.precision not in ("auto", variant.precision):
                yield Diagnostic(
                    rules.PLAN_INCONSISTENT,
                    f"the variant `{variant.name}` computes in {variant.precision}, and the target `{target.name}` is "
                    f"{target.precision}",
                    document.locate(("targets", index, "variants", number, "precision")),
                    help="change the one and the other; `auto` takes the fastest of several precisions",
                    related=(Related(document.locate(place), f"`{target.name}` is {target.precision}"),),
                )


def _impossible(document: Document, plan: Plan, made: Plan) -> Iterator[Diagnostic]:
    """Variants that could not be tried for what the plan says."""
    for index, (target, other) in enumerate(zip(plan.targets, made.targets, strict=True)):
        reasons = {entry.variant: entry.reason for entry in other.left_out}
        for number, variant in enumerate(target.variants):
            if variant.name in reasons:
                message = f"the variant `{variant.name}` of `{target.name}` cannot be tried: {reasons[variant.name]}"
                span = document.locate(("targets", index, "variants", number, "name"))
                yield Diagnostic(rules.PLAN_INCONSISTENT, message, span, help=f"take it out, or {_AGAIN}")


def _items(document: Document, place: Steps) -> tuple[Node, ...]:
    node = document.find(place)
    return node.items if isinstance(node, Sequence) else ()


def _differences(document: Document, plan: Plan, made: Plan) -> Iterator[Diagnostic]:
    """Where a plan is not the one that its own choices resolve to."""
    written, resolved = plan.model_dump(mode="json"), made.model_dump(mode="json")
    for target in (*written["targets"], *resolved["targets"]):
        # Told of the profile's other variants, which the plan does not have.
        del target["left_out"]
    for path, found, expected in _compare(written, resolved, ()):
        span = document.locate(path)
        if path[-1] == "pins_sha256":
            pins = document.find((*path[:-1], "pins"))
            name = pins.text if isinstance(pins, Scalar) else ""
            message = f"the pins {quoted(name)} of this ortc are not those of the plan"
            label = f"this ortc has {str(expected)[:12]}..."
            yield Diagnostic(rules.PLAN_OTHER, message, span, label, help=f"{_AGAIN}; or take the ortc that made it")
        elif path[0] in _DERIVED:
            message = f"`{path[0]}` are not those of the axes in `export.axes`"
            yield Diagnostic(rules.PLAN_INCONSISTENT, message, span, help=_AGAIN)
        else:
            message = f"`{dotted(path)}` is {_shown(found)}, and {_shown(expected)} follows from the rest of the plan"
            yield Diagnostic(rules.PLAN_INCONSISTENT, message, span, help=f"change what it follows from, or {_AGAIN}")


def _compare(found: Any, expected: Any, path: Steps) -> Iterator[tuple[Steps, Any, Any]]:
    """The innermost places where two values differ; lists of other lengths differ as a whole."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in found:
            yield from _compare(found[key], expected[key], (*path, key))
    elif isinstance(found, list) and len(found) == len(expected) and path[-1] not in _WHOLE:
        for index, (one, other) in enumerate(zip(found, expected, strict=True)):
            yield from _compare(one, other, (*path, index))
    elif found != expected:
        yield path, found, expected


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return f"`{text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + '...'}`"
