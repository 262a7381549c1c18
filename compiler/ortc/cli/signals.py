"""Signals that end a command: it clears up first, whichever signal it is."""

from __future__ import annotations

import contextlib
import functools
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_BY_DEFAULT = (signal.SIG_DFL, signal.default_int_handler)


def tidy(command: Callable[P, T]) -> Callable[P, T]:
    """Let a command remove its temporary files when SIGTERM or SIGHUP ends it, as Ctrl-C does."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        with clearing_up():
            return command(*args, **kwargs)

    return run


@contextlib.contextmanager
def clearing_up() -> Iterator[None]:
    """Turn signals that end the process into exceptions; those that come while it clears up change nothing.

    Signals that somebody ignores or handles stay as they are; so do all of them outside of the main thread.

    Raises:
        KeyboardInterrupt: at SIGINT.
        SystemExit: at SIGTERM and SIGHUP, with 128 and the number of the signal.
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
            raise KeyboardInterrupt
        sys.stderr.write(f"ended by {signal.Signals(number).name}\n")
        raise SystemExit(128 + number)

    for number in taken:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, before[number])
