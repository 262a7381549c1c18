"""Measure the bundle on the machine that it is for; `ortc attach BUNDLE measurement.json` adds what it writes.

    python runtime/measure.py --output measurement.json

Needs what the loader beside it needs, and no compiler. Every digest is compared and every golden case is run; then come
latencies of requests of the promised shape, in rounds with rests, and starts of the bundle, each a process of its own.
The file says of which bundle and of which hardware it is, and carries a digest of itself. Answers, errors and exit
codes are the loader's. A fixed control workload, in a process of its own, is timed before every turn, so that whoever
judges can tell a busy machine.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

if __name__ == "__main__":
    # As the loader does for itself: these threads would count as the bundle's memory.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # A bundle must not change by being measured.
    sys.dont_write_bytecode = True
    from loading.errors import end_without_numpy

    end_without_numpy(sys.stdout)

import machine
import nvml
from loading.errors import BundleError, FormatError, GoldenError, SessionError, UsageError
from loading.host import describe
from loading.machine import physical_cores
from loading.measuring import Turn, count_copies, measure_turn
from loading.model import Model
from loading.providers import CPU
from loading.soak import soak
from loading.worker import failure

FORMAT_VERSION = 1
KIND = "ortc-measurement"
ROUNDS, LEAST_RUNS, KEPT_RUNS = 20, 21, 500
"""At least 420 samples: 368 give p99 an interval. Of more runs of a turn so many are kept, evenly spaced."""
TURN_SECONDS, WARM_SECONDS, REST_SECONDS = 0.1, 0.01, 0.15
"""Counted runs of a turn last at least as long, and uncounted ones before; threads that still spin from the turn before
have come to rest."""
STARTS = 5


class DevicePeak:
    """The most device memory that was in use beyond what was in use at first; nobody else may use the GPUs meanwhile.

    ONNX Runtime's arena on the device gives nothing back, so that looking after runs is enough.
    """

    def __init__(self) -> None:
        self._first = nvml.used_bytes()
        self.bytes: int | None = None

    def look(self) -> None:
        """Take what is in use now into account."""
        now = nvml.used_bytes()
        if now is not None and self._first is not None:
            self.bytes = max(self.bytes or 0, now - self._first)


def digest(document: Mapping[str, Any]) -> str:
    """sha256, in hex, of compact JSON with sorted keys."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


# --- measuring --------------------------------------------------------------------------------------------------------


class Control:
    """The control workload, in a process of its own; a context manager."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._turns: list[dict[str, Any]] = []
        program = Path(machine.__file__)
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-B", str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Control:
        return self

    def __exit__(self, *_: object) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        self._process.wait()

    def take(self) -> None:
        """Run the workload once.

        Raises:
            SessionError: The process ended.
        """
        asked, answers = self._process.stdin, self._process.stdout
        try:
            if asked is None or answers is None:
                raise OSError("it has no pipes")
            asked.write(json.dumps({"op": "control", "threads": self._threads}) + "\n")
            asked.flush()
            self._turns.append(json.loads(answers.readline())["result"])
        except (OSError, ValueError, KeyError) as error:
            raise SessionError(f"The process of the control workload gave no answer: {error}.") from error

    def taken(self) -> dict[str, Any]:
        """All turns since the last call."""
        turns, self._turns = self._turns, []
        return {
            "threads": self._threads,
            "rounds": [turn["times_ms"] for turn in turns],
            "wall_seconds": [turn["wall_seconds"] for turn in turns],
            "cpu_seconds": [turn["cpu_seconds"] for turn in turns],
        }


def take(bundle: Path) -> dict[str, Any]:
    """Measure a bundle: milliseconds of every request, seconds of every start, bytes of memory.

    Golden answers that differ are a result, too: `failed` says how, and nothing is timed.

    Raises:
        BundleError: The bundle is damaged, cannot be loaded or does not start, or the machine's lock cannot be had.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(machine.exclusive(_note, Path(tempfile.gettempdir())))
        except TimeoutError as error:
            raise SessionError(f"{error}. Wait until it has ended, and measure again.") from error
        except OSError as error:
            raise SessionError(f"No lock for measuring can be made: {error}. Make /tmp writable.") from error
        return _taken(bundle, stack.enter_context(Control(physical_cores())))


def _note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr, flush=True)


def _taken(bundle: Path, control: Control) -> dict[str, Any]:
    sums, manifest = (hashlib.sha256(_bytes(bundle / name)).hexdigest() for name in ("SHA256SUMS", "manifest.json"))
    failed: str | None = None
    soaked: dict[str, Any] | None = None
    rounds: list[Turn] = []
    starts: list[float] = []
    device, watch = DevicePeak(), machine.Watch()
    with Model.load(bundle, verify="full", selftest=False) as model:
        try:
            at = {str(axis): int(size) for axis, size in model.manifest["promises"]["at"].items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FormatError(f"{bundle}/manifest.json says no shape to measure at: {error}") from error
        try:
            model.selftest()
        except GoldenError as error:
            failed = str(error)
        else:
            rounds = in_rounds(model, at, control, watch)
            soaked = soak(model)
        device.look()
        info = model.info()
    controlled = control.taken()
    peak = max(int(info["peak_rss_bytes"]), soaked["peak_rss_bytes"] if soaked else 0)
    copies = None if failed or info["providers"] == [CPU] else count_copies(bundle)
    for _ in range(0 if failed else STARTS):
        time.sleep(REST_SECONDS)
        control.take()
        seconds, resident = start(bundle, at)
        starts.append(seconds)
        peak = max(peak, resident)
    control.take()
    from datetime import UTC, datetime

    document = {
        "format_version": FORMAT_VERSION,
        "kind": KIND,
        **{key: info[key] for key in ("name", "version", "target")},
        "manifest_sha256": manifest,
        "sums_sha256": sums,
        "measured": datetime.now(UTC).isoformat(),
        "host": describe(),
        "threads": info["threads"]["intra_op"],
        **{key: info[key] for key in ("versions", "providers", "placement", "fallback", "prepacked")},
        "at": at,
        "golden": [{key: case[key] for key in ("name", "max_abs", "cosine")} for case in model.golden],
        "failed": failed,
        "rounds": [thinned(turn.latencies_ms) for turn in rounds],
        "wall_seconds": [turn.wall_seconds for turn in rounds],
        "cpu_seconds": [turn.cpu_seconds for turn in rounds],
        "starts": starts,
        "control": None if failed else controlled,
        "start_control": None if failed else control.taken(),
        "load": watch.load(),
        "peak_rss_bytes": peak,
        "peak_device_bytes": device.bytes,
        "soak": soaked,
        "copies": copies,
    }
    return {**document, "sha256": digest(document)}


def in_rounds(model: Model, at: Mapping[str, int], control: Control, watch: machine.Watch) -> list[Turn]:
    """Turns of requests of a shape: a rest, the control workload, uncounted runs, and counted runs.

    The counted runs are as many as fill `TURN_SECONDS`, by the mean of the latest runs, and at least `LEAST_RUNS`. The
    shortest run would promise too many: beside other work one run may take a hundred times the other.
    """
    inputs = model.example(at)
    mean = _mean_seconds(measure_turn(model, inputs, 3, 1).latencies_ms)
    turns = []
    for _ in range(ROUNDS):
        watch.look()
        time.sleep(REST_SECONDS)
        control.take()
        warmup = max(1, math.ceil(WARM_SECONDS / mean))
        turn = measure_turn(model, inputs, max(LEAST_RUNS, math.ceil(TURN_SECONDS / mean)), warmup)
        while turn.wall_seconds < TURN_SECONDS:
            # The duration was found in a moment when the machine was slower.
            more = math.ceil((TURN_SECONDS - turn.wall_seconds) / _mean_seconds(turn.latencies_ms))
            turn = joined(turn, measure_turn(model, inputs, more, 0))
        mean = _mean_seconds(turn.latencies_ms)
        turns.append(turn)
    return turns


def _mean_seconds(latencies_ms: Sequence[float]) -> float:
    # A clock has a resolution: no run takes less than a microsecond.
    return max(sum(latencies_ms) / len(latencies_ms) / 1000, 1e-6)


def joined(one: Turn, other: Turn) -> Turn:
    """One turn of two that follow each other."""
    return Turn(
        [*one.latencies_ms, *other.latencies_ms],
        one.wall_seconds + other.wall_seconds,
        one.cpu_seconds + other.cpu_seconds,
    )


def thinned(samples: Sequence[float]) -> list[float]:
    """At most `KEPT_RUNS` of the samples, evenly spaced, so that percentiles stay what they are."""
    count = len(samples)
    return [samples[index * count // KEPT_RUNS] for index in range(KEPT_RUNS)] if count > KEPT_RUNS else list(samples)


def start(bundle: Path, at: Mapping[str, int]) -> tuple[float, int]:
    """Seconds from the start of a process to its first answer, and its peak resident bytes.

    Raises:
        SessionError: The bundle does not start.
    """
    options = ["--verify", "fast", "--no-selftest", "--no-warmup", "--runs", "1", "--warmup", "0"]
    shape = ",".join(f"{axis}={size}" for axis, size in at.items())
    flags = [flag for flag, on in (("-E", sys.flags.ignore_environment), ("-s", sys.flags.no_user_site)) if on]
    program = str(bundle / "runtime" / "loader.py")
    command = [sys.executable, *flags, "-B", program, "bench", "--bundle", str(bundle), *options, "--shape", shape]
    done = subprocess.run(
        [*command, "--started", str(time.monotonic())], stdout=subprocess.PIPE, text=True, check=False
    )
    try:
        answer = json.loads(done.stdout)
        if done.returncode == 0:
            result = answer["result"]
            return float(result["start_to_first_answer_seconds"]), int(result["peak_rss_bytes"])
        problem = str(answer["error"]["message"])
    except (ValueError, KeyError, TypeError):
        problem = f"its loader ended with exit code {done.returncode}"
    raise SessionError(f"{bundle} was loaded and does not start a second time: {problem}")


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise FormatError(f"{path.parent} is not a bundle: it has no {path.name}.") from None
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error.strerror}.") from error


# --- command line -----------------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}. See {self.prog} --help.")


def write(document: Mapping[str, Any], output: Path) -> None:
    """Write the file whole or not at all."""
    fresh = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        with fresh.open("w", encoding="utf-8") as file:
            file.write(json.dumps(document, indent=1, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(output)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise UsageError(f"{output} cannot be written: {error.strerror}.") from error


def measure(argv: Sequence[str] | None) -> dict[str, Any]:
    """What the command line asks for.

    Raises:
        GoldenError: The answers are wrong here; the file that says so was written.
    """
    parser = _Parser(prog="measure.py", description="Measure the bundle on this machine, for `ortc attach`.")
    parser.add_argument("--bundle", default=str(Path(__file__).resolve().parent.parent), help="default: the one around")
    parser.add_argument("--output", required=True, metavar="FILE", help="the measurement, as JSON")
    arguments = parser.parse_args(argv)
    bundle, output = Path(arguments.bundle).resolve(), Path(arguments.output).resolve()
    if output.is_relative_to(bundle):
        raise UsageError(f"--output {output} lies in the bundle, which takes no other files. Name one outside.")
    # Said now, and not after minutes of measuring.
    if output.is_dir() or not os.access(output.parent, os.W_OK):
        raise UsageError(f"--output {output} is no file that can be written here. Name one in a directory.")
    document = take(bundle)
    write(document, output)
    if document["failed"] is not None:
        raise GoldenError(f"{document['failed']} {output} says so, too.")
    times = sorted(value for values in document["rounds"] for value in values)
    return {
        "output": str(output),
        "fingerprint": digest(document["host"])[:16],
        "shape": document["at"],
        "samples": len(times),
        "p50_ms": times[len(times) // 2],
        "start_seconds": sorted(document["starts"])[STARTS // 2],
        "peak_rss_bytes": document["peak_rss_bytes"],
        "peak_device_bytes": document["peak_device_bytes"],
    }


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    # Native code writes to descriptor 1 as it likes: that is kept for the one answer.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    try:
        sys.stdout.flush()
        os.dup2(2, 1)
        result = measure(argv)
    except Exception as error:  # noqa: BLE001 - the boundary: failure() reports it
        answers.write(failure(error) + "\n")
        answers.flush()
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, BundleError) else 1
    answers.write(json.dumps({"ok": True, "result": result}) + "\n")
    answers.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
