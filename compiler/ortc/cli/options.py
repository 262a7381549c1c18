"""Options that several commands take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import rich_click as click

from ortc.permissions import grant

Command = TypeVar("Command", bound=Callable[..., Any])


def target_option(verb: str) -> Callable[[Command], Command]:
    """`-t TARGET`, several times; `verb` is what happens to the targets."""
    return click.option("-t", "--target", "targets", multiple=True, help=f"{verb} only this target; may be repeated.")


def output_option(text: str) -> Callable[[Command], Command]:
    """`-o DIRECTORY`, where bundles lie."""
    return click.option(
        "-o",
        "--output",
        type=click.Path(path_type=Path, file_okay=False),
        default=Path("dist"),
        show_default=True,
        help=text,
    )


def set_option(of: str = "the spec") -> Callable[[Command], Command]:
    """`--set KEY.PATH=VALUE`, several times."""
    text = f"Replace a value of {of}; may be repeated."
    return click.option("--set", "overrides", metavar="KEY.PATH=VALUE", multiple=True, help=text)


def trust_options(command: Command) -> Command:
    """`--trust-entrypoint PACKAGE` and `--env NAME`, several times: what the caller allows specs."""
    command = click.option(
        "--env",
        "variables",
        metavar="NAME",
        multiple=True,
        expose_value=False,
        callback=lambda _context, _option, names: grant(variables=names),
        help="Let specs refer to this variable of the environment; may be repeated. Those that begin with ORTC_ are "
        "allowed, but for ortc's own settings.",
    )(command)
    return click.option(
        "--trust-entrypoint",
        "packages",
        metavar="PACKAGE",
        multiple=True,
        expose_value=False,
        callback=lambda _context, _option, names: grant(packages=names),
        help="Let specs name functions of this installed package as entry points; may be repeated.",
    )(command)


def measurement_option() -> Callable[[Command], Command]:
    """`--measurement FILE`."""
    return click.option(
        "--measurement",
        metavar="FILE",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Write what the bundle measures of itself here, for `ortc attach`.",
    )
