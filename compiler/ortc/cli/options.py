"""Options that several commands take."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import rich_click as click
from click import get_current_context

from ortc.common.permissions import grant

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
    """`--trust-entrypoint PACKAGE`, `--env NAME`, `--allow-http HOST`, several times: what the caller allows specs."""
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
    command = click.option(
        "--allow-http",
        "hosts",
        metavar="HOST",
        multiple=True,
        expose_value=False,
        callback=lambda _context, _option, names: grant(hosts=names),
        help="Let mirrors of this host use plain HTTP; may be repeated.",
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


def key_option(text: str) -> Callable[[Command], Command]:
    """`--key FILE`, a public key."""
    return click.option(
        "--key",
        metavar="FILE",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        help=f"A public key (PEM): {text}",
    )


def measurement_option() -> Callable[[Command], Command]:
    """`--measurement FILE`."""
    return click.option(
        "--measurement",
        metavar="FILE",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Write what the bundle measures of itself here, for `ortc attach`.",
    )


TIMED_STAGES = ("measure", "start")
"""Stages whose results are times: races, and starts."""
_REMEASURE = "--remeasure"
_ALL = "all"


_GIVEN = "ortc.arguments"


class RecordingCommand(click.RichCommand):
    """A command that can tell its arguments as they were given, see `given_arguments`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the arguments, and parse them."""
        ctx.meta[_GIVEN] = (str(ctx.info_name), *args)
        return super().parse_args(ctx, args)


def given_arguments() -> tuple[str, ...]:
    """The name and the arguments of the current command, which is a RecordingCommand."""
    found: tuple[str, ...] = get_current_context().meta[_GIVEN]
    return found


class RemeasuringCommand(RecordingCommand):
    """A command whose `--remeasure` may go without a stage, and be followed by the command's own arguments."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Give `--remeasure` the stages that it stands for where none follows."""
        return super().parse_args(ctx, list(_with_stages(args)))


def _with_stages(arguments: list[str]) -> Iterable[str]:
    options = arguments.index("--") if "--" in arguments else len(arguments)
    for index, argument in enumerate(arguments):
        follows = arguments[index + 1] if index + 1 < options else None
        is_bare = argument == _REMEASURE and index < options and follows not in (*TIMED_STAGES, _ALL)
        yield f"{_REMEASURE}={_ALL}" if is_bare else argument


def remeasure_option() -> Callable[[Command], Command]:
    """`--remeasure [STAGE]`, several times; the command's class is RemeasuringCommand."""

    def stages(_context: click.Context, _parameter: click.Parameter, value: tuple[str, ...]) -> frozenset[str]:
        return frozenset(TIMED_STAGES if _ALL in value else value)

    return click.option(
        _REMEASURE,
        "remeasured",
        type=click.Choice([*TIMED_STAGES, _ALL]),
        metavar="[STAGE]",
        multiple=True,
        callback=stages,
        help="Time again in spite of the cache, and keep the new times: `measure` (races), `start`, or both when no "
        "stage is named; may be repeated. Everything else stays cached.",
    )


def verbose_option(command: Command) -> Command:
    """`-v`: every detail before the summary."""
    text = "Show every stage as it ends, every number, and why each variant lost."
    return click.option("-v", "--verbose", "is_verbose", is_flag=True, help=text)(command)
