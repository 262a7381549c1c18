"""Differences of bundles and of specs for tests of what is said of them."""

from __future__ import annotations

from typing import Any

from ortc.common.statistics import Interval
from ortc.diff.report import (
    BundleDiff,
    BundleInfo,
    CaseDistance,
    GoldenDistance,
    HostTimings,
    Numerics,
    OperatorChange,
    OutputDistance,
    RaceResult,
    Section,
    Sizes,
    SpecDiff,
    StageChange,
    TargetDiff,
    Timing,
)
from ortc.diff.values import Change
from ortc.evaluation.details import histogram


def interval(value: float, low: float | None, high: float | None) -> Interval:
    """An estimate of 420 samples."""
    return Interval(value=value, low=low, high=high, samples=420)


def timed(before: Interval, after: Interval) -> tuple[HostTimings, ...]:
    """The measurements of both bundles on one kind of hardware."""

    def timing(found: Interval) -> Timing:
        return Timing(
            shape="batch=1", threads=2, p50_ms=found, p90_ms=found, p99_ms=found, start_seconds=0.25, peak_rss_bytes=7
        )

    samples = {"A": (before.value,) * 3, "B": (after.value, after.value * 1.5)}
    return (
        HostTimings(
            fingerprint="ab" * 8,
            cpu="A processor",
            cores=2,
            gpus=(),
            before=timing(before),
            after=timing(after),
            comparable=None,
            latencies=histogram(samples),
        ),
    )


def race(**values: Any) -> RaceResult:
    """A race of both on this host."""
    half = interval(1.0, 0.9, 1.1)
    own = {
        "cpu": "A processor",
        "shape": "batch=1",
        "threads": 2,
        "speedup": interval(1.5, 1.4, 1.6),
        "before_p50_ms": half,
        "after_p50_ms": half,
        "before_p99_ms": half,
        "after_p99_ms": half,
        "latencies": histogram({"A": (1.0, 1.1), "B": (0.9, 0.95)}),
    }
    return RaceResult.model_validate({**own, **values})


def numerics(before: float, after: float, text: str = "") -> Numerics:
    """Both bundles on one golden case, with these cosines to PyTorch's outputs."""

    def outputs(cosine: float) -> tuple[OutputDistance, ...]:
        return (OutputDistance(output=f"logits{text}", max_abs=0.0123, cosine=cosine),)

    return Numerics(
        platform="linux/amd64",
        cases=(
            CaseDistance(case=f"batch=1{text}", golden_of="both", outputs=outputs(0.995)),
            CaseDistance(case=f"batch=9{text}", golden_of="A", problem=f"B takes at most 8{text}"),
        ),
        golden_before=(GoldenDistance(case="batch=1", outputs=outputs(before)),),
        golden_after=(GoldenDistance(case="batch=1", outputs=outputs(after)),),
    )


def target(text: str = "", **values: Any) -> TargetDiff:
    """Two bundles of one target; `text` joins every text that somebody else wrote."""
    info = BundleInfo(
        name=f"reviews{text}",
        version="1.0.0",
        target=f"cpu{text}",
        variant=f"int8{text}",
        graph_level="all",
        precision="int8",
        manifest_sha256="ab" * 32,
    )
    change = Change(path=("session", f"threads{text}"), kind="changed", before=f"1{text}", after=2)
    own = {
        "target": f"cpu{text}",
        "before": info,
        "after": info.model_copy(update={"manifest_sha256": "cd" * 32}),
        "sections": (Section(name="session", changes=(change,)),),
        "operators": (OperatorChange(operator=f"MatMul{text}", before=12, after=10),),
        "sizes": Sizes(model_before=100, model_after=80, total_before=1100, total_after=1080),
        "numerics": numerics(0.999, 0.99, text),
        "timings": timed(interval(2.0, 1.9, 2.1), interval(1.0, 0.9, 1.1)),
    }
    return TargetDiff.model_validate({**own, **values})


def bundles(text: str = "", **values: Any) -> BundleDiff:
    """Two directories of bundles."""
    own = {
        "before": f"dist/reviews/1.0.0{text}",
        "after": "dist/reviews/1.1.0",
        "same": False,
        "added": (f"web{text}",),
        "targets": (target(text),),
    }
    return BundleDiff.model_validate({**own, **values})


def specs(text: str = "", **values: Any) -> SpecDiff:
    """Two states of a spec."""
    change = Change(path=("targets", f"cpu{text}"), kind="added", after=f"new{text}")
    own = {
        "before": f"main:specs/reviews.yaml{text}",
        "after": "specs/reviews.yaml",
        "same": False,
        "sections": (Section(name="spec", changes=(change,)),),
        "stages": (
            StageChange(target=None, stage="export", subject=f"dynamo{text}", anew=True, because=(f"code{text}",)),
            StageChange(target="cpu", stage="fetch", subject="model", anew=False),
        ),
    }
    return SpecDiff.model_validate({**own, **values})
