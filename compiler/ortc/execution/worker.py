"""Drive a worker process over JSON lines: a bundle's own loader, or the PyTorch reference."""

from __future__ import annotations

import json
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple, Self

from ortc.common.arrays import Arrays, read_arrays, write_arrays
from ortc.common.disk import Place, full, room, says_full, temporary
from ortc.common.errors import StageError
from ortc.execution.processes import bundled_script, own_environment, own_module, script

Json = dict[str, Any]

TIMEOUT = 1800.0
"""Seconds one request may take; a bundle that needs longer for one answer is not served by anybody."""

BROWSER = "ortc.execution.browser"
"""The program that runs bundles for browsers."""

OFFLINE = {"HF_HUB_OFFLINE": "1"}
"""Variables of a process that may read a model's files and get no others."""


class WorkerError(StageError):
    """A worker answered with an error, died or hung.

    `code` is the worker's own word for it (`providers`, `golden`, `load`, …), `died` when the process ended.
    """

    def __init__(self, code: str, message: str, *, help: str | None = None, details: tuple[str, ...] = ()) -> None:  # noqa: A002
        super().__init__(message, help=help, details=details)
        self.code = code


class Timed(NamedTuple):
    """Counted runs of one turn: milliseconds of each, seconds of all, and what the process computed meanwhile.

    `cpu_seconds`, of all its threads, is None where the loader is of an older bundle and does not say it.
    """

    latencies_ms: tuple[float, ...]
    wall_seconds: float
    cpu_seconds: float | None


def is_for_browsers(bundle: Path) -> bool:
    """Whether the loader of a bundle is one for browsers."""
    return (bundle / "runtime" / "loader.mjs").is_file()


class Worker:
    """A process that serves one model. Use as a context manager."""

    def __init__(self, name: str, arguments: list[str], *, environment: dict[str, str] | None = None) -> None:
        self.name = name
        self._arguments = arguments
        self._environment = environment or {}
        self._process: subprocess.Popen[bytes] | None = None
        self._received = b""
        self._log: IO[bytes] | None = None
        self._scratch = tempfile.TemporaryDirectory(prefix="ortc-worker-")
        self.started = 0.0

    @classmethod
    def for_bundle(cls, name: str, interpreter: Path, bundle: Path) -> Self:
        """A worker that runs a bundle's loader in its own environment: that of a bundle for browsers in Chromium."""
        if is_for_browsers(bundle):
            return cls(name, own_module(BROWSER), environment=own_environment())
        loader = bundle / "runtime" / "loader.py"
        return cls(name, bundled_script(interpreter, loader, "worker"))

    @classmethod
    def emulated(cls, name: str, command: Sequence[str], environment: Mapping[str, str], bundle: Path) -> Self:
        """A worker that runs a bundle's loader under an emulator: a command that starts Python, and its variables."""
        return cls(name, [*command, str(bundle / "runtime" / "loader.py"), "worker"], environment=dict(environment))

    @classmethod
    def for_reference(cls, environment: Mapping[str, str] | None = None) -> Self:
        """A worker that runs the model in PyTorch, with the compiler's own environment and some more of it."""
        return cls(
            "PyTorch",
            own_module("ortc.frontend"),
            environment=own_environment({**OFFLINE, **(environment or {})}),
        )

    @classmethod
    def for_original(cls, name: str, interpreter: Path) -> Self:
        """A worker that answers with an ONNX file as it came, in a runtime environment of its own."""
        return cls(name, script(interpreter, Path(__file__).parents[1] / "frontend" / "ort_original.py"))

    @classmethod
    def for_making(cls, name: str) -> Self:
        """A worker that makes graphs of variants, with the compiler's own environment."""
        return cls(name, own_module("ortc.passes"), environment=own_environment())

    @classmethod
    def for_images(cls) -> Self:
        """A worker that prepares images with a model's image processor, with the compiler's own environment."""
        return cls(
            "the image processor",
            own_module("ortc.frontend.samples.image_worker"),
            environment=own_environment(OFFLINE),
        )

    def __enter__(self) -> Self:
        self._log = tempfile.TemporaryFile()
        self.started = time.perf_counter()
        self._process = subprocess.Popen(
            self._arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            # Unbuffered: what has been read from the pipe is all in `_received`, where a deadline can be kept.
            bufsize=0,
            # A bundle must not change by being run.
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **self._environment},
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._process
        if process is not None:
            if process.stdin is not None:
                process.stdin.close()
            try:
                process.wait(timeout=5 if error is None else 0.1)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()
        if self._log is not None:
            self._log.close()
        self._scratch.cleanup()

    def call(self, operation: str, **arguments: object) -> Json:
        """One request, one reply.

        Raises:
            WorkerError: the worker says so, dies, or gives no answer in time.
        """
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise RuntimeError("the worker is not running")
        request = memoryview(json.dumps({"op": operation, **arguments}).encode() + b"\n")
        try:
            while request:
                request = request[os.write(process.stdin.fileno(), request) :]
        except BrokenPipeError:
            raise self._died(operation) from None
        line = self._line(process.stdout.fileno(), operation)
        try:
            reply = json.loads(line)
        except ValueError:
            raise WorkerError(
                "internal", f"{self.name} answered `{operation}` with something else than JSON", details=(_shown(line),)
            ) from None
        if not reply["ok"]:
            error = reply["error"]
            self._check_disk(f"{error['message']} {error.get('details')}", arguments)
            raise WorkerError(
                error["code"], error["message"], help=error.get("help"), details=tuple(error.get("details") or ())
            )
        result: Json = reply.get("result") or {}
        return result

    def _line(self, descriptor: int, operation: str) -> bytes:
        """The next line of the worker, all of it within the time that a request has."""
        deadline = time.monotonic() + TIMEOUT
        while b"\n" not in self._received:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                if self._process is not None:
                    self._process.kill()
                raise WorkerError("timeout", f"{self.name} gave no answer to `{operation}` in {TIMEOUT:.0f} s")
            received = os.read(descriptor, 1 << 16)
            if not received:
                raise self._died(operation)
            self._received += received
        line, _, self._received = self._received.partition(b"\n")
        return line

    def run(self, inputs: Arrays) -> Arrays:
        """One inference; arrays travel through files."""
        directory = Path(self._scratch.name)
        with room(temporary()):
            write_arrays(directory / "inputs.npz", inputs)
        self.call("run", inputs=str(directory / "inputs.npz"), outputs=str(directory / "outputs.npz"))
        return read_arrays(directory / "outputs.npz")

    def bench(self, inputs: Path, *, runs: int, warmup: int, clients: int | None = None) -> list[float]:
        """Latencies, in milliseconds, of `runs` inferences after `warmup` uncounted ones.

        With `clients`, that many ask at once, `runs` times each, and the one answer is the milliseconds of all by the
        number of requests.
        """
        return list(self.turn(inputs, runs=runs, warmup=warmup, clients=clients).latencies_ms)

    def turn(self, inputs: Path, *, runs: int, warmup: int, clients: int | None = None) -> Timed:
        """The same with the clocks of the counted runs."""
        crowd = {} if clients is None else {"clients": clients}
        answer = self.call("bench", inputs=str(inputs), runs=runs, warmup=warmup, **crowd)
        latencies = tuple(float(value) for value in answer["latencies_ms"])
        wall = answer.get("wall_seconds")
        if wall is None:
            wall = sum(latencies) / 1000 * (1 if clients is None else runs * clients)
        processor = answer.get("cpu_seconds")
        return Timed(latencies, float(wall), None if processor is None else float(processor))

    def _check_disk(self, said: str, arguments: dict[str, object]) -> None:
        """Tell a full disk from what the model or its runtime is to blame for.

        Raises:
            DiskFullError: that is what the worker says.
        """
        if not says_full(said):
            return
        written = [Path(value) for value in map(str, arguments.values()) if value.startswith("/")]
        places: list[Place] = [("the cache", path) for path in written if not path.is_relative_to(self._scratch.name)]
        raise full(temporary(), *places)

    def _died(self, operation: str) -> WorkerError:
        process = self._process
        code = None
        if process is not None:
            try:
                code = process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                # It closed its end of the pipe and lives on: nothing more will come from it.
                process.kill()
                code = process.wait()
        lines: list[str] = []
        if self._log is not None:
            self._log.seek(0)
            lines = self._log.read().decode("utf-8", errors="replace").strip().splitlines()[-12:]
        hint = "it ran out of memory, or was killed" if code == -9 else None
        return WorkerError(
            "died", f"{self.name} ended during `{operation}` (exit code {code})", help=hint, details=tuple(lines)
        )


def _shown(line: bytes) -> str:
    text = line.decode("utf-8", errors="replace")
    return text if len(text) <= 200 else f"{text[:200]}…"
