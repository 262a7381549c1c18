"""The sensitivity pass: one outlier layer is found, and kept in higher precision while all others run on integers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import onnx
import pytest
import yaml
from tests.support import outlier
from tests.support.builds import Build, Compiler

from ortc.common.resources import targets_dir
from ortc.common.units import format_bytes
from ortc.execution.browser.chromium import INSTALL, find_chromium

pytestmark = pytest.mark.integration

INTEGERS: tuple[outlier.Kind, ...] = ("channel", "layer")
KINDS: tuple[outlier.Kind, ...] = (*INTEGERS, "overflow")
OPTIONS = ("--variant", "int8-dynamic-mixed", "--search", "none")

LAYER = pytest.mark.proof("test_the_outlier_layer_is_found and the tests beside it with an outlier in a channel")

Mixed = Callable[[outlier.Kind], Build]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("outlier")
    (root / "pyproject.toml").touch()
    for kind in KINDS:
        (root / f"{kind}.yaml").write_text(json.dumps(outlier.write(root, kind), indent=1), "utf-8")
    return root


@pytest.fixture(scope="module")
def mixed(ortc: Compiler, project: Path) -> Mixed:
    """The build of a kind of outlier, made once."""

    @cache
    def build(kind: outlier.Kind) -> Build:
        return ortc.build(project / f"{kind}.yaml", *OPTIONS, output=project / "dist").succeeded()

    return build


def target(build: Build, kind: str) -> dict[str, Any]:
    found: dict[str, Any] = build.report(f"outlier-{kind}")["targets"][0]
    return found


@pytest.mark.parametrize("kind", ["channel", pytest.param("layer", marks=LAYER)])
def test_plain_int8_fails_the_gate(mixed: Mixed, kind: outlier.Kind) -> None:
    plain = next(entry for entry in target(mixed(kind), kind)["decisions"] if entry["variant"] == "int8-dynamic")
    assert plain["outcome"] == "rejected"
    assert plain["reason"].startswith("cosine is")


@pytest.mark.parametrize("kind", ["channel", pytest.param("layer", marks=LAYER)])
def test_the_outlier_layer_is_found(mixed: Mixed, kind: outlier.Kind) -> None:
    (trade,) = target(mixed(kind), kind)["trades"]
    worst, second, *_ = trade["nodes"]
    assert worst["name"] == f"layer{outlier.OUTLIER[kind]}"
    assert worst["error"] > 10 * second["error"]


@pytest.mark.parametrize("kind", ["channel", pytest.param("layer", marks=LAYER)])
def test_what_ships_passes_with_all_others_on_integers(mixed: Mixed, kind: outlier.Kind) -> None:
    found = target(mixed(kind), kind)
    assert (found["variant"], found["precision"]) == ("int8-dynamic-mixed", "int8")
    cosine = next(v for v in found["verdicts"] if v["gate"] == "cosine")
    assert cosine["outcome"] == "pass"
    assert float(cosine["observed"]) >= outlier.COSINE[kind]
    kept = {*found["mix"]["blocks"], *found["mix"]["exclude"]}
    assert f"layer{outlier.OUTLIER[kind]}" in kept
    graph = onnx.load(mixed(kind).bundle(f"outlier-{kind}", "edge") / "model" / "model.onnx")
    operators = [node.op_type for node in graph.graph.node]
    integers = sum(operators.count(operator) for operator in ("MatMulIntegerToFloat", "DynamicQuantizeMatMul"))
    floats = sum(operators.count(operator) for operator in ("MatMul", "MatMulNBits", "Gemm", "FusedGemm"))
    assert integers + floats == outlier.LAYERS
    assert floats == len(kept)
    assert integers >= 0.8 * outlier.LAYERS


@pytest.mark.parametrize("kind", ["channel", pytest.param("layer", marks=LAYER)])
def test_the_trade_is_shown(mixed: Mixed, kind: outlier.Kind) -> None:
    (trade,) = target(mixed(kind), kind)["trades"]
    points = [point for point in trade["points"] if point["data"] == "calibration"]
    assert {point["passes"] for point in points} == {True, False}
    everything = next(point for point in points if point["reduced"] == outlier.LAYERS)
    shipped = next(point for point in trade["points"] if point["data"] == "held out" and point["passes"])
    assert everything["bytes"] < shipped["bytes"]
    assert everything["accuracy"]["cosine"] < trade["limits"]["cosine"] <= shipped["accuracy"]["cosine"]
    assert all(point["p50_ms"] > 0 for point in points)


def test_what_overflows_stays_in_float32(ortc: Compiler, project: Path) -> None:
    """Without a GPU: rounded to float16 on the CPU provider, which shows it, too."""
    build = ortc.build(project / "overflow.yaml", output=project / "dist").succeeded()
    found = target(build, "overflow")
    assert (found["status"], found["variant"], found["precision"]) == ("provisional", "fp16-mixed", "fp16")
    rejected = next(entry for entry in found["decisions"] if entry["variant"] == "fp16")
    assert rejected["outcome"] == "rejected"
    (trade,) = found["trades"]
    layer = outlier.OUTLIER["overflow"]
    # What makes it, what reads it; a third of a layer's nodes, each, is all that there is.
    beyond = {f"layer{layer}", f"add{layer}", f"relu{layer}", f"layer{layer + 1}"}
    assert {node["name"] for node in trade["nodes"] if node["error"] == 1e30} == beyond
    assert set(found["mix"]["exclude"]) == beyond
    assert len(trade["nodes"]) == 3 * outlier.LAYERS
    assert all(point["p50_ms"] is None for point in trade["points"]), "a time on this host says nothing"
    assert trade["limits"] == {"cosine": outlier.COSINE["overflow"]}
    shipped = next(point for point in trade["points"] if point["data"] == "held out" and point["passes"])
    assert shipped["accuracy"]["cosine"] >= trade["limits"]["cosine"]
    graph = onnx.load(build.bundle("outlier-overflow", "server-gpu") / "model" / "model.onnx")
    weights = {tensor.name: tensor.data_type for tensor in graph.graph.initializer}
    assert sorted(weights.values()).count(onnx.TensorProto.FLOAT) == 3
    assert f"of {3 * outlier.LAYERS} nodes {len(beyond)} in float32" in build.stdout
    assert "in float16" in build.stdout


@pytest.mark.proof("test_what_overflows_stays_in_float32 mixes the first variant without a GPU")
def test_without_a_gpu_the_next_variant_is_mixed_where_no_mix_of_the_first_is_right(
    ortc: Compiler, project: Path
) -> None:
    profile = yaml.safe_load((targets_dir() / "server-gpu.yaml").read_text("utf-8"))
    known = {variant["name"]: variant for variant in profile["variants"]}
    own = {**profile, "name": "two", "variants": [known["bf16"], known["fp16"]]}
    (project / "targets").mkdir()
    (project / "targets" / "two.yaml").write_text(yaml.safe_dump(own), "utf-8")
    spec = {**outlier.write(project, "overflow"), "name": "outlier-two", "targets": {"two": {"unmeasured": "allow"}}}
    spec["accuracy"]["cosine"] = 0.999998
    (project / "two.yaml").write_text(json.dumps(spec), "utf-8")
    found = target(ortc.build(project / "two.yaml", output=project / "dist").succeeded(), "two")
    assert found["variant"] == "fp16-mixed"
    assert [trade["variant"] for trade in found["trades"]] == ["bf16", "fp16"]


@pytest.mark.proof("test_a_locked_build_keeps_the_same_nodes_without_a_search compares the bytes of the model")
def test_the_same_inputs_give_the_same_bytes(mixed: Mixed, project: Path, tmp_path: Path, make_cache: Any) -> None:
    again = Compiler(make_cache(tmp_path / "cache")).build(project / "channel.yaml", *OPTIONS, output=tmp_path / "dist")
    sums = [build.bundle("outlier-channel", "edge") / "SHA256SUMS" for build in (mixed("channel"), again.succeeded())]
    assert sums[0].read_bytes() == sums[1].read_bytes()


def test_a_locked_build_keeps_the_same_nodes_without_a_search(
    ortc: Compiler, mixed: Mixed, project: Path, tmp_path: Path, make_cache: Any
) -> None:
    first, spec = mixed("channel"), project / "channel.yaml"
    command = [sys.executable, "-m", "ortc", "lock", str(spec), *OPTIONS, "-o", str(tmp_path / "first")]
    done = subprocess.run(command, env=ortc.environment(), capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    entry = json.loads((project / "ortc.lock").read_bytes())["specs"]["outlier-channel"]["targets"]["edge"]
    assert (entry["variant"], entry["mix"]) == ("int8-dynamic-mixed", target(first, "channel")["mix"])
    # Nothing of it is known there: what is locked is all that says which nodes.
    elsewhere = Compiler(make_cache(tmp_path / "cache"))
    again = elsewhere.build(spec, "--locked", *OPTIONS, output=tmp_path / "dist").succeeded()
    assert target(again, "channel")["mix"] == entry["mix"]
    assert {"sensitivity", "variant"} & {stage["stage"] for stage in again.report("outlier-channel")["stages"]} == {
        "variant"
    }
    files = ["model/model.onnx", "golden/0.inputs.npz", "golden/0.outputs.npz"]
    bundles = [build.bundle("outlier-channel", "edge") for build in (first, again)]
    assert [(bundles[0] / name).read_bytes() for name in files] == [(bundles[1] / name).read_bytes() for name in files]


def test_what_is_downloaded_is_judged_on_every_promised_platform(
    ortc: Compiler, mixed: Mixed, project: Path, tmp_path: Path
) -> None:
    bundle = mixed("channel").bundle("outlier-channel", "edge")
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    assert manifest["promises"]["download"] == 42_000_000
    wheels = manifest["runtime"]["loader_bytes"]
    assert wheels.keys() == {"linux/amd64", "linux/arm64"}
    told = [v for v in target(mixed("channel"), "channel")["verdicts"] if v["gate"] == "download"]
    assert {(v["platform"], v["outcome"]) for v in told} == {("linux/amd64", "pass"), ("linux/arm64", "pass")}
    command = [sys.executable, "-m", "ortc", "verify", str(bundle), "--no-timing", "--json"]
    done = subprocess.run(command, env=ortc.environment(), capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert "download" in [verdict["gate"] for verdict in json.loads(done.stdout)["verdicts"]]
    # Enough for the wheels of the larger platform and a byte a weight, and too little for the rest of the graph.
    budget = max(wheels.values()) + 55_000
    build = ortc.build(
        project / "channel.yaml", *OPTIONS, "--set", f"targets.edge.download_budget={budget}B", output=tmp_path / "dist"
    )
    build.failed(6)
    assert not build.bundles()
    failed = [v for v in target(build, "channel")["verdicts"] if v["gate"] == "download"]
    assert [(v["platform"], v["outcome"]) for v in failed] == [("linux/amd64", "fail")]
    assert f"the loader's wheels {format_bytes(wheels['linux/amd64'])}" in failed[0]["where"]


@pytest.mark.proof("test_the_outlier_layer_is_found, and test_int8_passes_its_gates_in_the_browser")
def test_the_outlier_layer_is_found_in_a_browser(ortc: Compiler, project: Path) -> None:
    """Weights that all graphs share lie beside them under a name of their own, where a page finds them, too."""
    if find_chromium() is None:
        (pytest.fail if os.environ.get("ORTC_REQUIRE_TOOLS") == "1" else pytest.skip)(INSTALL)
    spec = json.loads((project / "channel.yaml").read_bytes())
    spec |= {"name": "outlier-web", "targets": {"web": {"precision": "int8"}}}
    (project / "web.yaml").write_text(json.dumps(spec, indent=1), "utf-8")
    build = ortc.build(project / "web.yaml", *OPTIONS, output=project / "dist").succeeded()
    found = target(build, "web")
    assert found["variant"] == "int8-dynamic-mixed"
    (trade,) = found["trades"]
    assert trade["nodes"][0]["name"] == f"layer{outlier.OUTLIER['channel']}"
