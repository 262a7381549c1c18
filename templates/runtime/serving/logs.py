"""What the server says: one JSON object a line, on stderr."""

from __future__ import annotations

import datetime as dt
import json
import logging
import sys
import traceback
from typing import Any


def write(level: str, event: str, **fields: Any) -> None:
    """A line of the log: when, how grave, what, and what belongs to it."""
    now = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    line = json.dumps({"time": now, "level": level, "event": event, **fields}, default=str)
    # One write: lines of several threads must not mix.
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def failed(event: str, error: BaseException, **fields: Any) -> None:
    """An error that nobody foresaw, with its traceback."""
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
        write(record.levelname.lower(), "log", **fields)


def install() -> None:
    """Send what the libraries log at WARNING and above, and Python's warnings, through `Handler`."""
    root = logging.getLogger()
    root.handlers[:] = [Handler()]
    root.setLevel(logging.WARNING)
    logging.captureWarnings(True)
