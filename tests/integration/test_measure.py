"""Measuring on the machine as it is, other load included."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
from tests.support.builds import Build, Compiler

from ortc.common.arrays import write_arrays
from ortc.common.statistics import median
from ortc.evaluation.machine import program
from ortc.evaluation.turns import TURN_SECONDS, Turn, interleave
from ortc.execution.worker import Worker
from ortc.plan.plan import AxisPlan, ExportPlan, InputPlan
from ortc.spec.model_sources import PyTorchSource

MakeCache = Callable[[Path], Path]
TINY = """
import torch

def build():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 32))
"""


@pytest.fixture
def eager(tmp_path: Path) -> Iterator[Worker]:
    """PyTorch with a classifier of 25,000 parameters."""
    (tmp_path / "tiny_classifier.py").write_text(TINY, "utf-8")
    source = PyTorchSource.model_validate(
        {"source": "pytorch", "entrypoint": "tiny_classifier:build", "weights": "random"}
    )
    tensor = InputPlan(name="x", dtype="float32", shape=("batch", 64))
    axes = (AxisPlan(name="batch", min=1, typical=8, max=64),)
    export = ExportPlan(opset=20, ir_version=10, exporter="auto", axes=axes, inputs=(tensor,), outputs=None)
    with Worker.for_reference() as worker:
        worker.call(
            "load",
            model=source.model_dump(mode="json"),
            export=export.model_dump(mode="json"),
            directory=str(tmp_path),
            root=str(tmp_path),
            threads=2,
        )
        yield worker


ATTEMPTS = 5


def test_eager_of_a_tiny_model_takes_as_long_as_by_hand(eager: Worker, tmp_path: Path) -> None:
    request = tmp_path / "inputs.npz"
    write_arrays(request, {"x": np.ones((8, 64), np.float32)})
    ratios = []
    for _ in range(ATTEMPTS):
        (found,) = interleave([Turn("eager", eager, 3)], request, 5, threads=2, turn=TURN_SECONDS)[0]
        assert len(found.rounds) == len(found.wall_seconds) == len(found.cpu_seconds) == 5
        assert min(found.wall_seconds) >= TURN_SECONDS * 0.999
        # Two runs after a rest took 112 ms on a busy machine; by hand, one takes 0.07 ms there and elsewhere.
        fastest = min(found.samples())
        assert fastest < 1.0
        ratios.append(median([median(values) for values in found.rounds]) / fastest)
        if ratios[-1] < 20:
            break
    # What a rest costs is there in every attempt; what another process takes is not.
    assert ratios[-1] < 20, ratios


SPEC = """
apiVersion: ortc/v1alpha1
kind: ModelDeployment
name: tiny
version: 1.0.0
model: {source: pytorch, entrypoint: "tiny_classifier:build", weights: random}
export:
  opset: 20
  dynamic_axes: {batch: {min: 1, typical: 8, max: 16}}
  inputs: {x: {dtype: float32, shape: [batch, 64]}}
targets:
  cpu: {precision: fp32, latency_budget: {p99: 60s, at: {batch: 8}}, start_budget: 600s, min_speedup: 0.001}
"""
TIMED = {"latency p99", "speed-up", "start"}


@contextmanager
def busy_loops(count: int = 4) -> Iterator[None]:
    """Other load, in as many processes."""
    with ExitStack() as stack:
        for _ in range(count):
            process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            stack.callback(process.wait)
            stack.callback(process.kill)
        yield


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tiny")
    (root / "tiny_classifier.py").write_text(TINY, "utf-8")
    (root / "pyproject.toml").write_text('[project]\nname = "tiny"\nversion = "0"\n', "utf-8")
    (root / "spec.yaml").write_text(SPEC, "utf-8")
    return root


def timed(build: Build) -> dict[str, str]:
    (target,) = build.report("tiny")["targets"]
    return {entry["gate"]: entry["outcome"] for entry in target["verdicts"] if entry["gate"] in TIMED}


def ran(build: Build) -> set[str]:
    """Stages that a build did."""
    return {entry["stage"] for entry in build.report("tiny")["stages"] if not entry["cached"]}


@pytest.mark.proof("test_a_control_that_does_not_get_its_cores and test_what_ran_beside_it, with made-up rounds")
def test_beside_busy_loops_no_gate_of_time_passes(project: Path, make_cache: MakeCache, tmp_path: Path) -> None:
    """Budgets that any machine keeps; the cache has everything, and the times of a machine that is taken for quiet."""
    cache, output = make_cache(tmp_path / "cache"), tmp_path / "dist"
    quiet, busy = Compiler(cache), Compiler(cache, is_quiet=False)
    arguments = (project / "spec.yaml", "--search", "none")
    first = quiet.build(*arguments, output=output).succeeded()
    assert timed(first) == dict.fromkeys(TIMED, "pass")
    with busy_loops():
        build = busy.build(*arguments, "--remeasure", output=tmp_path / "other")
    build.failed(7)
    assert ran(build) == {"fetch", "measure", "start"}
    assert timed(build) == dict.fromkeys(TIMED, "inconclusive")
    assert build.bundles() == []
    text = " ".join(build.stdout.split())
    assert "noisy: this machine is too busy to measure" in text
    assert re.search(r"beside it ran .*python[\d.]* \(\d\.\d\d cores\)", text), text
    report = build.report("tiny")
    assert "while True" not in build.stdout + json.dumps(report)
    assert {entry["noisy"] for entry in report["stages"] if entry["stage"] in ("measure", "start")} == {True}
    assert report["targets"][0]["numbers"]["control"] == "noisy"
    # What was doubted is gone, and what claims nothing was not kept: the next build times again, and only that.
    again = quiet.build(*arguments, output=output).succeeded()
    assert ran(again) == {"fetch", "measure", "start", "bundle"}


HOLDER = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import machine
with machine.exclusive(lambda text: print(text, file=sys.stderr), Path(sys.argv[2]), [Path(sys.argv[2])]):
    print("held", flush=True)
    time.sleep(600)
"""


def hold(place: Path) -> subprocess.Popen[str]:
    """A process that holds the lock of a directory."""
    command = [sys.executable, "-c", HOLDER, str(program().parent), str(place)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_killed_holder_leaves_no_lock_and_a_waiter_says_what_it_waits_for(tmp_path: Path) -> None:
    holder = hold(tmp_path)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    waiter = hold(tmp_path)
    assert waiter.stdout is not None
    assert waiter.stderr is not None
    said = waiter.stderr.readline()
    assert said.startswith("waiting for another measurement on this machine to end")
    if "by process" in said:
        assert f"by process {holder.pid} (" in said
    assert waiter.poll() is None
    holder.kill()
    assert waiter.stdout.readline() == "held\n"
    waiter.kill()
    for process in (holder, waiter):
        process.communicate()
