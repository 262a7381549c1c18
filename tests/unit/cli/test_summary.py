"""The last lines of a build: what every terminal shows of them, and what it never cuts."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from tests.support.whole_bundles import whole_bundle
from tests.unit.evaluation.test_budget_gates import BUDGETS, HOST, NOISE, exactly, judge, measured

from ortc.cli.made import Made
from ortc.cli.summary import summary
from ortc.evaluation.report import BuildReport, TargetReport, Verdict

COLUMNS, ROWS = 80, 24
ARGUMENTS = ("build", "specs/embedder.yaml")
NAMES = ("max_abs", "cosine", "top1_agreement", "metric", "size", "relative_error", "nrmse", "cosine on AVX2")
PASSED = tuple(
    Verdict(gate=name, platform="linux/amd64", outcome="pass", value=0.99, comparison=">=", bound=0.98)
    for name in NAMES
)
UNMEASURED = tuple(
    Verdict(gate=name, platform="linux/arm64", outcome="unmeasured", said="this host is linux/amd64")
    for name in (*NAMES, "latency p99", "memory")
)


def target(name: str, **changes: Any) -> TargetReport:
    fields: dict[str, Any] = {"variant": "int8-dynamic-mixed", "numbers": measured(), "verdicts": PASSED}
    return TargetReport(**({"target": name, "status": "published"} | fields | changes))


def failing(name: str, *, noise: bool = False) -> TargetReport:
    numbers = measured(control="noisy", noise=NOISE) if noise else measured(p99_ms=exactly(3e5), peak_rss_bytes=10**12)
    verdicts = (*PASSED, *judge(numbers, **BUDGETS).values())
    return target(name, status="failed", numbers=numbers, verdicts=verdicts, exit_code=7 if noise else 6)


def made(*targets: TargetReport, **changes: Any) -> Made:
    code = max((entry.exit_code for entry in targets), default=4)
    fields: dict[str, Any] = {"name": "embedder", "version": "12.10.3", "exit_code": code}
    report = BuildReport(**({"plan_sha256": "0" * 64, "host": HOST, "targets": targets} | fields | changes))
    return Made(report, (Path(f"dist/{report.name}/{report.version}.report.json"),))


def shown(*builds: Made, width: int = COLUMNS, **options: Any) -> list[str]:
    return [line.plain for line in summary(builds, ARGUMENTS, width, **options)]


def height(lines: list[str], width: int = COLUMNS) -> int:
    """Rows of a terminal that breaks what is wider than it is."""
    return sum(max(1, math.ceil(cell_len(line) / width)) for line in lines)


def three(*, noise: bool = False) -> Made:
    provisional = target("edge", status="provisional", verdicts=(*PASSED, *UNMEASURED))
    return made(failing("cpu", noise=noise), provisional, target("server-gpu"))


@pytest.mark.parametrize("noise", [False, True])
def test_three_targets_fit_on_a_small_terminal(*, noise: bool) -> None:
    lines = shown(three(noise=noise))
    # The prompt takes a row as well.
    assert height(lines) <= ROWS - 1, "\n".join(lines)
    rows = lines[:3]
    assert [row.split()[:3] for row in rows] == [
        ["embedder", "12.10.3", name] for name in ("cpu", "edge", "server-gpu")
    ]
    ends = ("too busy to measure (exit 7)" if noise else "FAIL (exit 6)", "linux/arm64 not measured", "pass (8 gates)")
    assert all(row.endswith(end) for row, end in zip(rows, ends, strict=True)), rows
    assert all(cell_len(row) <= COLUMNS for row in rows)


@pytest.mark.parametrize("width", [1, 20, 40, 60, 80, 100, 200])
def test_a_name_and_its_verdict_are_never_cut(width: int) -> None:
    first, second, third = shown(three(), width=width)[:3]
    for row, name, verdict in (
        (first, "cpu", "FAIL (exit 6)"),
        (second, "edge", "provisional: linux/arm64 not measured"),
        (third, "server-gpu", "pass (8 gates)"),
    ):
        assert row.startswith(f"embedder 12.10.3 {name} ")
        assert row.endswith(f"  {verdict}")
        facts = row.removeprefix(f"embedder 12.10.3 {name}").removesuffix(verdict).split("  ")
        # Facts are there whole, or not at all.
        assert {fact.strip() for fact in facts} <= {"", "int8-dynamic-mixed", "p50 10.0 ms", "p50 10 ms", "4.00x"}
    if width == 200:
        assert "4.00x" in first


def test_broken_promises_come_with_their_values() -> None:
    text = " ".join(" ".join(shown(made(failing("cpu")), width=COLUMNS)).split())
    assert "cpu: FAIL: " in text
    assert "must be <= " in text
    assert "bundles none of embedder: cpu did not pass" in text
    assert "published together" not in text
    assert "all targets are published together" in " ".join(shown(three()))


def test_what_was_not_measured_is_named_with_its_platform() -> None:
    lines = shown(made(target("edge", status="provisional", verdicts=UNMEASURED)), width=200)
    assert "gates    edge: not measured on linux/arm64: " + ", ".join((*NAMES, "latency p99", "memory")) in lines


def test_the_same_build_again_shows_what_is_left() -> None:
    assert shown(three())[
        -1
    ] == "         ortc build -v specs/embedder.yaml  # every number, and why each variant lost" or (
        shown(three())[-1] == "next     ortc build -v specs/embedder.yaml  # every number, and why each variant lost"
    )
    assert not any(" -v " in line for line in shown(three(), is_verbose=True))
    again = shown(three(noise=True))[-1]
    assert again.startswith("next     ortc build specs/embedder.yaml  # when this machine is less busy")


def test_a_published_bundle_is_tried_and_served_next(tmp_path: Path) -> None:
    bundle = whole_bundle(tmp_path / "a name" / "cpu")
    lines = shown(made(target("cpu", bundle=str(bundle)), exit_code=0))
    assert f"bundles  {bundle.parent}" in lines
    assert f"next     ortc verify '{bundle}'" in lines
    assert not any("none of" in line for line in lines)


def test_what_ran_here_is_tried_before_what_could_not(tmp_path: Path) -> None:
    elsewhere, here = (whole_bundle(tmp_path / "bert" / name) for name in ("server-gpu", "cpu"))
    provisional = target("server-gpu", status="provisional", verdicts=(*PASSED, *UNMEASURED), bundle=str(elsewhere))
    lines = shown(made(provisional, target("cpu", bundle=str(here)), exit_code=0))
    assert f"next     ortc verify {here}" in lines
    assert any(line.strip().startswith(f"ortc attach {elsewhere} FILE") for line in lines)


def test_builds_without_targets_end_with_their_error() -> None:
    broken = made(name="tagger", error="export fails\nat a node\nhelp: raise the opset")
    lines = shown(made(target("cpu"), exit_code=0), broken)
    assert lines[1].startswith("tagger 12.10.3 ")
    assert lines[1].endswith("  FAIL (exit 4)")
    assert "         tagger: export fails" in lines
    assert "         tagger: help: raise the opset" in lines
    assert "         dist/tagger/12.10.3.report.json" in lines


def test_targets_of_the_same_name_are_told_apart() -> None:
    lines = shown(made(target("cpu")), made(target("cpu"), name="tagger"))
    assert any(line.startswith("gates    embedder cpu: pass: ") for line in lines)
    assert any(line.startswith("         tagger cpu: pass: ") for line in lines)


def test_wide_characters_take_two_columns() -> None:
    where = Verdict(
        gate="cosine", platform="linux/amd64", outcome="fail", value=0.1, comparison=">=", bound=0.9, where="东京" * 90
    )
    lines = shown(made(target("cpu", status="failed", verdicts=(where,), exit_code=5)))
    assert all(cell_len(line) <= COLUMNS for line in lines[:-3])
    assert any(line.endswith("…") for line in lines)


def test_line_breaks_of_a_text_add_no_lines() -> None:
    error = "one\ttwo\x0bthree " * 100
    lines = shown(made(target("cpu", status="failed", verdicts=(), error=error, exit_code=4)))
    assert len(lines) <= 8
    assert not any("\t" in line or "\x0b" in line for line in lines)


def test_shapes_that_were_not_checked_are_counted_by_reason() -> None:
    cases = ("batch=9: a quick search", "batch=5: a quick search", "batch=1: no memory")
    lines = shown(made(target("cpu"), skipped_cases=cases))
    assert "embedder: not checked: 2 shapes (a quick search), 1 shape (no memory)" in lines
