"""A broken promise is an exit code of its own, evidence, and no bundle; what was there before stays."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.support import builds
from tests.support.builds import PLAIN, Build, Compiler, snapshot

from ortc.execution.host import gpus

pytestmark = pytest.mark.integration

BERT = (builds.TEXT, *PLAIN)


@pytest.fixture
def earlier(built: Build, tmp_path: Path) -> Path:
    """An output directory with the cpu bundle of an earlier build."""
    output = tmp_path / "earlier"
    shutil.copytree(built.succeeded().bundle("bert", "cpu"), output / "bert" / "1.0.0" / "cpu")
    return output


def test_accuracy(earlier: Path, ortc: Compiler, tmp_path: Path) -> None:
    options = ("--set", "accuracy.max_abs=1e-12")
    result = ortc.build(*BERT, *options, output=tmp_path / "new")
    told = result.failed(5)
    assert "max_abs" in told
    assert "output `last_hidden_state` at " in told
    assert "allowed <= 1e-12" in told
    assert result.bundles() == []
    before = snapshot(earlier / "bert" / "1.0.0" / "cpu")
    result = ortc.build(*BERT, *options, output=earlier)
    result.failed(5)
    assert snapshot(earlier / "bert" / "1.0.0" / "cpu") == before
    assert result.bundles() == ["bert/1.0.0/cpu"]
    assert "`last_hidden_state`" in result.report("bert")["error"]


def test_accuracy_of_a_variant(ortc: Compiler, tmp_path: Path) -> None:
    """The exported graph is right; it is the INT8 variant that is not."""
    options = (*PLAIN, "-t", "edge", "--set", "accuracy.cosine=1", "--set", "targets.edge.latency_budget.p99=60s")
    result = ortc.build("specs/digits.yaml", *options, output=tmp_path)
    result.failed(5)
    assert result.bundles() == []
    assert "output `logits` at " in result.stdout + result.stderr
    target = result.report("digits")["targets"][0]
    assert (target["status"], target["exit_code"]) == ("failed", 5)
    assert {verdict["gate"] for verdict in target["verdicts"]} >= {"cosine"}


def test_latency(earlier: Path, ortc: Compiler, tmp_path: Path) -> None:
    options = ("--set", "targets.cpu.latency_budget.p99=1us")
    result = ortc.build(*BERT, *options, output=tmp_path / "new")
    result.failed(6)
    assert result.bundles() == []
    assert "FAIL (exit 6)" in result.stdout
    assert verdicts(result)["latency p99"]["outcome"] == "fail"
    before = snapshot(earlier / "bert" / "1.0.0" / "cpu")
    result = ortc.build(*BERT, *options, output=earlier)
    result.failed(6)
    assert snapshot(earlier / "bert" / "1.0.0" / "cpu") == before
    assert result.report("bert")["exit_code"] == 6


def verdicts(result: Build, name: str = "bert") -> dict[str, Any]:
    """The verdicts of the one target that a build was for, by gate."""
    (target,) = result.report(name)["targets"]
    return {verdict["gate"]: verdict for verdict in target["verdicts"]}


@pytest.mark.parametrize(
    ("promise", "gate"),
    [
        ("size_budget=1MB", "size"),
        ("memory_budget=100MB", "memory"),
        ("start_budget=1ms", "start"),
        ("min_speedup=1000", "speed-up"),
    ],
)
def test_other_budgets(built: Build, ortc: Compiler, tmp_path: Path, promise: str, gate: str) -> None:
    built.succeeded()
    # One variant: each that breaks a promise is verified in turn.
    result = ortc.build(*BERT, "--variant", "fp32", "--set", f"targets.cpu.{promise}", output=tmp_path)
    if result.exit_code == 3:
        # A size that no variant can have is known before any work.
        assert gate == "size"
        assert "size" in result.stderr
        return
    result.failed(6)
    assert verdicts(result)[gate]["outcome"] == "fail"
    assert result.bundles() == []


def test_one_target_that_fails_holds_all_back(built: Build, ortc: Compiler, tmp_path: Path) -> None:
    """One spec is one release: a model that is ready for one of its targets only is not ready, nor registered."""
    built.succeeded()
    options = (*PLAIN, "--set", "targets.cpu.latency_budget.p99=1us", "--set", "targets.edge.latency_budget.p99=60s")
    registry = tmp_path / "registry"
    result = ortc.build("specs/digits.yaml", *options, "--register", registry, output=tmp_path / "dist")
    result.failed(6)
    assert result.bundles() == []
    assert [path.name for path in registry.rglob("*")] == ["registry.json"]
    assert {target["target"]: target["exit_code"] for target in result.report("digits")["targets"]} == {
        "cpu": 6,
        "edge": 0,
    }


def test_json_tells_the_failure(built: Build, ortc: Compiler, tmp_path: Path) -> None:
    built.succeeded()
    result = ortc.build(*BERT, "--json", "--set", "targets.cpu.latency_budget.p99=1us", output=tmp_path)
    result.failed(6)
    document = json.loads(result.stdout)
    assert document["format_version"] == 1
    assert [entry["exit_code"] for entry in document["builds"]] == [6]
    result = ortc.build(*BERT, "--json", "--set", "accuracy.max_abs=1e-12", output=tmp_path)
    result.failed(5)
    document = json.loads(result.stdout)
    assert [entry["exit_code"] for entry in document["builds"]] == [5]


@pytest.mark.skipif(bool(gpus()), reason="this host has a GPU, where the target is measured")
def test_a_missing_gpu_is_not_a_pass(built: Build, ortc: Compiler, tmp_path: Path) -> None:
    built.succeeded()
    options = (*PLAIN, "-t", "server-gpu", "--set", "targets.server-gpu.unmeasured=fail")
    options += ("--set", "targets.server-gpu.latency_budget.p99=8ms")
    result = ortc.build("specs/digits.yaml", *options, output=tmp_path)
    result.failed(7)
    assert result.bundles() == []
    assert "no GPU on this host" in result.stdout
    assert {verdict["outcome"] for verdict in verdicts(result, "digits").values()} == {"unmeasured"}


def test_a_place_that_cannot_be_written(built: Build, ortc: Compiler, tmp_path: Path) -> None:
    built.succeeded()
    sealed = tmp_path / "sealed"
    sealed.mkdir()
    sealed.chmod(0o555)
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "bert").touch()
    for output, reason in ((sealed, "Permission denied"), (blocked, "Not a directory")):
        result = ortc.build(*BERT, output=output, preexec_fn=_obey_permissions)
        told = result.failed(4)
        assert str(output) in told
        assert reason in told
        assert "help: " in told


def _obey_permissions() -> None:
    """Take from root, who may write anywhere, the capability to do so (CAP_DAC_OVERRIDE, prctl PR_CAPBSET_DROP)."""
    if os.geteuid() == 0:
        ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)
