"""From the path of a spec to its plan; warnings go to stderr."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ortc.cli.report import use_color, write

if TYPE_CHECKING:
    from ortc.plan import Plan


def prepare(path: Path, overrides: tuple[str, ...], targets: tuple[str, ...]) -> tuple[Plan, Path]:
    """The plan of a spec and the root that its paths resolve against.

    Raises:
        SpecError: the spec, a profile or the combination of both is invalid.
        UsageError: it has no target of that name.
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
    return resolve(spec, checked.profiles, targets), checked.loaded.root
