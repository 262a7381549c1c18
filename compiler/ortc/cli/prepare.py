"""From the path of a spec to its plan; warnings go to stderr."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ortc.cli.report import use_color, write

if TYPE_CHECKING:
    from collections.abc import Callable

    from ortc.plan import Plan, Search
    from ortc.target import TargetProfile


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
    from ortc.checks import check_spec
    from ortc.diagnostics import render_text
    from ortc.resolve import resolve

    checked = check_spec(path, overrides)
    if checked.warnings:
        write(render_text(checked.warnings, color=use_color()) + "\n")
    spec = checked.loaded.spec
    for name in targets:
        if name not in spec.targets:
            raise click.UsageError(f"{path} has no target `{name}`; it has {', '.join(spec.targets)}")
    if variant is not None:
        _known_variant(variant, {name: checked.profiles[name] for name in targets or spec.targets})
    return resolve(spec, checked.profiles, targets, search=search, variant=variant), checked.loaded.root


def _known_variant(variant: str, profiles: dict[str, TargetProfile]) -> None:
    for target, profile in profiles.items():
        names = [entry.name for entry in profile.variants]
        if variant not in names:
            raise click.UsageError(
                f"target `{target}` has no variant `{variant}`; its profile has {', '.join(names)} (choose a target "
                "with -t)"
            )


def search_options(command: Callable[..., int]) -> Callable[..., int]:
    """The options that say how far to look for the best variant."""
    command = click.option("--variant", metavar="NAME", help="Try this variant of the profile alone.")(command)
    return click.option(
        "--search",
        type=click.Choice(["full", "quick", "none"]),
        default="full",
        show_default=True,
        help="Race every variant and check the whole shape matrix; check its corners only; or take the first variant.",
    )(command)
