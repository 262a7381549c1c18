"""What `ortc diff` found. Frozen, JSON-serialisable; bytes, milliseconds."""

from __future__ import annotations

from typing import Literal

from ortc.common.statistics import Interval
from ortc.common.values import Frozen
from ortc.diff.values import Change
from ortc.evaluation.details import Histogram

FORMAT_VERSION = 1


class Section(Frozen):
    """The changes of one part of a bundle or a spec; a part without changes has no section."""

    name: str
    changes: tuple[Change, ...]


class OperatorChange(Frozen):
    """An operator of which the two graphs hold different numbers of nodes."""

    operator: str
    before: int
    after: int


class Sizes(Frozen):
    """Bytes: of the model's files, and of all files of a bundle."""

    model_before: int
    model_after: int
    total_before: int
    total_after: int

    @property
    def ratio(self) -> float | None:
        """How many times as large the model has become; None for a model without bytes."""
        return self.model_after / self.model_before if self.model_before else None


class OutputDistance(Frozen):
    """How far one output is from another; see `ortc.evaluation.compare.Difference`. Numbers are None where `problem`
    says why."""

    output: str
    max_abs: float | None
    cosine: float | None
    problem: str | None = None


class CaseDistance(Frozen):
    """Both bundles on the golden inputs of one case, or why one of them does not take these inputs."""

    case: str
    golden_of: Literal["A", "B", "both"]
    outputs: tuple[OutputDistance, ...] = ()
    problem: str | None = None


class GoldenDistance(Frozen):
    """A bundle against PyTorch's outputs for one of its golden cases."""

    case: str
    outputs: tuple[OutputDistance, ...]


class Numerics(Frozen):
    """What both bundles compute on this host. `skipped` says why they were not run."""

    platform: str
    skipped: str | None = None
    failed: tuple[str, ...] = ()
    cases: tuple[CaseDistance, ...] = ()
    golden_before: tuple[GoldenDistance, ...] = ()
    golden_after: tuple[GoldenDistance, ...] = ()


class Timing(Frozen):
    """What a bundle's measurements/ says of one host: milliseconds, seconds, bytes, at one shape."""

    shape: str
    threads: int
    p50_ms: Interval
    p90_ms: Interval
    p99_ms: Interval
    start_seconds: float
    peak_rss_bytes: int
    requests_per_second: Interval | None = None


class HostTimings(Frozen):
    """The measurements of one hardware fingerprint. `comparable` is None where they are, else says why not.

    `latencies` are of both, where both carry their samples.
    """

    fingerprint: str
    cpu: str
    cores: int
    gpus: tuple[str, ...]
    before: Timing | None
    after: Timing | None
    comparable: str | None
    latencies: Histogram | None = None


class RaceResult(Frozen):
    """Both bundles in turns on this host; `speedup` is how many times faster B is.

    `skipped` says why there is none, and `noise` why it claims nothing.
    """

    skipped: str | None = None
    fingerprint: str | None = None
    cpu: str | None = None
    shape: str | None = None
    threads: int | None = None
    before_p50_ms: Interval | None = None
    after_p50_ms: Interval | None = None
    before_p99_ms: Interval | None = None
    after_p99_ms: Interval | None = None
    speedup: Interval | None = None
    noise: tuple[str, ...] = ()
    latencies: Histogram | None = None


class BundleInfo(Frozen):
    """Which bundle a side is."""

    name: str
    version: str
    target: str
    variant: str
    graph_level: str
    precision: str
    manifest_sha256: str


class TargetDiff(Frozen):
    """Two bundles of one target."""

    target: str
    before: BundleInfo
    after: BundleInfo
    sections: tuple[Section, ...]
    operators: tuple[OperatorChange, ...]
    sizes: Sizes
    numerics: Numerics
    timings: tuple[HostTimings, ...]
    race: RaceResult | None = None

    @property
    def same(self) -> bool:
        """Whether the two bundles are one: the manifest holds the digest of every file."""
        return self.before.manifest_sha256 == self.after.manifest_sha256


class BundleDiff(Frozen):
    """Two bundles, or two directories of bundles, target by target."""

    format_version: int = FORMAT_VERSION
    kind: Literal["bundles"] = "bundles"
    before: str
    after: str
    same: bool
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    targets: tuple[TargetDiff, ...] = ()


class StageChange(Frozen):
    """A stage of B's build after A was built. `target` is None for the model's part.

    `because` names the inputs of the stage that differ; nothing for one that is reused.
    """

    target: str | None
    stage: str
    subject: str
    anew: bool
    because: tuple[str, ...] = ()


class SpecDiff(Frozen):
    """Two states of a spec with all defaults filled in, the plans that they come to, and what a build does again.

    `stages_unknown` says why the stages cannot be told.
    """

    format_version: int = FORMAT_VERSION
    kind: Literal["specs"] = "specs"
    before: str
    after: str
    same: bool
    sections: tuple[Section, ...]
    stages: tuple[StageChange, ...]
    stages_unknown: str | None = None
