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
from ortc.target import GraphLevel, Quantization, Threads

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
    offline: bool


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
    runtime: RuntimePlan
    session: SessionPlan
    precision: Precision
    objective: Objective
    variants: tuple[VariantPlan, ...]
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


ModelPlan = Annotated[
    HuggingFaceSource | PyTorchSource | OnnxSource | ExportedProgramSource, Field(discriminator="source")
]


class Plan(Frozen):
    """Everything that a build of one spec will do."""

    format_version: int = FORMAT_VERSION
    ortc_version: str
    name: str
    version: str
    model: ModelPlan
    export: ExportPlan
    accuracy: AccuracyPlan
    cases: tuple[CasePlan, ...]
    skipped_cases: tuple[SkippedCase, ...]
    targets: tuple[TargetPlan, ...]

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
