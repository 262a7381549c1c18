"""Two states of a spec: what each says with all defaults filled in, what each comes to, and what a build does again."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ortc.common.errors import OrtcError, UsageError
from ortc.diff.report import Section, SpecDiff, StageChange
from ortc.diff.sides import SpecAt
from ortc.diff.stages import compare_stages, foresee
from ortc.diff.values import Change, changes
from ortc.plan.checks import check_spec
from ortc.plan.plan import Plan
from ortc.plan.resolve import resolve
from ortc.spec.deployment import Spec
from ortc.spec.diagnostics.diagnostic import Diagnostic
from ortc.spec.diagnostics.errors import SpecError
from ortc.spec.migration import migrations


@dataclass(frozen=True)
class LoadedSide:
    """A spec that passed every check, its plan, and what its relative paths start from."""

    label: str
    spec: Spec
    plan: Plan
    root: Path
    warnings: tuple[Diagnostic, ...]


def load(side: SpecAt, stack: ExitStack, targets: tuple[str, ...] = ()) -> LoadedSide:
    """The spec of a side; with what it inherits, and all that lies beside it, as they are at its revision.

    Args:
        side: where it lies.
        stack: keeps the files of a revision as long as they are needed.
        targets: names of the targets to plan; all when empty.

    Raises:
        SpecError: the spec is not valid; messages name the files as REV:PATH.
        UsageError: it has none of the targets.
    """
    path, shown = side.path, None
    if side.repository is not None and side.commit is not None:
        tree = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ortc-diff-"))) / "tree"
        tree.mkdir()
        side.repository.checkout(side.commit, tree)
        path = tree / side.path
        _in_present_spelling(path)
        shown = (f"{tree}/", f"{side.revision}:")
    try:
        # Weights of a revision may be pointers to elsewhere: what follows from the rest is told all the same.
        checked = check_spec(path, with_digests=False)
    except SpecError as error:
        raise SpecError(_renamed(diagnostic, shown) for diagnostic in error.diagnostics) from None
    spec = checked.loaded.spec
    wanted = tuple(name for name in targets if name in spec.targets)
    if targets and not wanted:
        raise UsageError(f"{side.label} has none of these targets; it has {', '.join(spec.targets)}")
    return LoadedSide(
        label=side.label,
        spec=spec,
        plan=resolve(spec, checked.profiles, wanted),
        root=checked.loaded.root,
        warnings=tuple(_renamed(diagnostic, shown) for diagnostic in checked.warnings),
    )


def _in_present_spelling(path: Path) -> None:
    """Rewrite profiles of a revision, in its copy, that the language has moved on from."""
    try:
        for entry in migrations(path):
            if entry.is_needed:
                entry.write()
    except SpecError:
        return  # what is wrong with the files is reported when they are checked


def _renamed(diagnostic: Diagnostic, shown: tuple[str, str] | None) -> Diagnostic:
    """The same with the files of a revision called by it, and not by the directory they were written to."""
    if shown is None:
        return diagnostic

    def text(value: str) -> str:
        return value.replace(*shown)

    def moved(span: Any) -> Any:
        return None if span is None else replace(span, source=replace(span.source, name=text(span.source.name)))

    return replace(
        diagnostic,
        message=text(diagnostic.message),
        label=text(diagnostic.label),
        help=None if diagnostic.help is None else text(diagnostic.help),
        span=moved(diagnostic.span),
        related=tuple(replace(item, span=moved(item.span), label=text(item.label)) for item in diagnostic.related),
    )


def compare_specs(before: LoadedSide, after: LoadedSide) -> SpecDiff:
    """Every difference of two specs and of all that follows from it.

    The stages are those that a build of `after` does again on this host where `before` was built; each of them is
    taken to succeed.
    """
    unknown: str | None = None
    stages: tuple[StageChange, ...] = ()
    files: tuple[Change, ...] = ()
    try:
        with ExitStack() as stack:
            works = [Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ortc-diff-"))) for _ in range(2)]
            old, new = (foresee(side.plan, side.root, work) for side, work in zip((before, after), works, strict=True))
        stages = compare_stages(old.stages, new.stages)
        files = tuple(changes(old.ingredients, new.ingredients))
    except OrtcError as error:
        unknown = error.message
    said = tuple(_spec_changes(before, after))
    follows = tuple(_plan_changes(before.plan, after.plan, said))
    sections = [Section(name="spec", changes=said), Section(name="files", changes=files)]
    sections.append(Section(name="plan", changes=follows))
    return SpecDiff(
        before=before.label,
        after=after.label,
        same=not any(section.changes for section in sections) and not any(stage.anew for stage in stages),
        sections=tuple(section for section in sections if section.changes),
        stages=stages,
        stages_unknown=unknown,
    )


def _spec_changes(before: LoadedSide, after: LoadedSide) -> Iterator[Change]:
    """What the two say; where a spec starts from (`base`) is how it says it, and not what."""
    kept = {name for side in (before, after) for name in (target.name for target in side.plan.targets)}
    documents: list[Any] = []
    for side in (before, after):
        document = side.spec.model_dump(mode="json", by_alias=True, exclude={"base"})
        document["targets"] = {name: target for name, target in document["targets"].items() if name in kept}
        documents.append(document)
    yield from changes(documents[0], documents[1])


def _plan_changes(before: Plan, after: Plan, said: tuple[Change, ...]) -> Iterator[Change]:
    """What the plans differ in besides what the specs say themselves."""
    known = {(change.path, str(change.before), str(change.after)) for change in said}
    for change in changes(_plan_data(before), _plan_data(after)):
        if (change.path, str(change.before), str(change.after)) not in known:
            yield change


def _plan_data(plan: Plan) -> dict[str, Any]:
    document = plan.model_dump(mode="json")
    # By their names: a case more is not a change of all that come after it.
    document["cases"] = {str(case): "checked" for case in plan.cases}
    document["skipped_cases"] = {str(case.shape): case.reason for case in plan.skipped_cases}
    return document
