"""What the table says of a build whose times claim nothing."""

from __future__ import annotations

import pytest
from tests.unit.test_select import BUDGETS, HOST, NOISE, judge, measured

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
