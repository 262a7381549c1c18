"""Show a build on a terminal: one line per target, and a line of what is under way."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from ortc.build.progress import Progress, Step
from ortc.cli.expected_steps import ExpectedSteps, last_steps
from ortc.cli.progress import INTERRUPTED, ConsoleProgress, ended_by
from ortc.common.units import count

if TYPE_CHECKING:
    from ortc.plan.plan import Plan

_SHARED = "model"
_REFRESHES = 4
"""Per second."""


def progress_of_build(title: str, plan: Plan, output: Path, *, is_verbose: bool) -> Progress:
    """Show a build on stderr: live on a terminal, every stage as a line in logs and where the user asks for it."""
    console = Console(file=sys.stderr, highlight=False)
    if is_verbose or not console.is_terminal or console.is_dumb_terminal or os.environ.get("CI"):
        return ConsoleProgress(title)
    targets = tuple(target.name for target in plan.targets)
    return LiveProgress(console, title, last_steps(output / plan.name, targets))


class LiveProgress(Progress):
    """Parts of a build as they end, and the step under way with the time that passed and the time that is left.

    Args:
        console: a terminal.
        title: what is built.
        expected: the steps of the last build.
    """

    def __init__(self, console: Console, title: str, expected: ExpectedSteps) -> None:
        super().__init__()
        self._console = console
        self._expected = expected
        self._width = max(map(len, (_SHARED, *expected.targets)))
        self._part: str | None = None
        self._part_began = time.monotonic()
        self._done: dict[tuple[str, str], float | None] = {}
        self._open: list[tuple[Step, float]] = []
        # Steps may run at the same time.
        self._lock = threading.RLock()
        console.print(Text(title, style="bold"), soft_wrap=True)
        self._live = Live(_Line(self), console=console, refresh_per_second=_REFRESHES, transient=True)
        self._live.start()

    def started(self, step: Step) -> None:
        with self._lock:
            self._open.append((step, time.monotonic()))

    def ended(self, step: Step, seconds: float) -> None:
        with self._lock:
            # Not by value: another step may be about the same.
            self._open = [(other, began) for other, began in self._open if other is not step]
            if self._expected.part_of(step.subject) == self._part:
                self._done[step.stage, step.subject] = None if step.cached else seconds

    def part_started(self, name: str) -> None:
        with self._lock:
            if self._part is None:
                self._end_part("done")
            self._part, self._part_began, self._done = name, time.monotonic(), {}

    def part_ended(self, name: str, seconds: float) -> None:
        raised = sys.exc_info()[1]
        with self._lock:
            outcome = "done" if raised is None else ended_by(raised)
            self._end_part(outcome)
            if outcome == INTERRUPTED:
                self._console.print("  finished steps are kept: the same command continues after them", style="dim")
            self._part = name

    def note(self, text: str) -> None:
        self._console.print(Text.assemble(("  note  ", "yellow"), text), soft_wrap=True)

    def close(self) -> None:
        """Take the line of what is under way away."""
        self._live.stop()

    def _end_part(self, outcome: str) -> None:
        line = Text(f"  {self._name():<{self._width}}  {outcome} in {_clock(time.monotonic() - self._part_began)}")
        self._console.print(line.append(f"  {count(len(self._done), 'step')}", style="dim"), soft_wrap=True)

    def _name(self) -> str:
        return _SHARED if self._part is None else self._part

    def line(self) -> Text:
        """The part and the step under way."""
        with self._lock:
            now = time.monotonic()
            facts = [_clock(now - self._part_began)]
            if self._part in self._expected.targets:
                facts.append(f"target {self._expected.targets.index(self._part) + 1} of {len(self._expected.targets)}")
            done, expected = len(self._done), len(self._expected.seconds.get(self._part, ()))
            if self._open:
                step, began = self._open[-1]
                facts.append(f"step {done + 1} of {expected}" if done < expected else f"step {done + 1}")
                left = self._expected.left(self._part, self._done)
                if left is not None and round(left - (now - began)) > 0:
                    facts.append(f"about {_clock(left - (now - began))} left")
                facts.append(f"{step.stage} {step.subject.removeprefix(f'{self._part}: ')}")
            return Text.assemble((f"  {self._name():<{self._width}}  ", "bold"), "  ".join(facts))


class _Line:
    """The line of what is under way; never wider than the terminal, where it would leave remains."""

    def __init__(self, progress: LiveProgress) -> None:
        self._progress = progress

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        line = self._progress.line()
        line.truncate(max(1, options.max_width - 1), overflow="ellipsis")
        yield line


def _clock(seconds: float) -> str:
    """Minutes and seconds, with hours where there are any."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
