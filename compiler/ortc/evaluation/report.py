"""What a build found: checks, measurements, verdicts and decisions. Frozen, JSON-serialisable."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, computed_field, model_validator

from ortc.common.statistics import Interval
from ortc.common.values import MOST, Count, Frozen, Measured, Timed
from ortc.evaluation import wording
from ortc.evaluation.compare import Difference
from ortc.evaluation.details import CaseDifferences, Histogram, OperatorTimes, SampleAnswer
from ortc.evaluation.footprint import Footprint
from ortc.evaluation.gate_table import Bounds, Comparison, Unit
from ortc.evaluation.spread import LabelAgreement, OutputError
from ortc.evaluation.trade import Trade
from ortc.execution.host import Host
from ortc.passes.kernel_tables import Forecast
from ortc.passes.variant_graph import StoredTensors
from ortc.plan.precision_mix import Mix

FORMAT_VERSION = 2
"""Of reports; 1 had no histograms, cases, answers and tensors, and is read as a report without them."""

Outcome = Literal["pass", "fail", "inconclusive", "unmeasured"]


class CaseResult(Frozen):
    """One case of the parity check: a point of the shape matrix or a batch of real samples.

    `teacher` is how far the answers are from the teacher's, where the model has one that was asked.
    """

    case: str
    differences: tuple[Difference, ...]
    teacher: tuple[Difference, ...] = ()


class EmbeddingCheck(Frozen):
    """Pooled embeddings of real samples against the reference's: cosine similarities, and Spearman's correlation of the
    similarities of all pairs; None where there are too few to rank."""

    samples: int
    cosine_mean: float
    cosine_min: float
    rank_correlation: float | None


class AnswerCheck(Frozen):
    """Answers to sample requests against PyTorch's: the least cosine similarity, and the sample that has it.

    `agreement` is how far both name the same, by the `gate` that it is judged by, for token errors 1 less them;
    `named` are as many as PyTorch names. `furthest` are the answers that are furthest from PyTorch's, worst first.
    """

    texts: int
    unit: Literal["texts", "images", "sounds"] = "texts"
    cosine_min: float
    worst: str
    gate: Literal["answer_f1", "answer_top1", "answer_token_errors"] | None = None
    agreement: float = 1.0
    named: int = 0
    furthest: tuple[SampleAnswer, ...] = ()


class Soak(Frozen):
    """Many distinct shapes, run by one process: what runtimes keep for every shape that they have seen.

    `shapes` were run of all that there are (`of`). `end` says why no more were: resident memory was flat (`plateau`),
    there were no more (`all`), the time was over (`time`; then the growth is continued over the rest), or no axis is
    dynamic (`fixed`). `grown_bytes` is how much more is resident than after the first, largest shape.
    """

    shapes: Count
    of: Count
    seconds: Measured
    end: Literal["plateau", "all", "time", "fixed"]
    grown_bytes: Annotated[int, Field(ge=-MOST, le=MOST)]
    peak_rss_bytes: Count


class Check(Frozen):
    """What one variant did at one graph level, in the runtime that ships.

    `error` says why it could not run at all. `outputs` are errors over all rows, and `labels` counts of
    integers. Bytes and seconds; `invariance` is the greatest difference between a row
    alone and the same row among others, None without a batch axis. `cpu_nodes` is how many another provider than the
    CPU left to it, `shape_nodes` how many more that compute nothing but shapes, and `memcpy_nodes` how many copies
    between host and device ran, None where nobody asked.
    """

    error: str | None = None
    cases: tuple[CaseResult, ...] = ()
    outputs: tuple[OutputError, ...] = ()
    labels: tuple[LabelAgreement, ...] = ()
    invariance: float | None = None
    placement: dict[str, int] = Field(default_factory=dict)
    cpu_nodes: int = 0
    shape_nodes: int = 0
    memcpy_nodes: int | None = None
    peak_rss_bytes: int = 0
    soak: Soak | None = None
    metric: float | None = None
    embeddings: EmbeddingCheck | None = None
    answers: AnswerCheck | None = None
    times: OperatorTimes | None = None

    def is_invariant(self, max_abs: float) -> bool:
        """Whether a row's answer is the same, within the fp32 promise, whatever other rows are in the batch."""
        return self.invariance is not None and self.invariance <= max_abs


class Contender(Frozen):
    """Times of one contender, in milliseconds, by round: of each request, or of a request's share in a crowd.

    `wall_seconds` is how long the counted runs of each round took together, and `cpu_seconds` what all threads of its
    process computed meanwhile. Both are empty where they were not recorded.
    """

    name: str
    rounds: tuple[tuple[float, ...], ...]
    wall_seconds: tuple[float, ...] = ()
    cpu_seconds: tuple[float, ...] = ()

    def samples(self) -> tuple[float, ...]:
        """All counted samples."""
        return tuple(value for values in self.rounds for value in values)


class Control(Frozen):
    """A fixed computation of a process of its own, timed before every turn of a race or every start.

    Milliseconds of each run by turn, of all threads; seconds of each turn, and of the processor meanwhile.
    """

    threads: Annotated[int, Field(ge=1, le=4096)]
    rounds: tuple[Annotated[tuple[Timed, ...], Field(min_length=1)], ...]
    wall_seconds: tuple[Timed, ...]
    cpu_seconds: tuple[Measured, ...]


class BusyProcess(Frozen):
    """A process beside a measurement: its name without arguments, and how many cores it used."""

    name: Annotated[str, Field(pattern=r"^[\x20-\x7e]{1,32}$")]
    cores: Annotated[float, Field(ge=0, le=1e6)]


class Load(Frozen):
    """What else the machine did during a measurement.

    `average` is the load average of the last minute, with the measurement's own share; None where the system has none.
    `stolen` is how many cores the hypervisor gave to other machines.
    """

    average: Annotated[float, Field(ge=0, le=1e6)] | None = None
    stolen: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    processes: Annotated[tuple[BusyProcess, ...], Field(max_length=16)] = ()


class Race(Frozen):
    """An interleaved run of contenders at one shape on one host, for latency or for throughput.

    `control` and `load` are None in what was measured without a control.
    """

    measure: Literal["latency", "throughput"] = "latency"
    shape: str
    host: Host
    threads: int
    contenders: tuple[Contender, ...]
    control: Control | None = None
    load: Load | None = None


class Starts(Frozen):
    """Starts of a process up to its first answer: seconds of each, and the peak resident bytes of all.

    Of browsers also seconds of second visits, whose files the browser kept, and the bytes that a first visit fetched.
    """

    seconds: tuple[float, ...]
    peak_rss_bytes: int
    cached_seconds: tuple[float, ...] = ()
    downloaded_bytes: int | None = None
    control: Control | None = None
    load: Load | None = None


class Verdict(Frozen):
    """One promise of the spec on one platform.

    `value` was observed, with the bounds of its 95 % interval where it has one, and must be `comparison` `bound`, in
    `unit`. Where what was observed or promised is no number, `said` and `required` hold it in words; beside a number
    they are what people should know of it. `where` says at which output, shape or case the worst value was seen.
    `observed` and `limit` are the same for people.
    """

    gate: str
    platform: str
    outcome: Outcome
    value: float | None = None
    interval: Bounds | None = None
    comparison: Comparison | None = None
    bound: float | None = None
    unit: Unit = ""
    said: str = ""
    required: str = ""
    where: str = ""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def observed(self) -> str:
        """The observation in words."""
        text = wording.observed(self.value, self.interval, self.bound, self.unit, self.gate)
        return f"{text} ({self.said})" if text and self.said else text or self.said

    @computed_field  # type: ignore[prop-decorator]
    @property
    def limit(self) -> str:
        """The promise in words."""
        if self.comparison is None or self.bound is None:
            return self.required
        text = wording.required(self.comparison, self.value, self.bound, self.unit, self.gate)
        return f"{text}, {self.required}" if self.required else text

    @model_validator(mode="before")
    @classmethod
    def _from_words(cls, data: Any) -> Any:
        """Read a verdict: its words follow from its values, but in files that have words alone.

        A value that is not finite becomes words, because JSON has no number for it.
        """
        if not isinstance(data, dict):
            return data
        values = {key: value for key, value in data.items() if key not in ("observed", "limit")}
        if len(values) < len(data) and not values.keys() & {"value", "said"}:
            values |= {"said": data.get("observed", ""), "required": data.get("limit", "")}
        number = values.get("value")
        if isinstance(number, float) and not math.isfinite(number):
            values |= {"value": None, "interval": None, "said": f"{number}"}
        return values


class Decision(Frozen):
    """What became of one variant, and why: bytes of its graph, median milliseconds, times slower than the winner.

    `tied`: races do not tell it and the winner apart, and it costs more besides. Such a variant was not verified.
    `accuracy`: values of gates on answers by name, as far as the variant was checked, which may be at few cases.
    """

    variant: str
    graph_level: str | None
    outcome: Literal["selected", "tied", "rejected", "left out"]
    reason: str
    bytes: int | None = None
    p50_ms: float | None = None
    slower: Interval | None = None
    accuracy: dict[str, float] = Field(default_factory=dict)


class Elsewhere(Frozen):
    """What wins at another shape than the one that the budget is about.

    `gain` says how many times faster it is there than the variant that ships; 1 when that is itself the fastest.
    """

    shape: str
    fastest: str
    gain: Interval


class Numbers(Frozen):
    """Measurements of the bundle on one host: milliseconds, seconds, bytes; `eager` is PyTorch there.

    `noise` says why the bundle's latencies claim nothing; `speedup_noise`, `rate_noise` and `start_noise` are of the
    speed-up, of requests per second and of starts. `control` is what the control workload says: `none` where it was not
    run, None in reports of older versions. `fastest` are the shortest run and start, `best_ratio` is the largest
    speed-up of any round.
    """

    p50_ms: Interval
    p90_ms: Interval
    p99_ms: Interval
    eager_p50_ms: Interval | None
    speedup: Interval | None
    requests_per_second: Interval | None = None
    start_seconds: Interval
    peak_rss_bytes: Count
    peak_device_bytes: Count | None = None
    soak: Soak | None = None
    start_peak_rss_bytes: Count | None = None
    cached_start_seconds: Interval | None = None
    downloaded_bytes: Count | None = None
    eager_start_seconds: Measured | None = None
    eager_peak_rss_bytes: Count | None = None
    control: Literal["quiet", "noisy", "none"] | None = None
    noise: tuple[str, ...] = ()
    speedup_noise: tuple[str, ...] = ()
    rate_noise: tuple[str, ...] = ()
    start_noise: tuple[str, ...] = ()
    fastest_ms: Measured | None = None
    fastest_start_seconds: Measured | None = None
    best_ratio: Measured | None = None
    load: Load | None = None


class TargetReport(Frozen):
    """One target of a build."""

    target: str
    status: Literal["published", "provisional", "failed"]
    variant: str | None = None
    mix: Mix | None = Field(default=None, description="Nodes that the variant keeps in higher precision, if any.")
    graph_level: str | None = None
    tuning: str | None = None
    precision: str | None = None
    model_bytes: int | None = None
    operators: dict[str, int] = Field(
        default_factory=dict, description="Operators of the graph that is served, to the number of nodes."
    )
    placement: Forecast | None = Field(
        default=None, description="Where its nodes are foreseen to run, on a provider whose kernels are known."
    )
    parity: str | None = None
    numbers: Numbers | None = None
    verdicts: tuple[Verdict, ...] = ()
    decisions: tuple[Decision, ...] = ()
    tied: tuple[str, ...] = Field(
        default=(), description="Variants that are as fast as the one that ships, as far as races tell, and cost more."
    )
    footprint: Footprint | None = Field(default=None, description="What the variant that ships takes besides time.")
    elsewhere: tuple[Elsewhere, ...] = ()
    latencies: Histogram | None = Field(
        default=None, description="Of the race beside PyTorch, whose numbers these are."
    )
    cases: CaseDifferences = Field(default=CaseDifferences(), description="How far the outputs are off, by case.")
    embeddings: EmbeddingCheck | None = None
    answers: AnswerCheck | None = None
    times: OperatorTimes | None = Field(default=None, description="Where the time of a run goes.")
    tensors: StoredTensors | None = Field(default=None, description="Weights of the graph that is served.")
    trades: tuple[Trade, ...] = ()
    calibration_requests: int | None = Field(
        default=None, description="Requests that ranges were found with; what judges is none of them."
    )
    smallest_right: Decision | None = Field(
        default=None, description="Where no variant keeps the budgets: the smallest of those that are right."
    )
    bundle: str | None = None
    error: str | None = None
    exit_code: int = 0


class BuildReport(Frozen):
    """A build of one spec. `error` says why there is nothing to tell of targets."""

    format_version: int = FORMAT_VERSION
    name: str
    version: str
    plan_sha256: str
    host: Host
    tools: dict[str, str] = Field(default_factory=dict, description="Versions of what made the graphs.")
    inputs: dict[str, str] = Field(default_factory=dict, description="sha256 of the model's files, by name.")
    exporter: str | None = None
    exporter_reason: str | None = None
    notes: tuple[str, ...] = ()
    parts_left_out: tuple[str, ...] = Field(
        default=(), description="Parts of the model's repository that the bundles are without, by the spec's leave."
    )
    inputs_left_out: tuple[str, ...] = Field(
        default=(), description="Optional tensors of the model's forward() that the bundles take no values for."
    )
    unfit_reason: str | None = Field(default=None, description="Why the bundles are not fit to serve, if they are not.")
    skipped_cases: tuple[str, ...] = ()
    stages: tuple[StageTime, ...] = ()
    targets: tuple[TargetReport, ...] = ()
    error: str | None = None
    exit_code: int = 0


class StageTime(Frozen):
    """How long a stage took, or that nothing had to be done; `remote` when what was done before came from the remote
    cache; `noisy` when it was timed on a busy machine, so that the next build does it again."""

    stage: str
    subject: str
    seconds: float
    cached: bool
    remote: bool = False
    noisy: bool = False


BuildReport.model_rebuild()
