"""From the path of a spec, or of a plan, to the plan; warnings go to stderr."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ortc.cli.report import use_color, write
from ortc.common.suggest import closest

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from ortc.plan.checks import CheckedSpec
    from ortc.plan.plan import Plan, Search
    from ortc.spec.diagnostics.diagnostic import Diagnostic
    from ortc.spec.profile import TargetProfile


def prepare(
    path: Path,
    overrides: tuple[str, ...],
    targets: tuple[str, ...],
    *,
    search: Search = "full",
    variant: str | None = None,
) -> tuple[Plan, Path]:
    """The plan of a spec and the root that its paths resolve against.

    Raises:
        SpecError: the spec, a profile or the combination of both is invalid.
        UsageError: it has no target or variant of that name.
    """
    from ortc.plan.resolve import resolve

    checked = checked_spec(path, overrides, targets, variant)
    return resolve(checked.loaded.spec, checked.profiles, targets, search=search, variant=variant), checked.loaded.root


def checked_spec(
    path: Path, overrides: tuple[str, ...], targets: tuple[str, ...], variant: str | None = None
) -> CheckedSpec:
    """Read a spec with its profiles, once every check has passed.

    Raises:
        SpecError: the spec, a profile or the combination of both is invalid.
        UsageError: it has no target or variant of that name.
    """
    from ortc.plan.checks import check_spec

    checked = check_spec(path, overrides)
    _warn(checked.warnings)
    _known(path, targets, checked.loaded.spec.targets)
    if variant is not None:
        _known_variant(variant, {name: checked.profiles[name] for name in targets or checked.loaded.spec.targets})
    return checked


def prepare_plan(path: Path, targets: tuple[str, ...]) -> tuple[Plan, Path]:
    """The plan in a file, or on stdin for `-`, and the root that its paths resolve against.

    That root is the project of the current directory, as that of a spec is the project of its own: a plan travels, and
    means the checkout that it is built in.

    Raises:
        SpecError: the plan is not one that this ortc makes.
        UsageError: it has no target of that name.
    """
    from ortc.plan.checks.plan import check_plan
    from ortc.spec.boundary import project_root
    from ortc.spec.syntax.text import PLAN

    root = project_root(Path.cwd() / "plan")
    checked = check_plan(sys.stdin.buffer.read(PLAN.most_bytes + 1) if str(path) == "-" else path, root)
    _warn(checked.warnings)
    _known(path, targets, [target.name for target in checked.plan.targets])
    return checked.plan.slice(*targets) if targets else checked.plan, root


def _warn(warnings: tuple[Diagnostic, ...]) -> None:
    from ortc.spec.diagnostics.diagnostic import render_text

    if warnings:
        write(render_text(warnings, color=use_color()) + "\n")


def _known(path: Path, targets: tuple[str, ...], known: Collection[str]) -> None:
    for name in targets:
        if name not in known:
            meant = closest(name, known)
            guess = "" if meant is None else f" (did you mean `{meant}`?)"
            raise click.UsageError(f"{path} has no target `{name}`{guess}; it has {', '.join(known)}")


def _known_variant(variant: str, profiles: dict[str, TargetProfile]) -> None:
    from ortc.plan.precision_mix import MIXED, is_asked_for

    for target, profile in profiles.items():
        if any(is_asked_for(variant, entry) for entry in profile.variants):
            continue
        mixes = [f"{entry.name}{MIXED}" for entry in profile.variants if entry.fallback]
        if variant.removesuffix(MIXED) in (whole := [entry.name for entry in profile.variants]):
            others = f"; mixes are {', '.join(mixes)}" if mixes else ""
            raise click.UsageError(
                f"target `{target}` has no `{variant}`: its profile gives `{variant.removesuffix(MIXED)}` no "
                f"`fallback`, a precision to keep its worst nodes in{others}"
            )
        raise click.UsageError(
            f"target `{target}` has no variant `{variant}`; its profile has {', '.join([*whole, *mixes])} (choose a "
            "target with -t)"
        )


def search_options(command: Callable[..., int]) -> Callable[..., int]:
    """The options that say how far to look for the best variant."""
    command = click.option(
        "--variant",
        metavar="NAME",
        help="Try this variant of the profile alone; NAME-mixed, with its worst nodes in higher precision as far as "
        "accuracy needs that.",
    )(command)
    return click.option(
        "--search",
        type=click.Choice(["full", "quick", "none"]),
        default="full",
        show_default=True,
        help="Race every variant and check the whole shape matrix; check its corners only; or take the first variant.",
    )(command)
