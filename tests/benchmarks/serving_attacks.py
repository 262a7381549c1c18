"""Real clients beside attacks: `python tests/benchmarks/serving_attacks.py BUNDLE [--seconds N] [--output FILE]`.

The server has one core, clients and attackers another. Clients ask 100 times per second, each time over a new
connection. For each attack the result has their p99 with and without it, the longest time without an answer of 200, and
the memory that the server took at most. Attacks go to 127.0.0.1, and end with their part of the run.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.support import attacks
from tests.support.bundles import runtime_module
from tests.support.serving import Running, binary_body, read_until_serving

RATE = 100.0  # requests of real clients per second
DESCRIPTORS = 1024
MIB = 2**20
DATATYPES = {"int64": "INT64", "float32": "FP32"}
Attack = Callable[[], AbstractContextManager[object]]


@dataclass
class Beside:
    """What real clients saw beside one attack. Seconds, but for the milliseconds of latencies."""

    latencies: list[float] = field(default_factory=list)
    statuses: dict[str, int] = field(default_factory=dict)
    refused_seconds: float = 0.0
    peak_mib: float = 0.0

    def summary(self) -> dict[str, Any]:
        """The numbers of the result."""
        return {
            "requests": len(self.latencies),
            "p50_ms": round(float(np.percentile(self.latencies, 50)) * 1000, 2),
            "p99_ms": round(float(np.percentile(self.latencies, 99)) * 1000, 2),
            "statuses": self.statuses,
            "longest_refusal_seconds": round(self.refused_seconds, 3),
            "peak_rss_mib": round(self.peak_mib, 1),
        }


class Target:
    """A server with a request to it."""

    def __init__(self, running: Running, manifest: dict[str, Any]) -> None:
        self.running, self.path = running, f"/v2/models/{manifest['name']}/infer"
        arrays = {}
        for tensor in manifest["inputs"]:
            shape = [1 if isinstance(size, str) else size for size in tensor["shape"]]
            arrays[tensor["name"]] = np.ones(shape, tensor["dtype"])
        names = {tensor["name"]: DATATYPES[tensor["dtype"]] for tensor in manifest["inputs"]}
        self.content, length = binary_body(arrays, names)
        self.headers = {"Inference-Header-Content-Length": length}
        self.first, self.datatype = next(iter(names.items()))

    def ask(self) -> str:
        """The status of one request over a new connection; the error of one that has none."""
        connection = http.client.HTTPConnection("127.0.0.1", self.running.port, timeout=10)
        with contextlib.closing(connection):
            try:
                connection.request("POST", self.path, self.content, self.headers)
                response = connection.getresponse()
                response.read()
            except OSError as error:
                return type(error).__name__
            return str(response.status)

    def resident_mib(self) -> float:
        """Resident memory of the server."""
        status = Path(f"/proc/{self.running.process.pid}/status").read_text("utf-8")
        return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS:"))

    def measure(self, seconds: float) -> Beside:
        """Ask at the rate for so long."""
        found = Beside()
        began = last_right = time.monotonic()
        for number in range(int(seconds * RATE)):
            time.sleep(max(0.0, began + number / RATE - time.monotonic()))
            start = time.monotonic()
            status = self.ask()
            now = time.monotonic()
            found.latencies.append(now - start)
            found.statuses[status] = found.statuses.get(status, 0) + 1
            found.refused_seconds = max(found.refused_seconds, now - last_right)
            if status == "200":
                last_right = now
            if not number % 20:
                found.peak_mib = max(found.peak_mib, self.resident_mib())
        return found


@contextmanager
def repeated(work: Callable[[], None]) -> Iterator[None]:
    """Attack again and again, in a thread, until the end of the block."""
    stop = threading.Event()

    def body() -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException):
                work()

    thread = threading.Thread(target=body)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def every_attack(target: Target) -> dict[str, Attack]:
    """The attacks by name."""
    running, path = target.running, target.path
    messages = runtime_module("serving.messages")
    call = f"/{messages.SERVICE}/ModelInfer"

    def post(content: bytes, place: str = path) -> Attack:
        return lambda: repeated(lambda: running.exchange("POST", place, content) and None)

    def opened(count: int, first: bytes, *, grpc: bool = False, window: int | None = None) -> Attack:
        port = running.grpc_port if grpc else running.port
        return lambda: attacks.connections(port, count, first, window=window)

    asked = attacks.head(path, len(target.content), *(f"{name}: {value}" for name, value in target.headers.items()))
    pipelined = (asked + target.content) * 2000
    metrics = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 200
    return {
        "strings of 68 kB": post(attacks.strings(target.first, target.datatype, 4000, 60_000)),
        "15 MB of JSON": post(attacks.nested(target.first, target.datatype, 15 * MIB)),
        "64 idle announcements": opened(64, attacks.head(path, 16 * MIB)),
        "16 bodies of 15 MiB that stop": opened(16, attacks.head(path, 16 * MIB) + b" " * (15 * MIB)),
        "64 silent calls": opened(1, attacks.unfinished(call, 64, 16 * MIB, 0), grpc=True),
        "1024 unfinished messages": opened(4, attacks.unfinished(call, 250, 15 * MIB, 60_000), grpc=True),
        "2000 connections": opened(2 * DESCRIPTORS - 48, b""),
        "100 clients that do not read": opened(100, metrics, window=4096),
        "16 clients that pipeline and do not read": opened(16, pipelined, window=4096),
        "unknown models": post(b"{}", "/v2/models/unknown/infer"),
        "names of 60 kB": post(b"{}", f"/v2/models/{'n' * 60_000}/infer"),
    }


def is_broken(one: dict[str, Any]) -> bool:
    """Whether real clients waited more than twice as long beside an attack, or went without an answer for 2 s."""
    alone, beside = one["alone"], one["beside"]
    return bool(beside["longest_refusal_seconds"] > 2 or beside["p99_ms"] > 2 * alone["p99_ms"])


@contextmanager
def server(bundle: Path, core: int) -> Iterator[Running]:
    """The bundle's server on one core, with few descriptors."""

    def limit() -> None:
        os.sched_setaffinity(0, {core})
        resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))

    command = [sys.executable, str(bundle / "runtime/server.py"), "--port", "0", "--grpc-port", "0"]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, preexec_fn=limit) as process:
        try:
            yield read_until_serving(process)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            finally:
                process.kill()


def main() -> int:
    """Measure each attack against a server of its own; returns 1 where a bound was broken."""
    parser = argparse.ArgumentParser(description="Real clients beside attacks.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--seconds", type=float, default=10.0, help="for each attack; default 10")
    parser.add_argument("--only", help="attacks whose name holds this")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    cores = sorted(os.sched_getaffinity(0))
    manifest = json.loads((arguments.bundle / "manifest.json").read_bytes())
    found: dict[str, Any] = {}
    with server(arguments.bundle, cores[0]) as running:
        names = list(every_attack(Target(running, manifest)))
    os.sched_setaffinity(0, {cores[-1]})
    for name in names:
        if arguments.only is not None and arguments.only not in name:
            continue
        with server(arguments.bundle, cores[0]) as running:
            target = Target(running, manifest)
            target.measure(1)
            alone = target.measure(arguments.seconds)
            with every_attack(target)[name]():
                beside = target.measure(arguments.seconds)
            lines = len(running.log)
        found[name] = {"alone": alone.summary(), "beside": beside.summary(), "log_lines": lines}
        sys.stdout.write(f"{name}: {json.dumps(found[name])}\n")
        sys.stdout.flush()
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    broken = [name for name, one in found.items() if is_broken(one)]
    sys.stdout.write(f"bounds broken beside: {', '.join(broken) or 'no attack'}\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
