"""The server of a bundle as a program, and what tests ask of it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

SECONDS = 120  # for anything: the machine may be busy


@dataclass
class Running:
    process: subprocess.Popen[str]
    port: int
    events: list[Any]  # what the server logged before it served
    log: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        # Whoever does not read what a server logs makes it wait, once the pipe is full.
        self.reader = threading.Thread(target=lambda: self.log.extend(self.process.stderr or ()), daemon=True)
        self.reader.start()

    @property
    def grpc(self) -> str:
        """HOST:PORT of gRPC, where it is served."""
        place: str = self.events[-1]["grpc"]
        return place

    @property
    def grpc_port(self) -> int:
        return int(self.grpc.rpartition(":")[2])

    def request(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
        status, _, content = self.exchange(method, path, body, headers)
        return status, json.loads(content)

    def exchange(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            content = response.read()
            assert b"Traceback" not in content
            assert b"/runtime/" not in content
            return response.status, {name.lower(): value for name, value in response.getheaders()}, content
        finally:
            connection.close()

    def metric(self, name: str, **labels: str) -> float:
        """One sample of /metrics; 0 where there is none."""
        from prometheus_client.parser import text_string_to_metric_families

        _, _, text = self.exchange("GET", "/metrics")
        return sum(
            sample.value
            for family in text_string_to_metric_families(text.decode())
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def stop(self, number: int = signal.SIGTERM) -> list[Any]:
        """Ask it to end, which it must do in order; returns what it logged since it began to serve."""
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> list[Any]:
        """Wait for its end, which must be in order; returns what it logged since it began to serve."""
        assert self.process.wait(SECONDS) == 0, self.log
        self.reader.join(SECONDS)
        events = [json.loads(line) for line in self.log]
        assert all("traceback" not in event for event in events), events
        return events


def start(bundle: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(bundle / "runtime/server.py"), "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment},
    )


@contextlib.contextmanager
def serve(bundle: Path, *arguments: str, **environment: str) -> Iterator[Running]:
    """A server that runs inside the block; killed at its end if the test has not stopped it."""
    with start(bundle, *arguments, **environment) as process:
        running = None
        try:
            running = read_until_serving(process)
            yield running
        finally:
            process.kill()
            if running is not None:
                # Before the pipe that it reads is closed.
                running.reader.join(SECONDS)


def read_until_serving(process: subprocess.Popen[str]) -> Running:
    """The server of a process that was started just now, once it serves."""
    assert process.stderr is not None
    events: list[Any] = []
    for line in process.stderr:
        events.append(json.loads(line))
        if events[-1]["event"] == "serving":
            return Running(process, urlsplit(events[-1]["url"]).port or 0, events)
    raise AssertionError(f"the server ended with {process.wait()}: {events}")


def body(ids: Any, mask: Any = None, **more: Any) -> bytes:
    """A request to the `text` bundle, in JSON."""
    arrays = {"ids": np.asarray(ids), "mask": np.ones_like(ids) if mask is None else np.asarray(mask)}
    inputs = [
        {"name": name, "shape": list(array.shape), "datatype": "INT64", "data": array.tolist()}
        for name, array in arrays.items()
    ]
    return json.dumps({"inputs": inputs, **more}).encode()


def binary_body(inputs: dict[str, np.ndarray[Any, Any]], names: dict[str, str], **more: Any) -> tuple[bytes, str]:
    """A request in binary tensors, and its Inference-Header-Content-Length; `names` are the datatypes."""
    entries = [
        {
            "name": name,
            "shape": list(array.shape),
            "datatype": names[name],
            "parameters": {"binary_data_size": array.nbytes},
        }
        for name, array in inputs.items()
    ]
    head = json.dumps({"inputs": entries, **more}).encode()
    return head + b"".join(array.tobytes() for array in inputs.values()), str(len(head))


def raw(port: int, request: bytes) -> bytes:
    """Everything that comes back until the server closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as connection:
        connection.sendall(request)
        answer = b""
        while part := connection.recv(65536):
            answer += part
        return answer
