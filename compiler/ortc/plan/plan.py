"""The plan: what a build will do, with every default filled in. Frozen, JSON-serialisable, hashable."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ortc.common.values import Frozen, Sparse, digest
from ortc.spec.accuracy import Embeddings, Metric, SamplesFunction
from ortc.spec.model_sources import (
    ExportedProgramSource,
    HuggingFaceSource,
    ModelSource,
    OnnxSource,
    PyTorchSource,
    models_beside,
)
from ortc.spec.profile import (
    Concurrency,
    Fallback,
    GraphLevel,
    Rewrite,
    RuntimePackage,
    Threads,
)
from ortc.spec.quantization import Quantization
from ortc.spec.relations import Relation
from ortc.spec.vocabulary import (
    MAX_AXES,
    MAX_SIZE,
    WEB,
    AxisName,
    DType,
    Exporter,
    Name,
    Objective,
    Platform,
    Precision,
    RelativePath,
    Sha256,
    Version,
)

FORMAT_VERSION = 1
PositiveSize = Annotated[int, Field(ge=1, le=MAX_SIZE)]


class AxisPlan(Sparse):
    """A dynamic axis with its bounds, all included."""

    optional: ClassVar[frozenset[str]] = frozenset(("equals",))
    name: AxisName
    min: PositiveSize
    typical: PositiveSize
    max: PositiveSize
    multiple_of: PositiveSize = 1
    equals: Relation | None = None


def settled(axes: Iterable[AxisPlan], sizes: Mapping[str, int]) -> dict[str, int]:
    """Sizes in the order of the axes, with those that follow from others in the place of what was given."""
    return {axis.name: sizes[axis.name] if axis.equals is None else axis.equals.size(sizes) for axis in axes}


class InputPlan(Frozen):
    """One input tensor; shape entries are axis names or sizes.

    `examples` are what elements of a string input are drawn from, or rows of its columns.

    `mask` is what the value 1 of a declared padding mask means. `end` is the token that every row of token ids has
    once, as the last one that is no padding: a model that reads its answer there refuses other rows.
    """

    name: str
    dtype: DType
    shape: tuple[AxisName | Annotated[int, Field(ge=0, le=MAX_SIZE)], ...]
    range: tuple[int | float, int | float] | None = None
    fill: int | float | None = None
    examples: tuple[str | tuple[str, ...], ...] | None = None
    mask: Literal["read", "padding"] | None = None
    end: int | None = None


class ExportPlan(Frozen):
    """How the model becomes ONNX."""

    opset: Annotated[int, Field(ge=9)]
    ir_version: int
    exporter: Exporter
    axes: Annotated[tuple[AxisPlan, ...], Field(max_length=MAX_AXES)]
    inputs: tuple[InputPlan, ...] | None
    outputs: Annotated[tuple[str, ...], Field(min_length=1)] | None


class AccuracyPlan(Frozen):
    """The parity promises of the spec."""

    max_abs: Annotated[float, Field(gt=0)]
    cosine: Annotated[float, Field(gt=0, le=1)]
    relative_error: Annotated[float, Field(ge=0)]
    nrmse: Annotated[float, Field(gt=0)]
    spearman: Annotated[float, Field(ge=-1, le=1)]
    top1_agreement: Annotated[float, Field(gt=0, le=1)] | None
    answer_cosine: Annotated[float, Field(gt=0, le=1)] | None = None
    answer_f1: Annotated[float, Field(gt=0, le=1)] | None = None
    answer_top1: Annotated[float, Field(gt=0, le=1)] | None = None
    answer_token_errors: Annotated[float, Field(ge=0, lt=1)] | None = None
    samples: RelativePath | SamplesFunction | None
    embeddings: Embeddings | None
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
    providers: Annotated[tuple[ProviderPlan, ...], Field(min_length=1)]
    concurrency: Concurrency = "one"


class RuntimePlan(Frozen):
    """The pinned runtime."""

    package: RuntimePackage
    version: str
    minimum_version: str
    pins: str
    pins_sha256: Sha256


class VariantPlan(Frozen):
    """A variant that will be tried."""

    name: Name
    precision: Literal["fp32", "fp16", "bf16", "int8"]
    quantization: Quantization | None = None
    fallback: tuple[Fallback, ...] = ()
    blocks: tuple[str, ...] = Field(default=(), description="Nodes whose weights alone are rounded, to 8 bits.")
    exclude: tuple[str, ...] = Field(default=(), description="Nodes that stay in floating point.")
    stands_in_for: Name | None = Field(default=None, description="It is made only where this variant cannot be.")
    rewrites: tuple[Rewrite, ...] = ()
    offline: bool
    runtime: RuntimePlan
    session: SessionPlan

    @property
    def is_calibrated(self) -> bool:
        """Whether it is made with the ranges that activations take on samples."""
        return self.quantization is not None and self.quantization.is_calibrated

    @property
    def is_mixed(self) -> bool:
        """Whether some of its nodes are kept in higher precision."""
        return bool(self.blocks or self.exclude)


class TuningPlan(Frozen):
    """Session settings that will be raced for the variant that won."""

    name: Name
    concurrency: Concurrency
    intra_op: Literal["physical"] | Annotated[int, Field(ge=1)] | None
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

    sizes: tuple[tuple[AxisName, PositiveSize], ...]

    def as_dict(self) -> dict[str, int]:
        """Axis name to size."""
        return dict(self.sizes)

    def __str__(self) -> str:
        return ", ".join(f"{name}={size}" for name, size in self.sizes) or "fixed shape"


_LATENCY = "latency_budget."


class BudgetPlan(Frozen):
    """Every limit that a target promises, by the key that a spec gives it; seconds, bytes and counts.

    Percentiles of the latency are `latency_budget.p50`, `latency_budget.p90` and `latency_budget.p99`.
    """

    limits: dict[str, int | float] = Field(default_factory=dict)

    def limit(self, key: str) -> int | float | None:
        """The limit of a budget, None where nothing was promised."""
        return self.limits.get(key)

    @property
    def latency(self) -> dict[str, float]:
        """Seconds by percentile."""
        return {key.removeprefix(_LATENCY): limit for key, limit in self.limits.items() if key.startswith(_LATENCY)}


class ImagePlan(Frozen):
    """What the Dockerfile is rendered from."""

    base_image: str
    python: str
    template: str


class TargetPlan(Frozen):
    """One target of the build."""

    name: Name
    profile: Name
    description: str
    platforms: Annotated[tuple[Platform, ...], Field(min_length=1)]
    requires_gpu: bool
    precision: Precision
    objective: Objective
    must_save: Annotated[float, Field(ge=0, lt=1)] = Field(
        description="Under `balanced`, the share of the latency budget that another runtime or precision must save."
    )
    variants: tuple[VariantPlan, ...]
    left_out: tuple[LeftOut, ...]
    tuning: tuple[TuningPlan, ...]
    tuned: str | None = Field(default=None, description="The tuning that is taken without a race, of a locked build.")
    graph_levels: Annotated[tuple[GraphLevel, ...], Field(min_length=1)]
    measure_at: Shape
    budgets: BudgetPlan
    prepack: bool
    batch_invariance: Literal["require", "report"]
    unmeasured: Literal["fail", "allow"]
    image: ImagePlan | None

    @property
    def is_web(self) -> bool:
        """Whether its bundles run in browsers."""
        return WEB in self.platforms

    @property
    def is_node(self) -> bool:
        """Whether its bundles run in Node."""
        return self.image is None and not self.is_web

    @property
    def is_javascript(self) -> bool:
        """Whether a loader in JavaScript runs its bundles, in browsers or in Node."""
        return self.image is None

    @property
    def calibrates(self) -> bool:
        """Whether some variant needs samples that nothing is judged by."""
        return any(variant.is_calibrated or variant.fallback or variant.is_mixed for variant in self.variants)


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

ModelPlan = ModelSource
SourcePlan = HuggingFaceSource | PyTorchSource | OnnxSource | ExportedProgramSource
"""Where a model comes from, whether the one that ships, its teacher or its reference."""


class Plan(Frozen):
    """Everything that a build of one spec will do."""

    format_version: int = FORMAT_VERSION
    ortc_version: str
    name: Name
    version: Version
    search: Search
    variant: Name | None = Field(
        description="The only variant that is tried, or its mix, whatever its precision; None for all."
    )
    holds_out: bool = Field(description="Whether a target of the spec, planned here or not, calibrates.")
    model: ModelPlan
    export: ExportPlan
    accuracy: AccuracyPlan
    cases: tuple[CasePlan, ...]
    skipped_cases: tuple[SkippedCase, ...]
    targets: Annotated[tuple[TargetPlan, ...], Field(min_length=1)]

    @property
    def calibrates(self) -> bool:
        """Whether half of the samples are held out for calibration, and nothing is judged by them."""
        return self.holds_out or any(target.calibrates for target in self.targets)

    def to_json(self) -> str:
        """Canonical, indented JSON; `Plan.model_validate_json` reads it back."""
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"

    def slice(self, *names: str) -> Plan:
        """The plan of some targets alone. A bundle depends on that of its own target."""
        return self.model_copy(update={"targets": tuple(entry for entry in self.targets if entry.name in names)})

    def entrypoints(self) -> tuple[str, ...]:
        """Functions of the user's that a build calls: of all models, the samples and the metric."""
        sources = (self.model, *models_beside(self.model).values())
        named = [source.entrypoint for source in sources if isinstance(source, PyTorchSource)]
        declared = (self.accuracy.samples, self.accuracy.metric)
        named += [entry.entrypoint for entry in declared if isinstance(entry, SamplesFunction | Metric)]
        return tuple(dict.fromkeys(named))

    def digest(self) -> str:
        """sha256 of the plan."""
        return digest(self)
