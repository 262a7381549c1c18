"""What the table says of a build whose times claim nothing, and of weights that do not."""

from __future__ import annotations

from typing import Literal

import pytest
from tests.unit.evaluation.test_budget_gates import BUDGETS, HOST, NOISE, judge, measured

from ortc.bundle.assemble import UNFIT
from ortc.cli.table import show
from ortc.evaluation.report import BuildReport, BusyProcess, Load, Numbers, TargetReport


def shown(numbers: Numbers, capsys: pytest.CaptureFixture[str]) -> str:
    verdicts = tuple(judge(numbers, **BUDGETS).values())
    target = TargetReport(target="cpu", status="failed", numbers=numbers, verdicts=verdicts, exit_code=7)
    report = BuildReport(name="tiny", version="1.0.0", plan_sha256="0" * 64, host=HOST, targets=(target,))
    show([report])
    return " ".join(capsys.readouterr().out.split())


def test_the_speed_up_has_its_interval(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(measured(control="quiet"), capsys)
    assert " 4.00x [3.50, 4.50] " in text
    assert "noisy" not in text


def test_a_busy_machine_is_told_with_what_ran_beside(capsys: pytest.CaptureFixture[str]) -> None:
    load = Load(average=6.2, processes=(BusyProcess(name="cc1plus", cores=1.4),))
    numbers = measured(control="noisy", noise=NOISE, speedup_noise=NOISE, start_noise=("starts vary",), load=load)
    text = shown(numbers, capsys)
    assert "noisy: this machine is too busy to measure latency" in text
    assert text.count(f"{NOISE[0]} starts vary beside it ran cc1plus (1.40 cores); load average 6.20") == 1
    assert text.count("inconclusive linux/amd64") == 5
    row = text[: text.index("tiny cpu")]
    assert "too busy to measure (exit 7)" in row
    # A ratio that claims nothing is not shown as one.
    assert "4.00x" not in row
    assert row.count("noisy") == 3


@pytest.mark.parametrize(
    ("status", "verdict"),
    [("published", "unfit; pass (0 gates)"), ("provisional", "unfit; provisional"), ("failed", "FAIL (exit 5)")],
)
def test_what_is_not_fit_to_serve_is_no_plain_pass(
    status: Literal["published", "provisional", "failed"], verdict: str, capsys: pytest.CaptureFixture[str]
) -> None:
    target = TargetReport(target="cpu", status=status, exit_code=5 if status == "failed" else 0)
    report = BuildReport(name="tiny", version="1.0.0", plan_sha256="0" * 64, host=HOST, targets=(target,))
    show([report.model_copy(update={"unfit_reason": UNFIT})])
    text = " ".join(capsys.readouterr().out.split())
    assert verdict in text
    assert f"tiny: not fit to serve: {UNFIT}" in text
    show([report])
    assert "unfit" not in capsys.readouterr().out
