"""The protocol of all workers: serve operations over JSON lines on stdin and stdout.

One request per line, `{"op": NAME, …}`, and one reply per line, `{"ok": true, "result": …}` or
`{"ok": false, "error": {"code", "message", "help", "details"}}`. A worker ends when its stdin does. A bundle's own
programs (`templates/runtime/loader.py`, `machine.py`) speak it without this module. The compiler's side is
`ortc.execution.worker_process`. Needs the standard library alone: workers run in environments without ortc, too.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from ortc.common.errors import OrtcError

Json = dict[str, Any]
Operations = Mapping[str, Callable[[Json], Json]]


class CodedError(OrtcError):
    """An operation fails with a code of its own, as the loaders of bundles do."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


INTERNAL = "internal"
"""The code of an error that nobody foresaw: a bug, with its trace as details."""


def reply(operations: Operations, line: str) -> Json:
    """The reply to one request line; never raises."""
    try:
        request = json.loads(line)
        return {"ok": True, "result": operations[request["op"]](request)}
    except OrtcError as error:
        fields = {"message": error.message, "help": error.help, "details": list(error.details)}
        code = error.code if isinstance(error, CodedError) else type(error).__name__
        return {"ok": False, "error": {"code": code, **fields}}
    except Exception as error:  # noqa: BLE001  # the boundary of the process: the compiler reports it with its trace
        trace = traceback.format_exc().strip().splitlines()
        message = f"{type(error).__name__}: {error}".strip()
        return {"ok": False, "error": {"code": INTERNAL, "message": message, "help": None, "details": trace}}


def serve(operations: Operations) -> None:
    """Serve until stdin ends. Whatever libraries print goes to stderr; stdout carries replies alone."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        if line.strip():
            replies.write(json.dumps(reply(operations, line)) + "\n")
            replies.flush()
