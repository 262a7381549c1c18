"""Searches on real models: how far they look, what they take, and what they say against the others."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.support import bundles
from tests.support.builds import PATIENT, PLAIN, QUICK, ROOT, Build, Compiler, what_runs

pytestmark = pytest.mark.integration

DIGITS = ("specs/digits.yaml", "-t", "cpu", *PATIENT[:2])


def target_of(build: Build, name: str = "digits") -> dict[str, Any]:
    (target,) = build.report(name)["targets"]
    found: dict[str, Any] = target
    return found


def decisions_of(build: Build, name: str = "digits") -> dict[str, dict[str, Any]]:
    return {entry["variant"]: entry for entry in target_of(build, name)["decisions"]}


def subjects(build: Build, stage: str) -> list[str]:
    return [entry["subject"] for entry in build.report("digits")["stages"] if entry["stage"] == stage]


@pytest.mark.proof("test_what_ships_passes_with_all_others_on_integers forces one; test_a_build_for_openvino")
def test_one_variant_is_forced(ortc: Compiler, tmp_path: Path) -> None:
    build = ortc.build(*DIGITS, "--variant", "fp32-openvino", output=tmp_path).succeeded()
    target = target_of(build)
    assert target["variant"] == "fp32-openvino"
    (selected,) = target["decisions"]
    assert selected["outcome"] == "selected"
    assert selected["reason"].split(";")[0] == "the only variant that was tried"
    manifest = json.loads((build.bundle("digits", "cpu") / "manifest.json").read_bytes())
    assert (manifest["variant"]["name"], manifest["runtime"]["package"]) == ("fp32-openvino", "onnxruntime-openvino")
    assert subjects(build, "variant") == ["cpu: fp32-openvino at all"]


def test_a_quick_search_skips_shapes_and_says_so(ortc: Compiler, tmp_path: Path) -> None:
    # What merges projections is tried first, and has nothing to merge here.
    options = ("--set", "targets.cpu.precision=auto", "--search", "quick")
    build = ortc.build(*DIGITS, *options, output=tmp_path).succeeded()
    report = build.report("digits")
    decisions = decisions_of(build)
    assert "int8-merged" in decisions
    assert decisions["int8-dynamic"]["bytes"] > 0
    assert report["skipped_cases"] == ["batch=9: a quick search looks at the corners of the shape matrix"]
    assert target_of(build)["elsewhere"] == []
    assert subjects(build, "reference") == ["2 shapes"]
    assert "not checked: batch=9 (a quick search looks at the corners of the shape matrix)" in build.stdout


def test_no_search_takes_the_first(digits: Build) -> None:
    report = digits.succeeded().report("digits")
    (cpu,) = (target for target in report["targets"] if target["target"] == "cpu")
    decisions = {entry["variant"]: entry for entry in cpu["decisions"]}
    assert decisions["fp32"]["outcome"] == "selected"
    others = [entry for name, entry in decisions.items() if name != "fp32"]
    assert others
    assert {entry["outcome"] for entry in others} == {"left out"}
    assert {entry["reason"] for entry in others} == {"not looked at: `--search none` takes the first"}
    # No race between variants or sessions: the winner alone is measured, beside PyTorch.
    measured = [subject.rpartition(", ")[0] for subject in subjects(digits, "measure")]
    assert [subject for subject in measured if subject.startswith("cpu")] == ["cpu: fp32 and PyTorch"]


@pytest.mark.proof("test_a_quick_search_skips_shapes_and_says_so, with latency as the objective")
def test_throughput(ortc: Compiler, tmp_path: Path) -> None:
    options = (
        "--set",
        "targets.cpu.objective=throughput",
        "--set",
        "targets.cpu.start_budget=60s",
        "--search",
        "quick",
    )
    build = ortc.build(*DIGITS, *options, output=tmp_path).succeeded()
    target = target_of(build)
    rate = target["numbers"]["requests_per_second"]
    assert rate["low"] <= rate["value"] <= rate["high"]
    assert rate["samples"] >= 20
    # Whoever asks alone waits at least as long as his share of a crowd: several clients do not lower the rate much.
    # Other processes may, in one of the two races.
    assert rate["value"] > 0.1 * 1000 / target["numbers"]["p50_ms"]["value"]
    assert f"{rate['value']:.1f} requests/s" in build.stdout
    raced = [subject for subject in subjects(build, "measure") if "throughput" in subject]
    assert raced
    selected = decisions_of(build)[target["variant"]]
    assert selected["reason"].startswith("most requests per second that passes")
    manifest = json.loads((build.bundle("digits", "cpu") / "session.json").read_bytes())
    assert manifest["concurrency"] == ("physical" if target["tuning"] else "one")


def test_a_slower_variant_is_rejected_with_its_numbers(
    ortc: Compiler, write_spec: Callable[..., Path], tmp_path: Path
) -> None:
    """A full search; OpenVINO takes several times as long as ONNX Runtime for a model of microseconds."""
    onnx.save(bundles.linear_model(), tmp_path / "linear.onnx")
    export = {"opset": 17, "dynamic_axes": {"batch": {"min": 1, "typical": 1, "max": 8}}}
    spec = write_spec(tmp_path, {"source": "onnx", "path": "linear.onnx"}, export)
    document = json.loads(spec.read_bytes())
    document["targets"]["cpu"]["precision"] = "fp32"
    spec.write_text(json.dumps(document), "utf-8")
    build = ortc.build(spec, output=tmp_path / "dist", cwd=tmp_path).succeeded()
    report = build.report("small")
    decisions = decisions_of(build, "small")
    loser, winner = decisions["fp32-openvino"], decisions["fp32"]
    assert (winner["outcome"], loser["outcome"], loser["reason"]) == ("selected", "rejected", "slower than fp32")
    assert loser["bytes"] > 0
    assert loser["p50_ms"] > winner["p50_ms"]
    assert loser["slower"]["value"] > 1
    assert f"{loser['slower']['value']:.2f}x as long" in build.stdout
    # What comes to the same graph is not raced against itself.
    assert decisions["fp32-unfused"]["reason"] == "the same graph as fp32"
    raced = [entry["subject"] for entry in report["stages"] if entry["stage"] == "measure"]
    assert raced
    assert not any("unfused" in subject for subject in raced)
    # A lock keeps what the search found.
    command = [sys.executable, "-m", "ortc", "lock", str(spec), "-o", str(tmp_path / "dist")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=ortc.environment(), check=False)
    assert done.returncode == 0, done.stderr
    lock = json.loads((tmp_path / "ortc.lock").read_bytes())
    assert lock["specs"]["small"]["targets"]["cpu"]["variant"] == "fp32"
    locked = ortc.build(spec, "--locked", output=tmp_path / "locked", cwd=tmp_path).succeeded()
    assert what_runs(locked.bundle("small", "cpu")) == what_runs(build.bundle("small", "cpu"))


def small_weights() -> onnx.ModelProto:
    """A convolution whose weights, times the constant that follows, are too small for a normal float.

    ONNX Runtime folds that constant into the weights from level `basic` on, where they become zero.
    """
    weights = np.random.default_rng(0).uniform(0.5, 1.5, (4, 1, 3, 3)).astype(np.float32) * np.float32(1e-25)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "weights"], ["tiny"], kernel_shape=[3, 3]),
            helper.make_node("Mul", ["tiny", "down"], ["tinier"]),
            helper.make_node("Mul", ["tinier", "up"], ["y"]),
        ],
        "small_weights",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4, 6, 6])],
        [
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(np.array(1e-20, np.float32), "down"),
            numpy_helper.from_array(np.array(1e20, np.float32), "up"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_a_graph_level_that_breaks_the_numbers_is_lowered(
    ortc: Compiler, write_spec: Callable[..., Path], tmp_path: Path
) -> None:
    onnx.save(small_weights(), tmp_path / "small.onnx")
    export = {
        "opset": 17,
        "dynamic_axes": {"batch": {"min": 1, "typical": 1, "max": 4}},
        "inputs": {"x": {"dtype": "float32", "shape": ["batch", 1, 8, 8], "range": [0, 1e25]}},
    }
    spec = write_spec(tmp_path, {"source": "onnx", "path": "small.onnx"}, export)
    build = ortc.build(spec, *PLAIN, output=tmp_path / "dist", cwd=tmp_path).succeeded()
    target = target_of(build, "small")
    assert (target["variant"], target["graph_level"], target["parity"]) == ("fp32", "off", "max_abs 0")
    reason = decisions_of(build, "small")["fp32"]["reason"]
    assert "graph level `all`: max_abs is " in reason
    assert "must be <= 0.0001 at output `y` at batch=" in reason
    assert reason.endswith(", so `off` was taken")
    # Every level between was tried on the way down, and what ships is what was found right.
    assert {"cpu: fp32 at extended", "cpu: fp32 at basic"} <= {
        entry["subject"] for entry in build.report("small")["stages"] if entry["stage"] == "verify"
    }
    manifest = json.loads((build.bundle("small", "cpu") / "manifest.json").read_bytes())
    assert manifest["variant"]["graph_level"] == "off"


@pytest.mark.proof("test_a_host_without_a_compiler_is_told_and_measured has all but torch.compile")
def test_bench_of_a_spec(ortc: Compiler, built: Build) -> None:
    built.succeeded()
    command = [sys.executable, "-m", "ortc", "bench", "specs/digits.yaml", *PATIENT, *QUICK, "-o", str(built.output)]
    done = subprocess.run(
        [*command, "--batches", "100", "--json"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=ortc.environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["format_version"] == 1
    assert found["host"]["platform"] == "linux/amd64"
    assert {"torch", "python", "onnxruntime"} <= found["versions"].keys()
    clipped = "batch 100 is not within the spec's 1 to 64 of `batch`: 64 is measured"
    assert clipped in found["notes"]
    assert clipped in done.stderr
    (at,) = found["batches"]
    assert (at["batch"], at["shape"]) == (64, "batch=64")
    rows = {entry["contender"]: entry for entry in at["rows"]}
    assert list(rows)[:3] == ["PyTorch eager", "torch.compile", next(name for name in rows if "ortc cpu" in name)]
    for name, entry in rows.items():
        if entry["failed"] is not None:
            assert name == "torch.compile"
            continue
        assert entry["p50_ms"]["value"] <= entry["p90_ms"]["value"]
        assert (entry["p99_ms"] is not None) == (entry["samples"] >= 368)
        assert entry["peak_rss_bytes"] > 10_000_000
        assert entry["start_seconds"] > 0
        assert (entry["speedup"] is None) == (name == "PyTorch eager")
        assert (entry["compile_seconds"] is not None) == (name == "torch.compile")


def test_a_host_without_a_compiler_is_told_and_measured(ortc: Compiler, built: Build, tmp_path: Path) -> None:
    """torch.compile needs a C++ compiler; the others do not."""
    built.succeeded()
    command = [sys.executable, "-m", "ortc", "bench", "specs/digits.yaml", *PATIENT, *PLAIN, "-o", str(built.output)]
    done = subprocess.run(
        [*command, "-t", "cpu", "--batches", "1"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**ortc.environment(), "CXX": str(tmp_path / "no-compiler")},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "torch.compile: torch.compile fails: " in done.stdout
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["torch.compile", *["-"] * 8] in lines
    header = next(line for line in done.stdout.splitlines() if line.startswith("contender"))
    assert header.split() == [
        "contender",
        "p50",
        "p90",
        "p99",
        "requests/s",
        "vs",
        "eager",
        "start",
        "peak",
        "memory",
        "samples",
    ]
    assert any(line[:3] == ["ortc", "cpu,", "fp32"] for line in lines)
