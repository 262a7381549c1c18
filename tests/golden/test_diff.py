"""Differences as they are shown, whole: compared with `tests/golden/diff/`.

Rewrite the expected files with `pytest tests/golden --update-golden`, and read the difference.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ortc.cli.diff_text import show_bundles, show_specs
from ortc.common.statistics import Interval
from ortc.diff.markdown import bundles_markdown, code, specs_markdown
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

HERE = Path(__file__).parent / "diff"


def interval(value: float) -> Interval:
    return Interval(value=value, low=value * 0.95, high=value * 1.05, samples=420)


def timing(p50: float, **changes: object) -> Timing:
    fields = {"shape": "batch=1", "threads": 2, "start_seconds": 0.2, "peak_rss_bytes": 70_000_000}
    times = {"p50_ms": interval(p50), "p90_ms": interval(p50 * 1.5), "p99_ms": interval(p50 * 2)}
    return Timing.model_validate({**fields, **times, **changes})


def info(**changes: str) -> BundleInfo:
    fields = {"name": "digits", "version": "1.0.0", "target": "cpu", "variant": "fp32", "graph_level": "all"}
    return BundleInfo.model_validate({**fields, "precision": "fp32", "manifest_sha256": "0" * 64, **changes})


def distance(max_abs: float, cosine: float) -> tuple[OutputDistance, ...]:
    return (OutputDistance(output="logits", max_abs=max_abs, cosine=cosine),)


CPU = TargetDiff(
    target="cpu",
    before=info(),
    after=info(variant="int8-dynamic", precision="int8", manifest_sha256="1" * 64),
    sections=(
        Section(
            name="identity",
            changes=(Change(path=("version",), kind="changed", before="1.0.0", after="1.1.0"),),
        ),
        Section(
            name="source",
            changes=(
                Change(path=("files", "weights.safetensors"), kind="changed", before="a" * 64, after="b" * 64),
                # Nobody may write into somebody else's pull request.
                Change(
                    path=("source",),
                    kind="changed",
                    before="pytorch:a|b`c`",
                    after="</details> @everyone\n# <script>\x1b[31m",
                ),
            ),
        ),
        Section(
            name="promises",
            changes=(
                Change(path=("latency", "p99"), kind="changed", before=0.02, after=0.005),
                Change(path=("size",), kind="changed", before=None, after=180_000),
                Change(path=("golden", "batch=9", "cosine"), kind="added", after=0.99),
            ),
        ),
        Section(name="requirements", changes=(Change(path=("protobuf",), kind="removed", before="7.36.2"),)),
    ),
    operators=(
        OperatorChange(operator="Gemm", before=2, after=0),
        OperatorChange(operator="com.microsoft::DynamicQuantizeMatMul", before=0, after=2),
    ),
    sizes=Sizes(model_before=199_000, model_after=58_600, total_before=300_000, total_after=160_000),
    numerics=Numerics(
        platform="linux/amd64",
        cases=(
            CaseDistance(case="batch=9", golden_of="both", outputs=distance(0.0256, 0.99998)),
            CaseDistance(case="batch=65", golden_of="A", problem="B does not run on these inputs: batch is 65"),
        ),
        golden_before=(GoldenDistance(case="batch=9", outputs=distance(1.2e-6, 1.0)),),
        golden_after=(GoldenDistance(case="batch=9", outputs=distance(0.0255, 0.99998)),),
    ),
    timings=(
        HostTimings(
            fingerprint="46889139b7de27af",
            cpu="AMD EPYC",
            cores=2,
            gpus=(),
            before=timing(0.0772),
            after=timing(0.0636),
            comparable=None,
        ),
        HostTimings(
            fingerprint="0123456789abcdef",
            cpu="ARM 0x41 0xd0c",
            cores=4,
            gpus=("A GPU",),
            before=None,
            after=timing(0.4),
            comparable="only B was measured on this hardware",
        ),
    ),
    race=RaceResult(
        fingerprint="46889139b7de27af",
        cpu="AMD EPYC",
        shape="batch=1",
        threads=2,
        before_p50_ms=interval(0.077),
        after_p50_ms=interval(0.064),
        before_p99_ms=interval(0.15),
        after_p99_ms=interval(0.14),
        speedup=Interval(value=1.2, low=1.15, high=1.26, samples=20),
    ),
)
EDGE = CPU.model_copy(
    update={
        "target": "edge",
        "sections": (),
        "operators": (),
        "after": info(target="edge", manifest_sha256="2" * 64),
        "sizes": Sizes(model_before=58_600, model_after=58_600, total_before=160_000, total_after=160_000),
        "numerics": Numerics(platform="linux/amd64", skipped="A is for linux/arm64, this host is linux/amd64"),
        "timings": (),
        "race": RaceResult(skipped="A is for linux/arm64, this host is linux/amd64"),
    }
)
BROKEN = EDGE.model_copy(
    update={
        "target": "broken",
        "numerics": Numerics(platform="linux/amd64", failed=("B does not load: model.onnx was changed or damaged",)),
        "race": None,
    }
)
BUNDLES = BundleDiff(
    before="dist/digits/1.0.0",
    after="dist/digits/1.1.0",
    same=False,
    added=("server-gpu",),
    removed=("board",),
    targets=(CPU, EDGE, BROKEN),
)
SAME = BundleDiff(
    before="a",
    after="b",
    same=True,
    targets=(
        EDGE.model_copy(update={"after": info(), "numerics": Numerics(platform="x", skipped="they are the same")}),
    ),
)
SPECS = SpecDiff(
    before="main:specs/bert.yaml",
    after="specs/bert.yaml",
    same=False,
    sections=(
        Section(
            name="spec",
            changes=(
                Change(path=("export", "opset"), kind="changed", before=17, after=18),
                Change(path=("targets", "cpu", "latency_budget", "p99"), kind="changed", before=0.12, after=0.1),
                Change(path=("targets", "edge"), kind="removed", before={"precision": "int8", "note": "x" * 200}),
            ),
        ),
        Section(
            name="files",
            changes=(Change(path=("samples", "real.txt"), kind="changed", before="a" * 64, after="b" * 64),),
        ),
        Section(name="plan", changes=(Change(path=("export", "ir_version"), kind="changed", before=8, after=9),)),
    ),
    stages=(
        StageChange(target=None, stage="export", subject="dynamo", anew=True, because=("export.opset 17 -> 18",)),
        StageChange(target=None, stage="reference", subject="12 shapes", anew=False),
        StageChange(target="cpu", stage="variant", subject="cpu: fp32 at all", anew=True, because=("model",)),
        StageChange(target="cpu", stage="environment", subject="onnxruntime", anew=False),
        StageChange(target="cpu", stage="bundle", subject="cpu", anew=True, because=("plan", "variant")),
    ),
)
UNKNOWN = SPECS.model_copy(update={"stages": (), "stages_unknown": "`weights.safetensors` does not exist"})
NO_DIFFERENCE = SpecDiff(
    before="main:a.yaml",
    after="a.yaml",
    same=True,
    sections=(),
    stages=(StageChange(target=None, stage="export", subject="dynamo", anew=False),),
)


def compare(name: str, text: str, *, update: bool) -> None:
    path = HERE / name
    if update:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")
    assert text == path.read_text("utf-8"), f"{path} differs; `pytest tests/golden --update-golden` rewrites it"


@pytest.mark.parametrize(
    ("name", "render"),
    [
        ("bundles.md", lambda: bundles_markdown(BUNDLES)),
        ("bundles-same.md", lambda: bundles_markdown(SAME)),
        ("specs.md", lambda: specs_markdown(SPECS)),
        ("specs-unknown.md", lambda: specs_markdown(UNKNOWN)),
        ("specs-same.md", lambda: specs_markdown(NO_DIFFERENCE)),
    ],
)
def test_markdown(name: str, render: Callable[[], str], update_golden: bool) -> None:
    compare(name, render(), update=update_golden)


@pytest.mark.parametrize(
    ("name", "show"),
    [
        ("bundles.txt", lambda: show_bundles(BUNDLES)),
        ("bundles-same.txt", lambda: show_bundles(SAME)),
        ("specs.txt", lambda: show_specs(SPECS)),
        ("specs-unknown.txt", lambda: show_specs(UNKNOWN)),
        ("specs-same.txt", lambda: show_specs(NO_DIFFERENCE)),
    ],
)
def test_text(
    name: str,
    show: Callable[[], None],
    update_golden: bool,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    show()
    # Tables pad their last column.
    lines = (line.rstrip() for line in capsys.readouterr().out.splitlines())
    compare(name, "\n".join(lines) + "\n", update=update_golden)


def test_every_file_is_of_a_test() -> None:
    assert {path.suffix for path in HERE.iterdir()} == {".md", ".txt"}
    assert len(list(HERE.iterdir())) == 10


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("a", "`a`"),
        ("a|b", "`a\\|b`"),
        ("`a`", "`` `a` ``"),
        ("a``b", "```a``b```"),
        ("", "`  `"),
        ("a\n# b", "`a\\n# b`"),
        ("\N{EN DASH}", "\N{EN DASH}"),
    ],
)
def test_code_spans_hold_any_text(text: str, span: str) -> None:
    assert code(text) == span
