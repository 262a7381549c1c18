"""Reports of builds for tests of pages: of every end that a build may come to."""

from __future__ import annotations

from ortc.common.statistics import Interval
from ortc.evaluation.compare import Difference
from ortc.evaluation.details import OperatorTimes, SampleAnswer, case_differences, histogram, operator_times
from ortc.evaluation.footprint import Footprint
from ortc.evaluation.report import (
    AnswerCheck,
    BuildReport,
    Decision,
    Elsewhere,
    EmbeddingCheck,
    Numbers,
    StageTime,
    TargetReport,
    Verdict,
)
from ortc.evaluation.trade import Trade, TradeNode, TradePoint
from ortc.execution.host import Host
from ortc.passes.variant_graph import StoredTensor, StoredTensors

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
    Decision(
        variant="int8",
        graph_level="all",
        outcome="selected",
        reason="the fastest",
        bytes=23_100_000,
        p50_ms=3.4,
        accuracy={"cosine": 0.9991},
    ),
    Decision(
        variant="fp32",
        graph_level="all",
        outcome="rejected",
        reason="slower than int8",
        bytes=90_300_000,
        p50_ms=9.21,
        slower=Interval(value=2.7088, low=2.51, high=2.9, samples=6),
        accuracy={"cosine": 0.99999994},
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


def detailed(text: str = "") -> BuildReport:
    """A build whose report has everything that a report may have; `text` joins every text that somebody else wrote."""
    cases = [
        (f"batch={batch}, sequence={length}{text}", (_difference(f"last_hidden_state{text}", 0.99 - batch / 1000),))
        for batch in (1, 8)
        for length in (16, 128)
    ]
    cases.append((f"samples 1-8{text}", (_difference(f"last_hidden_state{text}", 1.0, problem=f"NaN{text}"),)))
    accuracy = {"cosine": 0.9981}
    point = TradePoint(
        name=f"3 fp32{text}", data="held out", reduced=9, bytes=25_000_000, p50_ms=3.6, accuracy=accuracy, passes=True
    )
    trade = Trade(
        variant=f"int8{text}",
        limits={"cosine": 0.995},
        nodes=(TradeNode(name=f"MatMul_3{text}", operator="MatMul", elements=768, error=0.01),),
        points=(
            point,
            point.model_copy(update={"data": "calibration", "passes": False, "p50_ms": None, "bytes": 23_200_000}),
        ),
    )
    answer = SampleAnswer(
        request=f"Not bad at all.{text}",
        expected=f'[{{"label": "positive{text}"}}]',
        found=f'[{{"label": "negative{text}"}}]',
        cosine=0.9713,
        agreement=0.0,
    )
    weight = StoredTensor(name=f"encoder.weight{text}", shape=(768, 768), dtype="int8", bytes=589_824)
    return report(
        target(
            latencies=histogram({f"int8{text}": (3.1, 3.4, 3.4, 4.2), "PyTorch eager": (15.1, 15.2, 40.0)}),
            cases=case_differences(cases),
            embeddings=EmbeddingCheck(samples=12, cosine_mean=0.9993, cosine_min=0.997, rank_correlation=None),
            answers=AnswerCheck(
                texts=8,
                cosine_min=0.9713,
                worst=f"Not bad at all.{text}",
                gate="answer_top1",
                agreement=0.875,
                furthest=(answer,),
            ),
            tensors=StoredTensors(count=75, by_dtype={"int8": 21_000_000, "float": 2_100_000}, largest=(weight,)),
            times=_times(text),
            trades=(trade,),
            calibration_requests=66,
        ),
        tools={"onnx": f"1.23.2{text}"},
        inputs={f"model.safetensors{text}": "ab" * 32},
    )


def _times(text: str) -> OperatorTimes | None:
    """More operators than a report lists."""
    first = {"operator": f"MatMul{text}", "provider": f"CPUExecutionProvider{text}", "nodes": 36, "microseconds": 2900}
    others = [{"operator": f"Op{index}", "provider": "", "nodes": 1, "microseconds": 4} for index in range(30)]
    return operator_times("batch=1, sequence=16", [first, *others])


def _difference(output: str, cosine: float, problem: str | None = None) -> Difference:
    return Difference(output=output, max_abs=1.9e-6, cosine=cosine, top1=None, problem=problem, relative_error=0.01)


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
