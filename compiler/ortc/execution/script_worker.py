"""The operations of a worker whose bundle's loader is written in JavaScript, wherever that runs."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

from ortc.common.bundle_runtime import runtime_module
from ortc.execution.host import cores

Json = dict[str, Any]

OPERATIONS = (
    "load",
    "run",
    "tokens",
    "answers",
    "bench",
    "copies",
    "operators",
    "soak",
    "first_answer",
    "info",
    "close",
)
CPU = "CPUExecutionProvider"
SOAK_SECONDS = 15.0
_PLACED: Json = {"placement": {}, "fallback": {"nodes": 0, "shape_nodes": 0, "named": []}, "prepacked": False}


class ScriptWorker(ABC):
    """Answers requests about one bundle at a time; each public method is an operation. Use as a context manager."""

    def __init__(self) -> None:
        self._open = ExitStack()
        self._peak = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @abstractmethod
    def start(self, bundle: Path) -> object:
        """What will load the bundle, with nothing loaded."""

    @abstractmethod
    def close(self, _: Json) -> Json:
        """Drop the bundle."""

    def load(self, request: Json) -> Json:
        """Load a bundle in place of the one before."""
        self.close({})
        self._peak, selftest = 0, bool(request.get("selftest", True))
        bundle = Path(request["bundle"])
        self.start(bundle)
        is_full = request.get("verify", "full") != "none"
        if selftest and is_full:
            self._prove()
        asked = {
            "verify": "full" if is_full else "none",
            "selftest": selftest,
            "warmup": bool(request.get("warmup", True)),
            "threads": request.get("threads") or cores(),
        }
        return {**self._shown(self._ask("load", asked)), "golden": self._ask("info")["golden"]}

    @abstractmethod
    def _prove(self) -> None:
        """Open a bundle as its users do, before a load with a self-test."""

    def tokens(self, request: Json) -> Json:
        """Token ids and token types of every text, as the loader makes them."""
        return self._ask("tokens", request)

    def answers(self, request: Json) -> Json:
        """The answers of the loader to a list of texts."""
        return self._ask("answers", request)

    def bench(self, request: Json) -> Json:
        """Latency of every run, with the seconds of all on the wall and of the process that computes."""
        inputs = self._given(request["inputs"])
        asked = {key: request.get(key) for key in ("runs", "clients")}
        warmup = {"runs": 1, "warmup": max(0, int(request.get("warmup", 1)) - 1)}
        if request.get("warmup", 1):
            self._ask("bench", {"inputs": inputs, **warmup})
        before = self._cpu_seconds()
        found = self._ask("bench", {"inputs": inputs, "warmup": 0, **asked})
        return {**found, "cpu_seconds": max(0.0, self._cpu_seconds() - before)}

    def copies(self, _: Json) -> Json:
        """Copies between host and device: there is one memory."""
        return {"copies": {}}

    def operators(self, _: Json) -> Json:
        """Where the time of a run goes: these runtimes tell nothing of their nodes."""
        return {"operators": []}

    def soak(self, request: Json) -> Json:
        """Run many distinct shapes, as `loading/soak.py` of other bundles does in its process."""
        rules, began = runtime_module("loading.soak"), time.perf_counter()
        axis_of = runtime_module("loading.interface").Axis
        axes = [axis_of(**axis) for axis in self._ask("info")["axes"]]
        seconds = float(request.get("seconds", SOAK_SECONDS))
        sizes = [rules._sizes_of(axis) for axis in axes]
        count = 1
        for values in sizes:
            count *= len(values)
        if count <= 1:
            still = {"shapes": 0, "of": count, "seconds": 0.0, "end": "fixed", "grown_bytes": 0}
            return {**still, "peak_rss_bytes": self._memory()[1]}
        largest = {axis.name: values[-1] for axis, values in zip(axes, sizes, strict=True)}
        slowest = self._timed(largest)
        first = self._memory()[0]
        held, end = [first], "all"
        for shape in rules._soak_shapes(axes, max(1.0, seconds / 20) / slowest):
            flat = max(rules.SOAK_FLAT_BYTES, held[-1] // 100)
            if len(held) > rules.SOAK_WINDOW and rules._growth(held) <= flat:
                end = "plateau"
                break
            late = time.perf_counter() - began > seconds and len(held) > rules.SOAK_LARGE
            if late or len(held) > rules.SOAK_SHAPES:
                end = "time"
                break
            self._timed(shape)
            held.append(self._memory()[0])
        self._timed(largest)
        shapes = min(count, len(held))
        window = max(1, min(rules.SOAK_WINDOW, shapes - 1))
        more = (count - shapes) * rules._growth(held) // window if end == "time" else 0
        return {
            "shapes": shapes,
            "of": count,
            "seconds": time.perf_counter() - began,
            "end": end,
            "grown_bytes": max(0, max(held) - first) + more,
            "peak_rss_bytes": self._memory()[1] + more,
        }

    def info(self, _: Json) -> Json:
        """What is loaded, on how many threads, and the greatest memory of the process that computes so far."""
        return self._shown(self._ask("info"))

    def _timed(self, sizes: Mapping[str, int]) -> float:
        began = time.perf_counter()
        self._ask("example", {"sizes": dict(sizes)})
        return max(1e-6, time.perf_counter() - began)

    def _shown(self, info: Json) -> Json:
        about = {**_PLACED, **self._about(), "load_seconds": info["seconds"].get("total")}
        return {**info, **about, "peak_rss_bytes": self._memory()[1]}

    @abstractmethod
    def _ask(self, operation: str, request: Mapping[str, Any] | None = None) -> Json:
        """What the bundle's loader answers.

        Raises:
            CodedError: it refuses, in its own words.
        """

    @abstractmethod
    def _given(self, inputs: str) -> str:
        """How the loader is told of a file of arrays."""

    @abstractmethod
    def _cpu_seconds(self) -> float:
        """Seconds that the process has computed."""

    @abstractmethod
    def _memory(self) -> tuple[int, int]:
        """Bytes that the process holds now, and at most so far."""

    @abstractmethod
    def _about(self) -> Json:
        """What computes."""


def resident(process: int) -> tuple[int, int]:
    """Bytes that a process holds in memory now, and at most so far; zeros for one that has ended."""
    found = {"VmRSS": 0, "VmHWM": 0}
    with suppress(OSError, ValueError):
        for line in Path(f"/proc/{process}/status").read_text("ascii", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name in found:
                found[name] = int(value.split()[0]) * 1024
    return found["VmRSS"], found["VmHWM"]
