"""Print the results of builds: the summary, and before it every detail where the user asked for it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ortc.cli.made import Made

_UNBOUNDED = 10_000
"""Columns where no terminal says how wide it is: logs and pipes get every line whole."""


def show_results(builds: Sequence[Made], arguments: Sequence[str], *, is_verbose: bool) -> None:
    """Print results to stdout, as wide as its terminal.

    Args:
        builds: at least one.
        arguments: those of the command, with its name; the summary repeats them where the same command is of use again.
        is_verbose: whether every detail is printed before the summary.
    """
    from rich.console import Console

    from ortc.cli.summary import summary
    from ortc.cli.table import show

    if is_verbose and (detailed := [made.report for made in builds if made.report.targets]):
        show(detailed)
        sys.stdout.write("\n")
    console = Console(file=sys.stdout, highlight=False)
    width = console.width if console.is_terminal else _UNBOUNDED
    for line in summary(builds, arguments, width, is_verbose=is_verbose):
        console.print(line, soft_wrap=True)
