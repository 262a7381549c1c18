"""Workers: start one, send it requests, read its replies within a time limit, and end it.

This is the compiler's side of the one protocol; `ortc.execution.worker_protocol` is the side of the workers.
"""

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
from typing import IO, Any, Self

from ortc.common.disk import DiskFullError, Place, full, says_full, temporary
from ortc.common.errors import StageError

Json = dict[str, Any]

TIMEOUT = 1800.0
"""Seconds one request may take; a bundle that needs longer for one answer is not served by anybody."""
LAST_LINES = 12
"""Lines of a worker's log that an error shows."""


class WorkerError(StageError):
    """A worker answered with an error, died or hung.

    `code` is the worker's own word for it (`providers`, `golden`, `load`, …), `died` when the process ended.
    """

    def __init__(self, code: str, message: str, *, help: str | None = None, details: tuple[str, ...] = ()) -> None:  # noqa: A002
        super().__init__(message, help=help, details=details)
        self.code = code


class WorkerProcess:
    """A process that answers requests, one JSON object per line on stdin and stdout. Use as a context manager.

    Args:
        name: of the process, in messages.
        arguments: the command that starts it.
        environment: variables besides those of this process.
        seconds: that one request may take.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        seconds: float = TIMEOUT,
    ) -> None:
        self.name = name
        self.arguments = list(arguments)
        self._environment = environment or {}
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._received = b""
        self._log: IO[bytes] | None = None
        self._scratch = tempfile.TemporaryDirectory(prefix="ortc-worker-")
        self.started = 0.0

    def __enter__(self) -> Self:
        self._log = tempfile.TemporaryFile()
        self.started = time.perf_counter()
        self._process = subprocess.Popen(
            self.arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            # Unbuffered: what has been read from the pipe is all in `_received`, where a deadline can be kept.
            bufsize=0,
            env=variables(self._environment),
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

    @property
    def identifier(self) -> int:
        """Of the process, while it runs.

        Raises:
            RuntimeError: it does not.
        """
        if self._process is None:
            raise RuntimeError("the worker is not running")
        return self._process.pid

    def call(self, operation: str, **arguments: object) -> Json:
        """One request, one reply.

        Raises:
            WorkerError: the worker says so, dies, or gives no answer in time.
            DiskFullError: the worker has no room for what it writes.
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
            return result_of(self.name, operation, line)
        except WorkerError as error:
            if error.code == DiskFullError.__name__:
                raise DiskFullError(error.message, help=error.help, details=error.details) from error
            self._check_disk(f"{error.message} {error.details}", arguments)
            raise

    def _line(self, descriptor: int, operation: str) -> bytes:
        """The next line of the worker, all of it within the time that a request has."""
        deadline = time.monotonic() + self._seconds
        while b"\n" not in self._received:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                if self._process is not None:
                    self._process.kill()
                raise WorkerError("timeout", f"{self.name} gave no answer to `{operation}` in {self._seconds:.0f} s")
            received = os.read(descriptor, 1 << 16)
            if not received:
                raise self._died(operation)
            self._received += received
        line, _, self._received = self._received.partition(b"\n")
        return line

    def _check_disk(self, said: str, arguments: Mapping[str, object]) -> None:
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
        said = b""
        if self._log is not None:
            self._log.seek(0)
            said = self._log.read()
        return ended(self.name, operation, code, said)


def variables(more: Mapping[str, str]) -> dict[str, str]:
    """The variables of a worker: those of this process, and some more."""
    # A bundle must not change by being run.
    return {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **more}


def result_of(name: str, operation: str, line: bytes) -> Json:
    """The result that a reply holds.

    Args:
        name: of the process.
        operation: that it was asked for.
        line: the reply.

    Raises:
        WorkerError: the reply says so, or is none.
    """
    try:
        reply = json.loads(line)
        if reply["ok"]:
            result: Json = dict(reply.get("result") or {})
            return result
        error = reply["error"]
        said = WorkerError(
            str(error["code"]),
            str(error["message"]),
            help=error.get("help"),
            details=tuple(map(str, error.get("details") or ())),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        message = f"{name} answered `{operation}` with something else than a reply in JSON"
        raise WorkerError("internal", message, details=(_shown(line),)) from None
    raise said


def answer_of(
    name: str,
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    seconds: float = TIMEOUT,
) -> Json:
    """The answer of a program that takes its one request as arguments, writes one reply, and ends.

    Args:
        name: of the program, in messages.
        command: that starts it.
        environment: variables besides those of this process.
        seconds: that it may take.

    Raises:
        WorkerError: the program says so, dies, or takes longer.
    """
    with tempfile.TemporaryFile() as log:
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                check=False,
                timeout=seconds,
                env=variables(environment or {}),
            )
        except subprocess.TimeoutExpired as error:
            raise WorkerError("timeout", f"{name} gave no answer in {seconds:.0f} s") from error
        if not done.stdout.strip():
            log.seek(0)
            raise ended(name, "start", done.returncode, log.read())
        result = result_of(name, "start", done.stdout)
        if done.returncode != 0:
            log.seek(0)
            raise ended(name, "start", done.returncode, log.read())
    return result


def ended(name: str, operation: str, code: int | None, log: bytes) -> WorkerError:
    """The error of a process that ended without a reply; `log` is what it wrote to stderr."""
    lines = log.decode("utf-8", errors="replace").strip().splitlines()[-LAST_LINES:]
    hint = "it ran out of memory, or was killed" if code == -9 else None
    message = f"{name} ended during `{operation}` (exit code {code})"
    return WorkerError("died", message, help=hint, details=tuple(lines))


def _shown(line: bytes) -> str:
    text = line.decode("utf-8", errors="replace")
    return text if len(text) <= 200 else f"{text[:200]}…"
