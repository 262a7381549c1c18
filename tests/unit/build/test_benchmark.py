"""`ortc bench SPEC`: which shapes are measured, what the numbers mean, and what is refused before any work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ortc.__main__ import run
from ortc.build.benchmark import COMPILED, Started, row, shapes_of
from ortc.evaluation.latency import REFERENCE
from ortc.evaluation.report import Contender
from ortc.plan.plan import AxisPlan

ROOT = Path(__file__).parents[3]
BATCH = AxisPlan(name="batch", min=1, typical=1, max=8)
SEQUENCE = AxisPlan(name="sequence", min=1, typical=128, max=512)


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(ROOT)


def test_other_axes_are_at_their_typical_sizes() -> None:
    shapes, notes = shapes_of((BATCH, SEQUENCE), BATCH, (1, 4))
    assert [shape.as_dict() for shape in shapes] == [{"batch": 1, "sequence": 128}, {"batch": 4, "sequence": 128}]
    assert notes == ()


def test_batches_are_clipped_to_the_bounds_of_the_spec_and_that_is_told() -> None:
    shapes, notes = shapes_of((BATCH, SEQUENCE), BATCH, (1, 4, 16, 64))
    assert [shape.as_dict()["batch"] for shape in shapes] == [1, 4, 8]
    assert notes == (
        "batch 16 is not within the spec's 1 to 8 of `batch`: 8 is measured",
        "batch 64 is not within the spec's 1 to 8 of `batch`: 8 is measured",
    )
    even = AxisPlan(name="rows", min=4, typical=4, max=18, multiple_of=4)
    shapes, notes = shapes_of((even,), even, (1, 7, 12, 99))
    assert [shape.as_dict()["rows"] for shape in shapes] == [4, 12, 16]
    assert notes[1] == "batch 7 is not within the spec's 4 to 18 in steps of 4 of `rows`: 4 is measured"
    odd = AxisPlan(name="rows", min=3, typical=4, max=9, multiple_of=4)
    assert [shape.as_dict()["rows"] for shape in shapes_of((odd,), odd, (3,))[0]] == [4]


def test_a_model_without_a_batch_axis_has_one_shape() -> None:
    shapes, notes = shapes_of((SEQUENCE,), None, (1, 4, 16))
    assert [shape.as_dict() for shape in shapes] == [{"sequence": 128}]
    assert notes == ("the model has no batch axis: it is measured at one shape",)
    assert [shape.as_dict() for shape in shapes_of((), None, (1,))[0]] == [{}]


def contenders(rounds: int, runs: int) -> dict[str, Contender]:
    times = {REFERENCE: 40.0, COMPILED: 20.0, "ortc cpu, fp32": 10.0}
    return {name: Contender(name=name, rounds=((time,) * runs,) * rounds) for name, time in times.items()}


def test_numbers_of_a_contender() -> None:
    found = row(Started("ortc cpu, fp32", None, start_seconds=0.5), contenders(20, 20), 7)
    assert (found.samples, found.start_seconds, found.peak_rss_bytes) == (400, 0.5, 7)
    assert found.speedup is not None
    assert (found.speedup.value, found.speedup.low, found.speedup.samples) == (4, 4, 20)
    assert found.requests_per_second == pytest.approx(100)
    assert found.p99_ms is not None
    assert (found.p99_ms.value, found.p99_ms.high) == (10, 10)
    # Nobody is faster than himself.
    assert row(Started(REFERENCE, None), contenders(20, 20), 7).speedup is None


def test_p99_needs_samples() -> None:
    assert row(Started(COMPILED, None), contenders(20, 18), 1).p99_ms is None
    assert row(Started(COMPILED, None), contenders(20, 19), 1).p99_ms is not None


def test_the_time_to_compile_is_apart_and_a_failure_is_a_row() -> None:
    found = row(Started(COMPILED, None, start_seconds=2.0, compile_seconds=9.0), contenders(6, 1), 1)
    assert (found.start_seconds, found.compile_seconds) == (2.0, 9.0)
    failed = row(Started(COMPILED, None, failed="no C++ compiler"), contenders(6, 1), None)
    assert (failed.failed, failed.samples, failed.p50_ms) == ("no C++ compiler", 0, None)


def test_without_pytorch_there_is_nothing_to_be_faster_than() -> None:
    alone = {"ortc cpu, fp32": contenders(6, 1)["ortc cpu, fp32"]}
    assert row(Started("ortc cpu, fp32", None), alone, 1).speedup is None


@pytest.mark.parametrize("batches", ["", "0", "1,,4", "1,-4", "many", "1.5"])
def test_batches_are_whole_numbers(batches: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "specs/digits.yaml", "--batches", batches]) == 2
    assert "no list of batch sizes" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options", [["--batches", "1"], ["-t", "cpu"], ["--search", "full"], ["--variant", "fp32"], ["--set", "name=x"]]
)
def test_options_of_specs_are_not_for_bundles(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["bench", str(tmp_path), *options]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "is for specs" in told
    assert "is a directory, so it is taken for a bundle" in told


def test_what_is_neither_spec_nor_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", str(tmp_path / "absent")]) == 2
    assert "does not exist" in " ".join(capsys.readouterr().err.split())
    assert run(["bench", str(tmp_path)]) == 4
    assert "is no bundle: it has no manifest.json" in capsys.readouterr().err
    (tmp_path / "spec.yaml").write_text(json.dumps({"kind": "ModelDeployment"}))
    assert run(["bench", str(tmp_path / "spec.yaml")]) == 3
    assert run(["bench", "specs/digits.yaml", "-t", "gpu"]) == 2
    assert "has no target `gpu`; it has cpu, edge" in " ".join(capsys.readouterr().err.split())
