"""The peers' protocol under ortc's own driver, and what a command is said to cost."""

import importlib
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ortc.common.arrays import write_arrays
from ortc.execution.worker import Worker
from ortc.execution.worker_process import WorkerError

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

PEER = f"""
import sys
sys.path.insert(0, {str(BENCHMARKS / "contenders")!r})
from protocol import main

def load(artifact, threads, options):
    print("a library that talks")
    def prepare(arrays):
        return lambda: arrays["x"] * threads + float(options["add"])
    return prepare

main(load)
"""


@pytest.fixture
def peer(tmp_path: Path) -> list[str]:
    script = tmp_path / "peer.py"
    script.write_text(PEER, "utf-8")
    return [sys.executable, str(script)]


def test_a_peer_speaks_the_protocol_of_a_bundles_worker(peer: list[str], tmp_path: Path) -> None:
    inputs = tmp_path / "inputs.npz"
    write_arrays(inputs, {"x": np.array([1.0, 2.0])})
    options = ["worker", "--artifact", str(tmp_path), "--threads", "2", "--option", "add=0.5"]
    with Worker("peer", [*peer, *options]) as worker:
        assert worker.run({"x": np.array([1.0, 2.0])})["output"].tolist() == [2.5, 4.5]
        assert len(worker.bench(inputs, runs=3, warmup=1)) == 3
        assert worker.call("info")["peak_rss_bytes"] > 1_000_000
        with pytest.raises(WorkerError, match="KeyError: 'x'"):
            worker.run({"y": np.array([1.0])})
        assert worker.run({"x": np.array([0.0])})["output"].tolist() == [0.5]


def test_a_first_answer_is_timed_from_the_start_of_the_process(peer: list[str], tmp_path: Path) -> None:
    inputs = tmp_path / "inputs.npz"
    write_arrays(inputs, {"x": np.array([1.0])})
    options = ["first", "--artifact", str(tmp_path), "--threads", "1", "--option", "add=0", "--inputs", str(inputs)]
    began = time.monotonic()
    done = subprocess.run([*peer, *options, "--started", str(began - 10)], capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    assert 10 < answer["seconds"] < 10 + time.monotonic() - began
    assert answer["peak_rss_bytes"] > 1_000_000


def test_a_command_costs_its_time_and_the_memory_of_its_children(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    counting = importlib.import_module("counting")
    child = "import time; block = bytearray(200_000_000); time.sleep(0.6); print('done')"
    parent = f"import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', {child!r}]).returncode + 3)"
    cost = counting.run_counted([sys.executable, "-c", parent], directory=tmp_path, variables={}, log=tmp_path / "log")
    assert cost.exit_code == 3
    assert 0.6 < cost.seconds < 60
    assert 200_000_000 < cost.peak() < 600_000_000
    assert cost.tail() == "done"
    assert (tmp_path / "log").read_text("utf-8") == "done\n"
