"""Time and copies of a loaded model's runs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from .errors import UsageError
from .model import Model
from .providers import CPU

MOST_CLIENTS = 1024


@dataclass(frozen=True)
class Turn:
    """Counted calls: milliseconds of each, seconds of all, and what all threads of this process computed meanwhile."""

    latencies_ms: list[float]
    wall_seconds: float
    cpu_seconds: float


def measure(model: Model, inputs: Mapping[str, NDArray[Any]], runs: int, warmup: int) -> list[float]:
    """Milliseconds of each of `runs` calls of `model.run`, validation included, after `warmup` that do not count."""
    return measure_turn(model, inputs, runs, warmup).latencies_ms


def measure_turn(
    model: Model, inputs: Mapping[str, NDArray[Any]], runs: int, warmup: int, clients: int | None = None
) -> Turn:
    """Time `runs` calls of `model.run` after `warmup` that do not count.

    With `clients`, that many threads send `runs` requests each at once, and the one value is the milliseconds of the
    whole by the number of requests.
    """
    for what, value, least in (("runs", runs, 1), ("warmup", warmup, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise UsageError(f"{what} is {value!r}. Expected a whole number of at least {least}.")
    if clients is not None and (isinstance(clients, bool) or not isinstance(clients, int)):
        raise UsageError(f"clients is {clients!r}. Expected a whole number from 1 to {MOST_CLIENTS}.")
    if clients is not None and not 1 <= clients <= MOST_CLIENTS:
        raise UsageError(f"clients is {clients!r}. Expected a whole number from 1 to {MOST_CLIENTS}.")
    for _ in range(warmup):
        model.run(inputs)
    began, computed = time.perf_counter_ns(), time.process_time_ns()
    latencies = _timed_runs(model, inputs, runs) if clients is None else _timed_crowd(model, inputs, runs, clients)
    computed, wall = time.process_time_ns() - computed, time.perf_counter_ns() - began
    return Turn(latencies, wall / 1e9, computed / 1e9)


def _timed_runs(model: Model, inputs: Mapping[str, NDArray[Any]], runs: int) -> list[float]:
    latencies = []
    for _ in range(runs):
        began = time.perf_counter_ns()
        model.run(inputs)
        latencies.append((time.perf_counter_ns() - began) / 1e6)
    return latencies


def _timed_crowd(model: Model, inputs: Mapping[str, NDArray[Any]], runs: int, clients: int) -> list[float]:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(clients) as pool:
        began = time.perf_counter_ns()
        for future in [pool.submit(_timed_runs, model, inputs, runs) for _ in range(clients)]:
            future.result()
        return [(time.perf_counter_ns() - began) / 1e6 / (clients * runs)]


def count_copies(
    bundle: Path, inputs: Mapping[str, NDArray[Any]] | None = None, *, verify: str = "fast"
) -> dict[str, int]:
    """Nodes that ONNX Runtime inserted to copy between host and device, by operator, as they ran once.

    Args:
        bundle: The directory; it is loaded for this alone.
        inputs: What to run on; by default an example of the shape that the manifest promises latencies at.
        verify: As for Model.load.
    """
    import tempfile

    with (
        tempfile.TemporaryDirectory(prefix="copies-") as scratch,
        Model.load(bundle, verify=verify, selftest=False, warmup=False, profile=Path(scratch) / "profile") as model,
    ):
        if all(provider == CPU for provider in model.providers):
            return {}
        model.run(model.example(model.manifest["promises"]["at"]) if inputs is None else inputs)
        return dict(Counter(n["op_type"] for n in model.executed() if n["op_type"].startswith("Memcpy")))


def time_operators(
    bundle: Path, inputs: Mapping[str, NDArray[Any]], *, verify: str = "fast", runs: int = 5
) -> list[dict[str, Any]]:
    """Where the time of a run goes: the nodes of each operator on each provider, in the last of some runs.

    Args:
        bundle: The directory; it is loaded for this alone, with a profiler, which slows every node down a little.
        inputs: What to run on.
        verify: As for Model.load.
        runs: How many; those before the last warm up.

    Returns:
        For each operator and provider nodes and microseconds, most time first.
    """
    import tempfile

    with (
        tempfile.TemporaryDirectory(prefix="operators-") as scratch,
        Model.load(bundle, verify=verify, selftest=False, warmup=False, profile=Path(scratch) / "profile") as model,
    ):
        for _ in range(runs):
            model.run(inputs)
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for node in model.executed():
            key = node["op_type"], node["provider"] or ""
            entry = found.setdefault(key, {"operator": key[0], "provider": key[1], "nodes": 0, "microseconds": 0})
            entry["nodes"] += 1
            entry["microseconds"] += node["microseconds"]
        return sorted(found.values(), key=lambda entry: (-entry["microseconds"], entry["operator"], entry["provider"]))
