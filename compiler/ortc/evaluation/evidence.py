"""What one host knows of a bundle, and what that says of the quantity of each budget."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ortc.common.statistics import Interval, percentile
from ortc.common.units import format_bytes
from ortc.evaluation.gate_table import Bounds, Observation
from ortc.evaluation.latency import REFERENCE
from ortc.evaluation.noise import control_state, starts_noise
from ortc.evaluation.report import Check, Numbers, Starts
from ortc.plan.plan import Shape


@dataclass(frozen=True, slots=True)
class Placed:
    """Nodes of a served graph: left to the CPU, of those for shapes alone, and copies (None where not counted)."""

    cpu_nodes: int
    shape_nodes: int
    memcpy_nodes: int | None

    @classmethod
    def of(cls, check: Check) -> Placed:
        """Return what a check has counted."""
        return cls(check.cpu_nodes, check.shape_nodes, check.memcpy_nodes)


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that may be known when budgets are judged; None and empty where this host does not know it.

    `wheels` are bytes that the loader downloads by platform. Latencies in `numbers` were measured at the shape `at`.
    """

    model_bytes: int | None = None
    wheels: Mapping[str, int] = field(default_factory=dict)
    peak_rss_bytes: int | None = None
    placed: Placed | None = None
    starts: Starts | None = None
    numbers: Numbers | None = None
    at: Shape | None = None

    def amount(self, value: float | None) -> Iterator[Observation]:
        """Yield an exact number, where it is known."""
        if value is not None:
            yield Observation(value)

    def downloads(self) -> Iterator[Observation]:
        """Yield the bytes of the model and of the loader's wheels for each platform: no host has to be of it."""
        if self.model_bytes is None:
            return
        for platform, size in self.wheels.items():
            where = f"model {format_bytes(self.model_bytes)}, the loader's wheels {format_bytes(size)}"
            yield Observation(self.model_bytes + size, where=where, platform=platform)

    def cpu_nodes(self) -> Iterator[Observation]:
        """Yield how many nodes another provider than the CPU's left to the CPU, besides those for shapes."""
        if self.placed is not None:
            shapes = self.placed.shape_nodes
            yield Observation(self.placed.cpu_nodes, said=f"{shapes} more compute shapes" if shapes else "")

    def memcpy_nodes(self) -> Iterator[Observation]:
        """Yield how many nodes copy between host and device."""
        if self.placed is not None:
            copies = self.placed.memcpy_nodes
            yield Observation(copies, said="not counted" if copies is None else "")

    def percentile(self, name: Literal["p50", "p90", "p99"]) -> Iterator[Observation]:
        """Yield a latency percentile in seconds."""
        if (found := self.numbers) is None:
            return
        interval = {"p50": found.p50_ms, "p90": found.p90_ms, "p99": found.p99_ms}[name]
        yield Observation(
            interval.value / 1000,
            _seconds(interval),
            best=None if found.fastest_ms is None else found.fastest_ms / 1000,
            noise=found.noise,
            is_quiet=found.control == "quiet",
            where=_where(f"{self.at}, {interval.samples} samples", found.noise, found.control),
        )

    def start(self) -> Iterator[Observation]:
        """Yield the median time from process start to the first answer in seconds: five starts have no interval."""
        if self.numbers is not None:
            found = self.numbers
            yield _start(found.start_seconds, found.fastest_start_seconds, found.start_noise, found.control)
        elif self.starts is not None:
            seconds, control = self.starts.seconds, control_state(self.starts.control)
            yield _start(percentile(seconds, 0.5), min(seconds), starts_noise(self.starts), control)

    def speedup(self) -> Iterator[Observation]:
        """Yield the ratio of PyTorch's median latency to the bundle's."""
        if (found := self.numbers) is None:
            return
        ratio = found.speedup
        yield Observation(
            None if ratio is None else ratio.value,
            None if ratio is None else (ratio.low, ratio.high),
            best=found.best_ratio,
            noise=found.speedup_noise,
            is_quiet=found.control == "quiet",
            said="no PyTorch reference" if ratio is None else "",
            where=_where(f"over {REFERENCE}, {self.at}", found.speedup_noise, None),
        )


def _start(start: Interval, best: float | None, noise: tuple[str, ...], control: str | None) -> Observation:
    where = _where(f"median of {start.samples} starts", noise, None)
    return Observation(start.value, best=best, noise=noise, is_quiet=control == "quiet", where=where)


def _where(text: str, noise: Sequence[str], control: str | None) -> str:
    if noise:
        return f"{text}; too busy to measure: {noise[0]}"
    return f"{text}, no control" if control == "none" else text


def _seconds(interval: Interval) -> Bounds:
    """Return the bounds of an interval in milliseconds."""
    low, high = (None if bound is None else bound / 1000 for bound in (interval.low, interval.high))
    return low, high
