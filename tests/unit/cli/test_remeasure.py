"""`--remeasure`: with a stage or without, before the specs or after them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ortc.__main__ import run
from ortc.evaluation.report import BuildReport

ROOT = Path(__file__).parents[3]
BOTH = frozenset({"measure", "start"})


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[frozenset[str]]:
    """What builds were asked to time again; they do nothing else."""
    asked: list[frozenset[str]] = []

    def build(plan: Any, *_: Any, remeasured: frozenset[str]) -> BuildReport:
        from ortc.execution.host import describe

        asked.append(remeasured)
        return BuildReport(name=plan.name, version=plan.version, plan_sha256=plan.digest(), host=describe())

    monkeypatch.setattr("ortc.build.pipeline.build", build)
    monkeypatch.setenv("ORTC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(ROOT)
    return asked


@pytest.mark.parametrize(
    ("options", "stages"),
    [
        ([], frozenset()),
        (["--remeasure"], BOTH),
        (["--remeasure", "all"], BOTH),
        (["--remeasure", "measure"], {"measure"}),
        (["--remeasure=start"], {"start"}),
        (["--remeasure", "start", "--remeasure", "measure"], BOTH),
        (["--remeasure", "--search", "none"], BOTH),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_stages(
    options: list[str], stages: frozenset[str], first: bool, built: list[frozenset[str]], tmp_path: Path
) -> None:
    spec = ["specs/digits.yaml"]
    arguments = [*options, *spec] if first else [*spec, *options]
    assert run(["build", *arguments, "-o", str(tmp_path)]) == 0
    assert built == [stages]


def test_after_two_dashes_everything_is_a_spec(built: list[frozenset[str]], tmp_path: Path) -> None:
    assert run(["build", "-o", str(tmp_path), "--remeasure", "--", "specs/digits.yaml"]) == 0
    assert built == [BOTH]
    assert run(["build", "-o", str(tmp_path), "--", "--remeasure"]) != 0
    assert len(built) == 1


def test_other_stages_are_no_times(built: list[frozenset[str]], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["build", "--remeasure=export", "specs/digits.yaml"]) == 2
    assert "export" in capsys.readouterr().err
    assert built == []


def test_a_bundle_is_always_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", str(tmp_path), "--remeasure"]) == 2
    assert "--remeasure is for specs" in " ".join(capsys.readouterr().err.split())
