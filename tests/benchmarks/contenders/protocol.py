"""What every peer's process speaks: the JSON lines of a bundle's worker, so that one driver times them all alike.

Needs Python and numpy alone: a peer's environment holds what the peer needs and nothing of ortc.

    python run_x.py worker [OPTIONS]                            one reply a line for each request on stdin
    python run_x.py first [OPTIONS] --inputs FILE --started T   load, answer once, tell the time and the memory

OPTIONS are `--artifact`, a directory or file, `--threads` and any number of `--option name=value`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray[Any, Any]]
Run = Callable[[], np.ndarray[Any, Any]]
Prepare = Callable[[Arrays], Run]
"""From one request's inputs to a function that answers it: conversions that a caller would not pay are made once."""
Load = Callable[[Path, int, dict[str, str]], Prepare]
"""From the artifact, the number of threads and the options to a loaded model."""


def peak_rss_bytes() -> int:
    """The most memory this process held resident (VmHWM)."""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text("utf-8"), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def read_arrays(path: str) -> Arrays:
    """The arrays of an .npz file."""
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


class Server:
    """One process, one loaded model."""

    def __init__(self, prepare: Prepare, load_seconds: float) -> None:
        self.prepare = prepare
        self.load_seconds = load_seconds

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        """Write the answer to {inputs} as {outputs}, both .npz; the main output is called `output`."""
        np.savez(request["outputs"], output=self.prepare(read_arrays(request["inputs"]))())
        return {}

    def bench(self, request: dict[str, Any]) -> dict[str, Any]:
        """Milliseconds of each of {runs} answers to {inputs}, after {warmup} that do not count."""
        run = self.prepare(read_arrays(request["inputs"]))
        for _ in range(int(request["warmup"])):
            run()
        latencies = []
        for _ in range(int(request["runs"])):
            began = time.perf_counter_ns()
            run()
            latencies.append((time.perf_counter_ns() - began) / 1e6)
        return {"latencies_ms": latencies}

    def info(self, _: dict[str, Any]) -> dict[str, Any]:
        """Peak memory in bytes, load time in seconds."""
        return {"peak_rss_bytes": peak_rss_bytes(), "load_seconds": self.load_seconds}

    def reply(self, line: str) -> dict[str, Any]:
        """The reply to one request; never raises."""
        try:
            request = json.loads(line)
            return {"ok": True, "result": getattr(self, request["op"])(request)}
        except Exception as error:  # noqa: BLE001  # the boundary of the process: the driver reports it with its trace
            message = f"{type(error).__name__}: {error}"
            details = traceback.format_exc().strip().splitlines()
            return {"ok": False, "error": {"code": "internal", "message": message, "details": details}}


def main(load: Load) -> None:
    """Serve until stdin ends, or answer once. What libraries print goes to stderr; stdout carries replies alone."""
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=("worker", "first"))
    parser.add_argument("--artifact", type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--option", action="append", default=[])
    parser.add_argument("--inputs")
    parser.add_argument("--started", type=float)
    arguments = parser.parse_args()
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    began = time.perf_counter()
    prepare = load(arguments.artifact, arguments.threads, dict(entry.split("=", 1) for entry in arguments.option))
    server = Server(prepare, time.perf_counter() - began)
    if arguments.mode == "first":
        prepare(read_arrays(arguments.inputs))()
        seconds = time.monotonic() - arguments.started
        replies.write(json.dumps({"seconds": seconds, "peak_rss_bytes": peak_rss_bytes()}) + "\n")
        replies.flush()
        return
    for line in sys.stdin:
        replies.write(json.dumps(server.reply(line)) + "\n")
        replies.flush()
