"""Signals that end a command: it clears up first, whichever signal it is."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_BY_DEFAULT = (signal.SIG_DFL, signal.default_int_handler)


class Ended(BaseException):
    """A signal has ended the command; `exit_code` is 128 and its number. No `except Exception` catches it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


@contextlib.contextmanager
def clearing_up() -> Iterator[None]:
    """Turn signals that end the process into exceptions; those that come while it clears up change nothing.

    Signals that somebody ignores or handles stay as they are; so do all of them outside of the main thread.

    Raises:
        Ended: at SIGINT, SIGTERM and SIGHUP. Not KeyboardInterrupt or SystemExit, which a user's function may raise.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _ENDING}
    taken = [number for number, handler in before.items() if handler in _BY_DEFAULT]

    def end(number: int, _frame: FrameType | None) -> None:
        for other in taken:
            signal.signal(other, signal.SIG_IGN)
        if number == signal.SIGINT:
            sys.stderr.write("interrupted\n")
        else:
            sys.stderr.write(f"ended by {signal.Signals(number).name}\n")
            # A terminal interrupts the helpers of a command itself; nobody else does.
            _interrupt(*_descendants(os.getpid()))
        raise Ended(number)

    for number in taken:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, before[number])


def _descendants(process: int) -> list[int]:
    """The processes that a process has started, and those that these have; none where the system does not tell."""
    found: list[int] = []
    for children in Path(f"/proc/{process}/task").glob("*/children"):
        # Either may have ended meanwhile.
        with contextlib.suppress(OSError):
            for child in map(int, children.read_text("ascii").split()):
                found += [child, *_descendants(child)]
    return found


def _interrupt(*processes: int) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(process, signal.SIGINT)
