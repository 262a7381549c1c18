"""What a command costs: its time, and the memory of all its processes."""

from __future__ import annotations

import io
import math
import os
import re
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

POLL_SECONDS = 0.05
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "ORT_DISABLE_TELEMETRY": "1",
    "OLIVE_DISABLE_TELEMETRY": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}
"""Variables of every process: no network while something is measured."""


@dataclass(frozen=True)
class Cost:
    """A command's wall time in seconds, and bytes resident in all its processes at once, as polled.

    Attributes:
        memory: (seconds since the start, bytes) of every poll.
        lines: (seconds since the start, text) of what it said.
    """

    seconds: float
    exit_code: int
    memory: tuple[tuple[float, int], ...]
    lines: tuple[tuple[float, str], ...]

    def peak(self, begin: float = 0.0, end: float = math.inf) -> int | None:
        """Most bytes between two times; None when nothing was polled in between."""
        return max((size for at, size in self.memory if begin <= at <= end), default=None)

    def tail(self) -> str:
        """The last lines it said."""
        return "\n".join(text for _, text in self.lines[-15:])


def run_counted(command: list[str], *, directory: Path, variables: dict[str, str], log: Path) -> Cost:
    """Run a command to its end and count its cost. Memory that processes share is counted in each."""
    began = time.monotonic()
    memory: list[tuple[float, int]] = []
    lines: list[tuple[float, str]] = []
    process = subprocess.Popen(
        command,
        cwd=directory,
        env={**os.environ, **QUIET, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    ended = threading.Event()

    def poll() -> None:
        while not ended.wait(POLL_SECONDS):
            memory.append((time.monotonic() - began, _tree_rss(process.pid)))

    poller = threading.Thread(target=poll)
    poller.start()
    try:
        with log.open("w", encoding="utf-8") as file, process.stdout or io.StringIO() as said:
            for line in said:
                lines.append((time.monotonic() - began, line.rstrip()))
                file.write(line)
                file.flush()
        code = process.wait()
    finally:
        ended.set()
        poller.join()
    return Cost(time.monotonic() - began, code, tuple(memory), tuple(lines))


def _tree_rss(root: int) -> int:
    """Resident bytes of a process and all its descendants."""
    parents: dict[int, list[int]] = {}
    resident: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            status = (entry / "status").read_text("utf-8", errors="replace")
        except OSError:  # it ended between the listing and the reading
            continue
        parent = re.search(r"^PPid:\s+(\d+)", status, re.MULTILINE)
        size = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
        if parent is not None:
            parents.setdefault(int(parent[1]), []).append(int(entry.name))
            resident[int(entry.name)] = int(size[1]) * 1024 if size else 0
    total, pending = 0, [root]
    while pending:
        process = pending.pop()
        total += resident.get(process, 0)
        pending += parents.get(process, [])
    return total
