"""The plan: what a build will do, with every default filled in. Frozen, JSON-serialisable, hashable."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from ortc.spec import (
    DType,
    ExportedProgramSource,
    Exporter,
    HuggingFaceSource,
    Metric,
    Objective,
    OnnxSource,
    Platform,
    Precision,
    PyTorchSource,
)
from ortc.target import Calibration, Concurrency, GraphLevel, Quantization, Rewrite, Threads

FORMAT_VERSION = 1


class Frozen(BaseModel):
    """Base of plan and report values: immutable, and an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class AxisPlan(Frozen):
    """A dynamic axis with its bounds, all included."""

    name: str
    min: int
    typical: int
    max: int
    multiple_of: int = 1


class InputPlan(Frozen):
    """One input tensor; shape entries are axis names or sizes."""

    name: str
    dtype: DType
    shape: tuple[str | int, ...]
    range: tuple[int | float, int | float] | None = None
    fill: int | float | None = None


class ExportPlan(Frozen):
    """How the model becomes ONNX."""

    opset: int
    ir_version: int
    exporter: Exporter
    axes: tuple[AxisPlan, ...]
    inputs: tuple[InputPlan, ...] | None
    outputs: tuple[str, ...] | None


class AccuracyPlan(Frozen):
    """The parity promises of the spec."""

    max_abs: float
    cosine: float
    top1_agreement: float | None
    samples: str | None
    metric: Metric | None


class ProviderPlan(Frozen):
    """An execution provider of the chain with its options."""

    name: str
    options: dict[str, str]


class SessionPlan(Frozen):
    """What session.json is made from; the graph level is chosen per variant."""

    options: dict[str, bool | str]
    config_entries: dict[str, str]
    threads: Threads
    environment: dict[str, str]
    providers: tuple[ProviderPlan, ...]
    concurrency: Concurrency = "one"


class RuntimePlan(Frozen):
    """The pinned runtime."""

    package: str
    version: str
    minimum_version: str
    pins: str
    pins_sha256: str


class VariantPlan(Frozen):
    """A variant that will be tried."""

    name: str
    precision: Literal["fp32", "fp16", "bf16", "int8"]
    quantization: Quantization
    operators: tuple[str, ...]
    smooth: bool = False
    weight_only: bool = False
    keep_narrowing: bool = False
    smoothing: float | None = None
    calibration: Calibration = "minmax"
    rewrites: tuple[Rewrite, ...] = ()
    offline: bool
    runtime: RuntimePlan
    session: SessionPlan


class TuningPlan(Frozen):
    """Session settings that will be raced for the variant that won."""

    name: str
    concurrency: Concurrency
    intra_op: Literal["physical"] | int | None
    options: dict[str, bool | str]
    config_entries: dict[str, str]

    def apply(self, session: SessionPlan) -> SessionPlan:
        """The session with these settings over its own."""
        threads = (
            session.threads if self.intra_op is None else session.threads.model_copy(update={"intra_op": self.intra_op})
        )
        return session.model_copy(
            update={
                "options": {**session.options, **self.options},
                "config_entries": {**session.config_entries, **self.config_entries},
                "threads": threads,
                "concurrency": self.concurrency,
            }
        )


class LeftOut(Frozen):
    """A variant of the profile that is not tried, and why."""

    variant: str
    reason: str


class Shape(Frozen):
    """Sizes of dynamic axes, in the order of the plan's axes."""

    sizes: tuple[tuple[str, int], ...]

    def as_dict(self) -> dict[str, int]:
        """Axis name to size."""
        return dict(self.sizes)

    def __str__(self) -> str:
        return ", ".join(f"{name}={size}" for name, size in self.sizes) or "fixed shape"


class LatencyPlan(Frozen):
    """A latency budget: percentile to seconds, at one shape."""

    percentiles: tuple[tuple[Literal["p50", "p90", "p99"], float], ...]


class BudgetPlan(Frozen):
    """Every budget of a target; None where nothing was promised. Seconds and bytes."""

    latency: LatencyPlan | None
    size: int | None
    memory: int | None
    start: float | None
    min_speedup: float | None
    max_cpu_nodes: int | None


class ImagePlan(Frozen):
    """What the Dockerfile is rendered from."""

    base_image: str
    python: str
    template: str


class TargetPlan(Frozen):
    """One target of the build."""

    name: str
    profile: str
    description: str
    platforms: tuple[Platform, ...]
    requires_gpu: bool
    precision: Precision
    objective: Objective
    variants: tuple[VariantPlan, ...]
    left_out: tuple[LeftOut, ...]
    tuning: tuple[TuningPlan, ...]
    tuned: str | None = Field(default=None, description="The tuning that is taken without a race, of a locked build.")
    graph_levels: tuple[GraphLevel, ...]
    measure_at: Shape
    budgets: BudgetPlan
    batch_invariance: Literal["require", "report"]
    unmeasured: Literal["fail", "allow"]
    image: ImagePlan


class CasePlan(Frozen):
    """One point of the shape matrix."""

    shape: Shape
    padded: bool = Field(description="Rows of different lengths, where the model takes an attention mask.")

    def __str__(self) -> str:
        return f"{self.shape}{', padded' if self.padded else ''}"


class SkippedCase(Frozen):
    """A combination that is not checked, and why."""

    shape: Shape
    reason: str


Search = Literal["full", "quick", "none"]
"""How far a build looks: every variant and the whole shape matrix; its corners only; the first variant alone."""

ModelPlan = Annotated[
    HuggingFaceSource | PyTorchSource | OnnxSource | ExportedProgramSource, Field(discriminator="source")
]


class Plan(Frozen):
    """Everything that a build of one spec will do."""

    format_version: int = FORMAT_VERSION
    ortc_version: str
    name: str
    version: str
    search: Search
    model: ModelPlan
    export: ExportPlan
    accuracy: AccuracyPlan
    cases: tuple[CasePlan, ...]
    skipped_cases: tuple[SkippedCase, ...]
    targets: tuple[TargetPlan, ...]

    @property
    def calibrates(self) -> bool:
        """Whether some variant needs samples that nothing is judged by."""
        return any(v.quantization == "int8-static" for target in self.targets for v in target.variants)

    def to_json(self) -> str:
        """Canonical, indented JSON; `Plan.model_validate_json` reads it back."""
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"

    def slice(self, target: str) -> Plan:
        """The plan of one target alone: what its bundle depends on."""
        return self.model_copy(update={"targets": tuple(entry for entry in self.targets if entry.name == target)})

    def digest(self) -> str:
        """sha256 of the plan."""
        return digest(self)


def canonical(value: object) -> str:
    """One text for equal values: compact JSON with sorted keys."""
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value: object) -> str:
    """sha256, in hex, of the canonical JSON of a value."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()
