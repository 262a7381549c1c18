"""The sensitivity pass: one outlier layer is found, and kept in floating point while all others run on integers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
from tests.support import outlier
from tests.support.builds import Build, Compiler

pytestmark = pytest.mark.integration

OPTIONS = ("--variant", "int8-dynamic", "--search", "none")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("outlier")
    (root / "pyproject.toml").touch()
    (root / "spec.yaml").write_text(json.dumps(outlier.write(root), indent=1), "utf-8")
    return root


@pytest.fixture(scope="module")
def mixed(ortc: Compiler, project: Path) -> Build:
    return ortc.build(str(project / "spec.yaml"), *OPTIONS, output=project / "dist").succeeded()


def target(build: Build) -> dict[str, Any]:
    found: dict[str, Any] = build.report("outlier")["targets"][0]
    return found


def test_plain_int8_fails_the_gate(mixed: Build) -> None:
    plain = next(entry for entry in target(mixed)["decisions"] if entry["variant"] == "int8-dynamic")
    assert plain["outcome"] == "rejected"
    assert plain["reason"].startswith("cosine is")


def test_the_outlier_layer_is_found(mixed: Build) -> None:
    (trade,) = target(mixed)["trades"]
    worst, second, *_ = trade["nodes"]
    assert worst["name"] == f"layer{outlier.OUTLIER}"
    assert worst["error"] > 10 * second["error"]


def test_what_ships_passes_with_all_others_on_integers(mixed: Build) -> None:
    found = target(mixed)
    assert (found["variant"], found["precision"]) == ("int8-dynamic-mixed", "int8")
    cosine = next(v for v in found["verdicts"] if v["gate"] == "cosine")
    assert cosine["outcome"] == "pass"
    assert float(cosine["observed"]) >= 0.998
    graph = onnx.load(mixed.bundle("outlier", "edge") / "model" / "model.onnx")
    operators = [node.op_type for node in graph.graph.node]
    integers = sum(operators.count(operator) for operator in ("MatMulIntegerToFloat", "DynamicQuantizeMatMul"))
    floats = sum(operators.count(operator) for operator in ("MatMul", "MatMulNBits", "Gemm", "FusedGemm"))
    assert integers + floats == outlier.LAYERS
    assert integers >= 0.8 * outlier.LAYERS


def test_the_trade_is_shown(mixed: Build) -> None:
    (trade,) = target(mixed)["trades"]
    points = [point for point in trade["points"] if point["data"] == "calibration"]
    assert {point["passes"] for point in points} == {True, False}
    everything = next(point for point in points if point["integers"] == outlier.LAYERS)
    shipped = next(point for point in trade["points"] if point["data"] == "held out" and point["passes"])
    assert everything["bytes"] < shipped["bytes"]
    assert everything["accuracy"]["cosine"] < trade["limits"]["cosine"] <= shipped["accuracy"]["cosine"]
    assert all(point["p50_ms"] > 0 for point in points)


def test_the_same_inputs_give_the_same_bytes(mixed: Build, project: Path, tmp_path: Path, make_cache: Any) -> None:
    again = Compiler(make_cache(tmp_path / "cache")).build(
        str(project / "spec.yaml"), *OPTIONS, output=tmp_path / "dist"
    )
    sums = [build.bundle("outlier", "edge") / "SHA256SUMS" for build in (mixed, again.succeeded())]
    assert sums[0].read_bytes() == sums[1].read_bytes()
