"""Show stages on stderr as they end, with a spinner on a terminal."""

from __future__ import annotations

import sys
import threading

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from ortc.build.progress import Progress, Step

_FAILED, INTERRUPTED = "failed", "interrupted"


class ConsoleProgress(Progress):
    """Stages as they end, and the one under way where the terminal can show it."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self._console = Console(file=sys.stderr, highlight=False, soft_wrap=True)
        self._status: Status | None = None
        self._open: list[Step] = []
        # Steps may run at the same time.
        self._lock = threading.RLock()
        self._console.print(f"[bold]{escape(title)}[/bold]")

    def started(self, step: Step) -> None:
        with self._lock:
            self._open.append(step)
            self._show()

    def ended(self, step: Step, seconds: float) -> None:
        raised = sys.exc_info()[1]
        outcome = _outcome(step, seconds) if raised is None else _colored(ended_by(raised))
        with self._lock:
            # Not by value: another step may be about the same.
            self._open = [other for other in self._open if other is not step]
            self._console.print(f"  {step.stage:<13} {escape(step.subject)}  [dim]{outcome}[/dim]")
            self._show()

    def note(self, text: str) -> None:
        with self._lock:
            self._console.print("  [yellow]note[/yellow]         ", end="")
            self._console.print(text, markup=False)

    def close(self) -> None:
        """Stop the spinner."""
        if self._status is not None:
            self._status.stop()
            self._status = None

    def _show(self) -> None:
        if not self._console.is_terminal:
            return
        self.close()
        if self._open:
            self._status = self._console.status(f"{self._open[-1].stage}: {escape(self._open[-1].subject)}")
            self._status.start()


def ended_by(raised: BaseException) -> str:
    """How a step ended that gave no result: a signal, as Ctrl-C sends one, is no failure of the step."""
    return _FAILED if isinstance(raised, Exception) else INTERRUPTED


def _colored(outcome: str) -> str:
    return f"[red]{outcome}[/red]" if outcome == _FAILED else f"[yellow]{outcome}[/yellow]"


def _outcome(step: Step, seconds: float) -> str:
    if not step.cached:
        return f"{seconds:.1f} s, noisy" if step.noisy else f"{seconds:.1f} s"
    return f"cached (remote), {seconds:.1f} s" if step.remote else "cached"
