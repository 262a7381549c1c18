"""The server's log: one JSON object per line on stderr, bounded in rate and never in the way of a request."""

from __future__ import annotations

import atexit
import contextlib
import datetime as dt
import io
import json
import logging
import os
import stat
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any

MOST_BUFFERED_BYTES = 2**20  # lines that wait for a reader of stderr; more are dropped, and counted
BURST, PER_SECOND = 20, 5.0  # equal lines: so many at once, and so many per second after that
LONGEST_FIELD, LONGEST_TRACEBACK = 512, 16384  # characters
MOST_KINDS = 1000  # of lines, whose rates are remembered
SUMMARY_SECONDS = 5.0  # after which suppressed lines are reported, even if no further line of their kind comes
FLUSH_SECONDS = 1.0  # at the end, for a reader who does not read


class Rates:
    """A token bucket per kind of line, so that a flood of equal lines becomes a few lines and a number."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._kinds: dict[tuple[object, ...], tuple[float, float, int]] = {}  # tokens, when they were, suppressed

    def admit(self, kind: tuple[object, ...]) -> int | None:
        """The lines of this kind that were suppressed since the last one; None if this line is suppressed, too."""
        now = self._clock()
        with self._lock:
            tokens, when, suppressed = self._kinds.get(kind, (float(BURST), now, 0))
            tokens = min(float(BURST), tokens + (now - when) * PER_SECOND)
            if tokens < 1:
                self._kinds[kind] = tokens, now, suppressed + 1
                return None
            if len(self._kinds) >= MOST_KINDS and kind not in self._kinds:
                self._kinds.clear()
            self._kinds[kind] = tokens - 1, now, 0
            return suppressed

    def take_suppressed(self) -> list[tuple[tuple[object, ...], int]]:
        """Every kind with suppressed lines and their number, which begins again at 0."""
        with self._lock:
            found = [(kind, suppressed) for kind, (_, _, suppressed) in self._kinds.items() if suppressed]
            for kind, _ in found:
                tokens, when, _ = self._kinds[kind]
                self._kinds[kind] = tokens, when, 0
        return found


class Writer:
    """Writes lines to a file descriptor from a thread of its own: `put` never waits for the reader."""

    def __init__(self, descriptor: int) -> None:
        """Start the thread."""
        self._descriptor = descriptor
        self._lines: deque[bytes] = deque()
        self._bytes = self._dropped = 0
        self._busy = False
        self._changed = threading.Condition(threading.Lock())
        self.dropped_total = 0
        threading.Thread(target=self._work, name="log", daemon=True).start()

    def put(self, line: str) -> None:
        """Queue a line; drop it if the reader is too far behind."""
        content = line.encode("utf-8", "backslashreplace")
        with self._changed:
            if self._bytes + len(content) > MOST_BUFFERED_BYTES:
                self._dropped += 1
                self.dropped_total += 1
                return
            self._lines.append(content)
            self._bytes += len(content)
            self._changed.notify_all()

    def flush(self, seconds: float = FLUSH_SECONDS) -> None:
        """Wait until all lines are written, for at most `seconds`."""
        with self._changed:
            self._changed.wait_for(lambda: not self._lines and not self._busy, seconds)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                summarised = self._changed.wait_for(lambda: self._lines or self._dropped, SUMMARY_SECONDS)
                content = b"".join(self._lines)
                dropped, self._dropped = self._dropped, 0
                self._lines.clear()
                self._busy = True
            if dropped:
                content += _line("warning", "log-dropped", {"lines": dropped}).encode()
            try:
                self._write(content)
            except OSError:  # the reader is gone: there is nobody left to report to
                with self._changed:
                    self._dropped = 0
            with self._changed:
                self._bytes = sum(map(len, self._lines))
            if not summarised:
                report_suppressed()

    def _write(self, content: bytes) -> None:
        view = memoryview(content)
        while view:
            view = view[os.write(self._descriptor, view) :]


_rates = Rates()
_writer: Writer | None = None


def dropped_lines() -> int:
    """Lines that were dropped because nobody read stderr fast enough."""
    return 0 if _writer is None else _writer.dropped_total


def write(level: str, event: str, **fields: Any) -> None:
    """Write a line: time, level, event and the fields of the event.

    Lines of equal level, event, status and kind are bounded in rate; `suppressed` is the number left out before a line.
    Requests answered with 200 are only logged where all were asked for, and are not suppressed.
    """
    if fields.get("status") != 200:
        kind = (level, event, fields.get("status"), fields.get("kind"), fields.get("template"))
        suppressed = _rates.admit(kind)
        if suppressed is None:
            return
        if suppressed:
            fields["suppressed"] = suppressed
    fields.pop("template", None)
    _put(_line(level, event, fields))


def report_suppressed() -> None:
    """Write one line for each kind whose last lines were suppressed."""
    for (level, event, status, kind, _), count in _rates.take_suppressed():
        about = {name: value for name, value in (("of", event), ("status", status), ("kind", kind)) if value}
        _put(_line(str(level), "log-suppressed", {**about, "suppressed": count}))


def _put(line: str) -> None:
    if _writer is not None:
        _writer.put(line)
    else:
        # One write: lines of several threads must not mix.
        sys.stderr.write(line)
        sys.stderr.flush()


def _line(level: str, event: str, fields: dict[str, Any]) -> str:
    now = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    bounded = {name: _bounded(name, value) for name, value in fields.items()}
    return json.dumps({"time": now, "level": level, "event": event, **bounded}, default=str) + "\n"


def _bounded(name: str, value: object) -> object:
    most = LONGEST_TRACEBACK if name in ("traceback", "error", "message") else LONGEST_FIELD
    return value if not isinstance(value, str) or len(value) <= most else value[:most] + "..."


def failed(event: str, error: BaseException, **fields: Any) -> None:
    """Write an unexpected error with its traceback."""
    write(
        "error",
        event,
        error=f"{type(error).__name__}: {error}",
        traceback="".join(traceback.format_exception(error)),
        **fields,
    )


class Handler(logging.Handler):
    """Lines of the libraries (uvicorn, asyncio) in the same form."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        fields: dict[str, Any] = {"logger": record.name, "message": record.getMessage()}
        if record.exc_info and record.exc_info[1] is not None:
            fields["traceback"] = "".join(traceback.format_exception(record.exc_info[1]))
        template = (record.name, record.pathname, record.lineno)
        write(record.levelname.lower(), "log", template=template, **fields)


class _Stderr(io.TextIOBase):
    """Takes what other code prints to stderr, whole lines at a time."""

    encoding = "utf-8"

    def __init__(self, writer: Writer) -> None:
        self._writer, self._part = writer, ""

    def write(self, text: str) -> int:
        """Queue the lines that are complete."""
        *lines, self._part = (self._part + text).split("\n")
        for line in lines:
            self._writer.put(line + "\n")
        return len(text)

    def flush(self) -> None:
        """Do nothing: the thread writes without being asked."""


def install() -> None:
    """Send what the libraries log at WARNING and above, Python's warnings and stderr through the thread that writes."""
    global _writer
    root = logging.getLogger()
    root.handlers[:] = [Handler()]
    root.setLevel(logging.WARNING)
    logging.captureWarnings(True)
    if _writer is None:
        _writer = Writer(os.dup(2))
        _never_wait(2)
        sys.stderr = _Stderr(_writer)
        atexit.register(close)


def close() -> None:
    """Report what was suppressed, and write what waits, as far as somebody reads."""
    if _writer is not None:
        report_suppressed()
        _writer.flush()


def _never_wait(descriptor: int) -> None:
    """Let native code write to a full pipe without waiting; its text is lost instead.

    The pipe is opened a second time, so that no other process that shares it is affected.
    """
    if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        return
    with contextlib.suppress(OSError):  # of another user: native code may wait, as it does in any program
        again = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK)
        os.dup2(again, descriptor)
        os.close(again)
