"""The table of gates: what each one compares, in which unit and digits, and where the quantity of a budget is seen.

Every consumer of gates iterates this table. A new budget is a field of `ortc.spec.budgets.Budgets` and a row here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from ortc.evaluation.evidence import Evidence

Unit = Literal["", "seconds", "bytes", "times", "nodes"]
"""Of a value and its limit; "" of numbers without one, like a cosine."""
Comparison = Literal["<=", ">="]
Bounds = tuple[float | None, float | None]
Kind = Literal["answers", "embeddings", "budget", "other"]
"""Answers and embeddings decide accuracy. Every other gate but `runs` and `applies` counts as a budget."""
Scope = Literal["anywhere", "target", "beside PyTorch"]
"""Where a budget can be judged: on any host, on the target's platform and hardware, or only next to the model there."""

TEACHER = "teacher "
"""Begins the name of a gate that compares with the teacher of a distilled model."""
ON_CPU = " on CPU"
"""Ends the name of a gate that was judged on the CPU provider, for a target that this host cannot run."""
ON_AVX2 = " on AVX2"
"""Ends the name of a gate that was judged on an emulated processor without VNNI."""


@dataclass(frozen=True, slots=True)
class Observation:
    """A quantity as one host saw it, in the unit of its gate.

    `value` is None where the quantity was not measured, and `said` explains it. An `interval` decides in the place of
    the value. `best` is the best single sample, `noise` the reasons against a quiet machine, and `is_quiet` says that
    the control workload was undisturbed. `platform` is another one than the host's, where the quantity is known there.
    """

    value: float | None
    interval: Bounds | None = None
    best: float | None = None
    noise: tuple[str, ...] = ()
    is_quiet: bool = False
    said: str = ""
    where: str = ""
    platform: str | None = None


@dataclass(frozen=True, slots=True)
class Gate:
    """A row: how a gate compares and how its numbers read.

    `places` are decimal places of a value without a unit; `is_significant` shows three significant digits instead.
    `limit_format` formats the limit of such a value. `is_headline`: the gate may stand for the accuracy of a variant.
    """

    name: str
    comparison: Comparison = "<="
    unit: Unit = ""
    kind: Kind = "answers"
    places: int = 5
    is_significant: bool = False
    limit_format: str = ""
    is_headline: bool = False

    def holds(self, value: float, limit: float) -> bool:
        """Whether a value keeps a limit; NaN never does."""
        return value <= limit if self.comparison == "<=" else value >= limit


@dataclass(frozen=True, slots=True)
class Budget(Gate):
    """A row of a budget: `key` is where a spec's target states the limit, `observe` what was seen of the quantity."""

    kind: Kind = "budget"
    key: str = ""
    scope: Scope = "target"
    observe: Callable[[Evidence], Iterator[Observation]] = lambda seen: iter(())


GATES: tuple[Gate, ...] = (
    Gate("outputs"),
    Gate("max_abs", is_significant=True, is_headline=True),
    Gate("cosine", ">=", is_headline=True),
    Gate("relative_error"),
    Gate("nrmse", is_headline=True),
    Gate("spearman", ">="),
    Gate("top1_agreement", ">=", places=4, is_headline=True),
    Gate("metric", ">=", places=4, limit_format=".4f"),
    Gate("answer_cosine", ">="),
    Gate("answer_f1", ">=", places=4),
    Gate("answer_top1", ">=", places=4),
    Gate("answer_token_errors", "<=", places=4),
    Gate("cosine_mean", ">=", kind="embeddings"),
    Gate("cosine_min", ">=", kind="embeddings"),
    Gate("rank_correlation", ">=", kind="embeddings"),
    Gate("batch_invariance", kind="other", is_significant=True),
    Gate("weights", unit="bytes", kind="other"),
    Budget(
        "size",
        unit="bytes",
        key="size_budget",
        scope="anywhere",
        observe=lambda seen: seen.amount(seen.model_bytes),
    ),
    Budget(
        "download",
        unit="bytes",
        key="download_budget",
        scope="anywhere",
        observe=lambda seen: seen.downloads(),
    ),
    Budget("memory", unit="bytes", key="memory_budget", observe=lambda seen: seen.amount(seen.peak_rss_bytes)),
    Budget("cpu_nodes", unit="nodes", key="max_cpu_nodes", observe=lambda seen: seen.cpu_nodes()),
    Budget("memcpy_nodes", unit="nodes", key="max_memcpy_nodes", observe=lambda seen: seen.memcpy_nodes()),
    Budget("latency p50", unit="seconds", key="latency_budget.p50", observe=lambda seen: seen.percentile("p50")),
    Budget("latency p90", unit="seconds", key="latency_budget.p90", observe=lambda seen: seen.percentile("p90")),
    Budget("latency p99", unit="seconds", key="latency_budget.p99", observe=lambda seen: seen.percentile("p99")),
    Budget("start", unit="seconds", key="start_budget", observe=lambda seen: seen.start()),
    Budget(
        "speed-up",
        ">=",
        unit="times",
        key="min_speedup",
        scope="beside PyTorch",
        observe=lambda seen: seen.speedup(),
    ),
)
BUDGETS: tuple[Budget, ...] = tuple(gate for gate in GATES if isinstance(gate, Budget))
EMBEDDING_GATES = tuple(gate.name for gate in GATES if gate.kind == "embeddings")
_ANSWERS = tuple(gate.name for gate in GATES if gate.kind == "answers")
ACCURACY_GATES = frozenset({*_ANSWERS, *EMBEDDING_GATES, *(f"{TEACHER}{gate}" for gate in _ANSWERS)})
HEADLINES = frozenset(gate.name for gate in GATES if gate.is_headline)
_BY_NAME = {gate.name: gate for gate in GATES}


def gate_of(name: str) -> Gate:
    """Look up a gate by the name that a verdict has, wherever and against whatever it was judged."""
    plain = plain_gate(name).removeprefix(TEACHER)
    return _BY_NAME.get(plain, Gate(plain, kind="other"))


def plain_gate(name: str) -> str:
    """Return the name of a gate without the place where it was judged."""
    return name.removesuffix(ON_CPU).removesuffix(ON_AVX2)
