"""`ortc doctor` on the machine that runs the tests, whatever it is."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def doctor(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ortc", "doctor", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def report(*arguments: str) -> tuple[dict[str, Any], int]:
    done = doctor("--json", *arguments)
    document: dict[str, Any] = json.loads(done.stdout)
    assert done.stderr == ""
    return document, done.returncode


def test_json() -> None:
    document, code = report()
    assert code == 0
    assert document["format_version"] == 1
    machine = document["machine"]
    assert all(package["fits"] for package in machine["packages"])
    assert "CPUExecutionProvider" in machine["runtime"]["providers"]
    assert 1 <= machine["cpus"]["physical_within_quota"] <= machine["cpus"]["allowed"] <= machine["cpus"]["logical"]
    assert {disk["purpose"] for disk in machine["disks"]} == {"cache", "here"}
    assert {item["target"] for item in document["targets"]} == {path.stem for path in (ROOT / "targets").glob("*.yaml")}
    for item in document["targets"]:
        assert item["ready"] == (not item["unmeasured"])


def test_text() -> None:
    began = time.perf_counter()
    done = doctor()
    assert done.returncode == 0
    assert time.perf_counter() - began < 60
    for name in ("onnxruntime", "cores", "memory", "GPU", "hub", "target cpu:", "target edge:", "target server-gpu:"):
        assert any(line.startswith(name) for line in done.stdout.splitlines()), name


def test_exit_code_of_a_target_says_whether_it_can_be_measured() -> None:
    for name in ("cpu", "edge", "server-gpu"):
        document, code = report("--target", name)
        assert [item["target"] for item in document["targets"]] == [name]
        assert code == (0 if document["targets"][0]["ready"] else 7)


def test_an_unknown_target() -> None:
    done = doctor("--target", "server-gpus")
    assert done.returncode == 3
    assert "did you mean `server-gpu`?" in done.stderr
