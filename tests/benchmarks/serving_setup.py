"""What the benchmarks of the server share: bundles, requests, and servers as processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from loadgen import http_request
from numpy.typing import NDArray
from workshop import home

from ortc.execution.runtime_environment import environment

ROOT = Path(__file__).parents[2]
SECONDS = 180
DATATYPES = {"int64": "INT64", "float32": "FP32"}
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Bundle:
    """A built bundle, the interpreter of its pinned environment, and one request to it."""

    directory: Path
    interpreter: Path
    manifest: dict[str, Any]
    inputs: Arrays

    @property
    def path(self) -> str:
        """Where inference is."""
        return f"/v2/models/{self.manifest['name']}/infer"

    def request(self, inputs: Arrays | None = None, *, binary: bool) -> bytes:
        """The bytes of a request for all outputs; one in binary asks for binary, too."""
        given, tail = self.inputs if inputs is None else inputs, b""
        entries: list[dict[str, Any]] = []
        for name, array in given.items():
            entry: dict[str, Any] = {
                "name": name,
                "shape": list(array.shape),
                "datatype": DATATYPES[str(array.dtype)],
            }
            if binary:
                entry["parameters"] = {"binary_data_size": array.nbytes}
                tail += array.tobytes()
            else:
                entry["data"] = array.ravel().tolist()
            entries.append(entry)
        document: dict[str, Any] = {"inputs": entries}
        if not binary:
            return http_request(self.path, json.dumps(document).encode(), {"Content-Type": "application/json"})
        head = json.dumps({**document, "parameters": {"binary_data_output": True}}).encode()
        return http_request(self.path, head + tail, {"Inference-Header-Content-Length": str(len(head))})


def bundle(name: str, sizes: dict[str, int], *options: str) -> Bundle:
    """specs/NAME.yaml for the target cpu, built where it is not, and a seeded request of these axis sizes."""
    place = home() / "serving"
    command = [sys.executable, "-m", "ortc", "build", f"specs/{name}.yaml", "-t", "cpu", "--search", "none"]
    done = subprocess.run([*command, *options, "-o", str(place)], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"cannot build {name}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    (directory,) = place.glob(f"{name}/*/cpu")
    manifest = json.loads((directory / "manifest.json").read_bytes())
    interpreter = environment((directory / "requirements.txt").read_text("utf-8"), home() / "environments")
    return Bundle(directory, interpreter, manifest, random_inputs(manifest, sizes, np.random.default_rng(0)))


def random_inputs(manifest: dict[str, Any], sizes: dict[str, int], random: np.random.Generator) -> Arrays:
    """Values within the declared ranges; ones where a whole-numbered input declares none."""
    made: Arrays = {}
    for tensor in manifest["inputs"]:
        shape = [sizes.get(size, 1) if isinstance(size, str) else size for size in tensor["shape"]]
        low, high = tensor["range"] or (1, 1)
        if tensor["dtype"].startswith("float"):
            made[tensor["name"]] = random.random(shape).astype(tensor["dtype"])
        else:
            made[tensor["name"]] = random.integers(low, high + 1, shape).astype(tensor["dtype"])
    return made


@dataclass
class Server:
    """A server that listens."""

    process: subprocess.Popen[bytes]
    port: int

    @property
    def rss_bytes(self) -> int:
        """Resident memory of the process."""
        status = Path(f"/proc/{self.process.pid}/status").read_text("utf-8")
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS:"))


@contextlib.contextmanager
def serving(command: list[str], port: int, *, health: str, environ: dict[str, str] | None = None) -> Iterator[Server]:
    """A server from its start until the block ends."""
    log = home() / "serving" / f"{port}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("wb") as stream,
        subprocess.Popen(
            command, stdout=stream, stderr=stream, env={**os.environ, **(environ or {})}, start_new_session=True
        ) as process,
    ):
        try:
            deadline = time.monotonic() + SECONDS
            while not _answers(f"http://127.0.0.1:{port}{health}"):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{command} does not serve: {log.read_text('utf-8', 'replace')[-2000:]}")
                time.sleep(0.1)
            yield Server(process, port)
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # workers that outlive the one who started them


def ours(made: Bundle, port: int, *options: str) -> contextlib.AbstractContextManager[Server]:
    """The bundle's own server."""
    command = [str(made.interpreter), str(made.directory / "runtime/server.py"), "--port", str(port), *options]
    return serving(command, port, health="/v2/health/ready", environ={"PYTHONDONTWRITEBYTECODE": "1"})


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return int(answer.status) < 300
    except urllib.error.HTTPError:
        return False
    except OSError:
        return False


def free_port() -> int:
    """A port that nobody listens on now."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
