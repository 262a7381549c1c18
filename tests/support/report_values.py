"""Reports of builds for tests of pages: of every end that a build may come to."""

from __future__ import annotations

from ortc.common.statistics import Interval
from ortc.evaluation.footprint import Footprint
from ortc.evaluation.report import BuildReport, Decision, Elsewhere, Numbers, StageTime, TargetReport, Verdict
from ortc.execution.host import Host

HOST = Host(platform="linux/amd64", cpu="A processor", isa=("avx2",), cores=2, memory=2**34, gpus=())
NUMBERS = Numbers(
    p50_ms=Interval(value=3.4172, low=3.39, high=3.441, samples=443),
    p90_ms=Interval(value=3.81, low=3.7, high=3.93, samples=443),
    p99_ms=Interval(value=4.1087, low=3.95, high=5.3512, samples=443),
    eager_p50_ms=Interval(value=15.31, low=15.2, high=15.44, samples=410),
    speedup=Interval(value=4.4873, low=4.0021, high=4.5611, samples=10),
    start_seconds=Interval(value=0.3441, low=None, high=None, samples=5),
    peak_rss_bytes=311_713_792,
    control="quiet",
)
LATENCY = Verdict(
    gate="latency p99",
    platform="linux/amd64",
    outcome="pass",
    value=0.0041087,
    interval=(0.00395, 0.0053512),
    comparison="<=",
    bound=0.006,
    unit="seconds",
    where="batch=1, sequence=16, 443 samples",
)
COSINE = Verdict(
    gate="cosine", platform="linux/amd64", outcome="pass", value=0.9991, comparison=">=", bound=0.995, unit=""
)
BROKEN = COSINE.model_copy(update={"outcome": "fail", "value": 0.9712})
UNMEASURED = Verdict(
    gate="latency p99",
    platform="linux/arm64",
    outcome="unmeasured",
    said="this host is linux/amd64",
    required="measured on the target",
)
DECISIONS = (
    Decision(variant="int8", graph_level="all", outcome="selected", reason="the fastest", bytes=23_100_000, p50_ms=3.4),
    Decision(
        variant="fp32",
        graph_level="all",
        outcome="rejected",
        reason="slower than int8",
        bytes=90_300_000,
        p50_ms=9.21,
        slower=Interval(value=2.7088, low=2.51, high=2.9, samples=6),
    ),
    Decision(variant="int8-static", graph_level=None, outcome="left out", reason="the spec has no samples"),
)


def target(**values: object) -> TargetReport:
    """A target that keeps its promises, with these values in the place of its own."""
    own = {
        "target": "cpu",
        "status": "published",
        "variant": "int8",
        "graph_level": "all",
        "precision": "int8",
        "model_bytes": 23_100_000,
        "operators": {"MatMul": 12, "com.microsoft::FusedConv": 3, "odd/name~here": 1},
        "numbers": NUMBERS,
        "verdicts": (LATENCY, COSINE),
        "decisions": DECISIONS,
        "footprint": Footprint(download_bytes=41_000_000, model_bytes=23_100_000),
        "elsewhere": (
            Elsewhere(shape="batch=8", fastest="fp32", gain=Interval(value=1.21, low=1.1, high=1.3, samples=6)),
        ),
        "bundle": "dist/reviews/1.0.0/cpu",
    }
    return TargetReport.model_validate({**own, **values})


def report(*targets: TargetReport, **values: object) -> BuildReport:
    """A build of these targets, of one that keeps its promises when none is given."""
    own = {
        "name": "reviews",
        "version": "1.0.0",
        "plan_sha256": "ab" * 32,
        "host": HOST,
        "exporter": "dynamo",
        "stages": (StageTime(stage="export", subject="dynamo", seconds=3.54, cached=False),),
        "targets": targets or (target(),),
        "exit_code": max((entry.exit_code for entry in targets), default=0),
    }
    return BuildReport.model_validate({**own, **values})


def failed() -> BuildReport:
    """A build in which no variant passes every gate."""
    return report(
        target(
            status="failed",
            variant=None,
            numbers=None,
            model_bytes=None,
            footprint=None,
            bundle=None,
            verdicts=(BROKEN,),
            decisions=(Decision(variant="int8", graph_level="all", outcome="rejected", reason="cosine 0.97120"),),
            error="no variant passes every gate",
            exit_code=5,
        )
    )


def not_built() -> BuildReport:
    """A build that ended before any target could be judged."""
    return BuildReport(
        name="reviews",
        version="1.0.0",
        plan_sha256="ab" * 32,
        host=HOST,
        error="the graph of the ONNX file is not valid: Nodes in a graph must be sorted\nhelp: export it again",
        exit_code=4,
    )
