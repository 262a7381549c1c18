"""The loader as a program: its command line and its worker, as the compiler and a container start them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support import bundles

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundles.text().write(tmp_path_factory.mktemp("cli") / "bundle")


def call(bundle: Path, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(bundle / "runtime/loader.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **(env or {})},
    )


def answer(process: subprocess.CompletedProcess[str]) -> Any:
    """The one JSON document on stdout."""
    assert process.returncode == 0, process.stderr
    assert process.stdout.count("\n") == 1
    document = json.loads(process.stdout)
    assert document["ok"] is True
    return document["result"]


def refused(process: subprocess.CompletedProcess[str], code: str, exit_code: int) -> str:
    """The message of the one error document on stdout, said again in one line on stderr."""
    assert process.returncode == exit_code, process.stderr
    assert process.stdout.count("\n") == 1
    document = json.loads(process.stdout)
    assert document == {"ok": False, "error": {"code": code, "message": document["error"]["message"]}}
    assert process.stderr.splitlines()[-1] == f"error: {document['error']['message']}"
    assert "Traceback" not in process.stderr
    return str(document["error"]["message"])


def test_selftest_reports_versions_placement_and_observed_differences(bundle: Path) -> None:
    result = answer(call(bundle, "selftest"))
    assert result["name"] == "text"
    assert result["providers"] == ["CPUExecutionProvider"]
    assert result["placement"]["CPUExecutionProvider"] >= 3
    assert [case["max_abs"] for case in result["golden"]] == [0.0]
    assert result["versions"].keys() == {"python", "numpy", "onnxruntime", "build"}


@pytest.mark.parametrize("name", ["model/model.onnx", "golden/0.outputs.npz", "session.json", "manifest.json"])
def test_selftest_names_the_file_with_a_flipped_byte(tmp_path: Path, name: str) -> None:
    bundle = bundles.text().write(tmp_path / "bundle")
    data = bytearray((bundle / name).read_bytes())
    data[-20] ^= 4
    (bundle / name).write_bytes(data)
    assert name in refused(call(bundle, "selftest"), "digest-mismatch", 4)


def test_a_cold_start_imports_no_more_than_it_needs(bundle: Path, tmp_path: Path) -> None:
    files = ("--npz", str(bundle / "golden/0.inputs.npz"), "--output", str(tmp_path / "outputs.npz"))
    process = call(bundle, "run", "--verify", "fast", *files, env={"PYTHONPROFILEIMPORTTIME": "1"})
    answer(process)
    imported = {line.rpartition("|")[2].strip() for line in process.stderr.splitlines() if "|" in line}
    assert {"numpy", "onnxruntime"} <= imported
    assert not imported & {"numpy.ma", "numpy.random", "difflib", "concurrent.futures", "onnx"}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_program_starts_no_threads_for_blas(bundle: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    with subprocess.Popen(
        [sys.executable, "-B", str(bundle / "runtime/loader.py"), "worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b'{"op": "close"}\n')
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["ok"]
        assert len(list(Path(f"/proc/{process.pid}/task").iterdir())) == 1
        process.stdin.close()


def test_another_bundle_can_be_named(bundle: Path, tmp_path: Path) -> None:
    other = bundles.linear().write(tmp_path / "other")
    assert answer(call(bundle, "info", "--bundle", str(other), "--verify", "fast", "--threads", "2"))["threads"] == {
        "intra_op": 2,
        "inter_op": 1,
    }


def test_the_environment_sets_the_threads(bundle: Path) -> None:
    result = answer(call(bundle, "info", env={"ORT_INTRA_OP_NUM_THREADS": "2"}))
    assert result["threads"]["intra_op"] == 2
    process = call(bundle, "info", env={"ORT_INTRA_OP_NUM_THREADS": "all"})
    assert "ORT_INTRA_OP_NUM_THREADS is 'all'" in refused(process, "threads", 11)


def test_bench_reports_percentiles_memory_and_start(bundle: Path) -> None:
    result = answer(call(bundle, "bench", "--shape", "batch=2,sequence=7", "--runs", "20", "--warmup", "2"))
    assert result["shape"] == {"batch": 2, "sequence": 7}
    assert result["n"] == 20
    latency = result["latency_ms"]
    assert 0 < latency["p50"] <= latency["p90"] <= latency["p99"]
    assert latency["mean"] > 0
    assert result["throughput_per_second"] == pytest.approx(2000 / latency["mean"])
    assert 10_000_000 < result["peak_rss_bytes"] < 2**31
    assert result["start_to_first_answer_seconds"] > result["load_seconds"] > 0


def test_peak_memory_is_the_processes_own_and_not_its_parents(bundle: Path) -> None:
    ballast = np.ones(512 * 2**20, dtype=np.uint8)
    assert answer(call(bundle, "info"))["peak_rss_bytes"] < ballast.nbytes


@pytest.mark.parametrize(
    ("arguments", "code", "exit_code", "message"),
    [
        ([], "usage", 2, "required: command"),
        (["nope"], "usage", 2, "invalid choice: 'nope'"),
        (["selftest", "--verify", "quick"], "usage", 2, "--verify"),
        (["selftest", "--threads", "0"], "threads", 11, "threads is 0"),
        (["selftest", "--bundle", "/nonexistent"], "format", 3, "/nonexistent is not a bundle"),
        (["bench", "--shape", "batch"], "usage", 2, "--shape has 'batch'"),
        (["bench", "--shape", "bach=1"], "input", 10, "Did you mean 'batch'"),
        (["bench", "--shape", "batch=5"], "input", 10, "Send 1 to 4"),
        (["bench", "--runs", "0"], "usage", 2, "runs is 0"),
        (["run", "--output", "x.npz"], "usage", 2, "give either --npz"),
        (["run", "--npz", "/nonexistent.npz", "--output", "x.npz"], "input", 10, "/nonexistent.npz cannot be read"),
        (["run", "--input", "ids=/nonexistent", "--output", "x.npz"], "input", 10, "--input ids=/nonexistent"),
    ],
)
def test_mistakes_give_one_error_document(
    bundle: Path, arguments: list[str], code: str, exit_code: int, message: str
) -> None:
    assert message in refused(call(bundle, *arguments), code, exit_code)


def test_run_reads_and_writes_files(bundle: Path, tmp_path: Path) -> None:
    golden = bundle / "golden"
    inputs = np.load(golden / "0.inputs.npz")
    for name in inputs.files:
        np.save(tmp_path / f"{name}.npy", inputs[name])
    one, two = tmp_path / "one.npz", tmp_path / "two"
    result = answer(call(bundle, "run", "--npz", str(golden / "0.inputs.npz"), "--output", str(one)))
    assert result["outputs"] == {"hidden": {"dtype": "float32", "shape": [2, 3, 8]}}
    files = [f"--input={name}={tmp_path / f'{name}.npy'}" for name in inputs.files]
    answer(call(bundle, "run", *files, "--output", str(two)))
    expected = np.load(golden / "0.outputs.npz")["hidden"]
    assert np.array_equal(np.load(one)["hidden"], expected)
    assert np.array_equal(np.load(two)["hidden"], expected)


def test_an_unfit_bundle_warns_on_stderr_only(tmp_path: Path) -> None:
    recipe = bundles.linear()
    recipe.manifest |= {"fit_to_serve": False, "unfit_reason": "random weights"}
    process = call(recipe.write(tmp_path / "bundle"), "selftest")
    assert answer(process)["fit_to_serve"] is False
    assert "warning: linear 1.0.0 (cpu) is not fit to serve: random weights\n" in process.stderr


Ask = Callable[[object], Any]


@pytest.fixture
def worker(bundle: Path) -> Iterator[Ask]:
    with subprocess.Popen(
        [sys.executable, str(bundle / "runtime/loader.py"), "worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def ask(request: object) -> Any:
            line = request if isinstance(request, bytes) else json.dumps(request).encode()
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(line + b"\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield ask
        process.stdin.close()
        assert process.wait(timeout=60) == 0
        assert process.stdout.read() == b""


def test_a_worker_loads_runs_measures_and_closes(bundle: Path, worker: Ask, tmp_path: Path) -> None:
    loaded = worker({"op": "load", "bundle": str(bundle), "verify": "fast", "threads": 2, "selftest": True})["result"]
    assert loaded["golden"][0]["max_abs"] == 0
    assert loaded["threads"]["intra_op"] == 2
    source = str(bundle / "golden/0.inputs.npz")
    ran = worker({"op": "run", "inputs": source, "outputs": str(tmp_path / "out.npz")})["result"]
    assert ran["outputs"] == {"hidden": {"dtype": "float32", "shape": [2, 3, 8]}}
    expected = np.load(bundle / "golden/0.outputs.npz")["hidden"]
    assert np.array_equal(np.load(tmp_path / "out.npz")["hidden"], expected)
    turn = worker({"op": "bench", "inputs": source, "runs": 7, "warmup": 0})["result"]
    assert len(turn["latencies_ms"]) == 7
    assert min(turn["latencies_ms"]) > 0
    assert turn["wall_seconds"] * 1000 >= sum(turn["latencies_ms"])
    assert turn["cpu_seconds"] > 0
    info = worker({"op": "info"})["result"]
    assert info["load_seconds"] > 0
    assert info["peak_rss_bytes"] > 10_000_000
    assert info["placement"]["CPUExecutionProvider"] >= 3
    assert worker({"op": "close"}) == {"ok": True, "result": {}}
    assert worker({"op": "close"}) == {"ok": True, "result": {}}


def test_a_crowd_is_measured_as_a_whole(bundle: Path, worker: Ask) -> None:
    source = str(bundle / "golden/0.inputs.npz")
    assert worker({"op": "load", "bundle": str(bundle), "verify": "fast", "selftest": False})["ok"]
    request = {"op": "bench", "inputs": source, "runs": 200, "warmup": 3}
    began = time.monotonic()
    (share,) = worker({**request, "clients": 3})["result"]["latencies_ms"]
    seconds = time.monotonic() - began
    # One number: the time of all by the requests of all, which is no more than went by.
    assert 0 < share * 200 * 3 / 1000 <= seconds
    # A crowd of one waits for itself alone.
    (alone,) = worker({**request, "clients": 1})["result"]["latencies_ms"]
    latencies = worker(request)["result"]["latencies_ms"]
    assert alone < 5 * sum(latencies) / len(latencies)
    for clients in (0, -1, 1.5, True, "2", 100_000):
        reply = worker({**request, "clients": clients})
        assert reply["error"]["code"] == "usage", clients
        assert "clients is" in reply["error"]["message"]
    # Its other numbers are judged as without a crowd.
    assert worker({**request, "runs": 0, "clients": 2})["error"]["code"] == "usage"
    # An input that is refused fails the crowd, and the worker goes on.
    assert worker({**request, "inputs": "/nonexistent", "clients": 2})["error"]["code"] == "input"
    assert worker({"op": "info"})["ok"]


def test_a_worker_survives_every_bad_line(bundle: Path, worker: Ask, tmp_path: Path) -> None:
    def code(request: object) -> str:
        reply = worker(request)
        assert reply["ok"] is False
        assert reply["error"].keys() == {"code", "message"}
        return str(reply["error"]["code"])

    source = str(bundle / "golden/0.inputs.npz")
    load = {"op": "load", "bundle": str(bundle)}
    for line in (b"", b"nonsense", b"\xff\xfe", b"[]", b"3", b"[" * 100_000, b"9" * 5000):
        assert code(line) == "usage"
    assert code({"op": "nope"}) == "usage"
    assert code({"op": ["run"]}) == "usage"
    assert code({"op": "answer", "line": ""}) == "usage"
    assert code({"op": "info"}) == "usage"
    assert code({"op": "run", "inputs": source, "outputs": "x"}) == "usage"
    assert code({"op": "load"}) == "usage"
    assert code({**load, "thread": 1}) == "usage"
    assert code({**load, "verify": "quick"}) == "usage"
    assert code({**load, "threads": "many"}) == "threads"
    assert code({"op": "load", "bundle": 3}) == "usage"
    assert code({"op": "load", "bundle": str(tmp_path)}) == "format"
    assert worker(load)["ok"]
    assert code({"op": "bench", "inputs": source, "runs": 0}) == "usage"
    assert code({"op": "bench", "inputs": source, "runs": 1.5}) == "usage"
    assert code({"op": "bench", "inputs": source, "runs": 1, "warmup": -1}) == "usage"
    assert code({"op": "run", "inputs": str(tmp_path / "absent"), "outputs": "x"}) == "input"
    assert code({"op": "run", "inputs": source, "outputs": str(tmp_path / "no/such/place")}) == "usage"
    np.savez(tmp_path / "wrong.npz", ids=np.zeros(3))
    assert code({"op": "run", "inputs": str(tmp_path / "wrong.npz"), "outputs": "x"}) == "input"
    # A load that fails leaves no model behind, rather than the one before.
    assert code({"op": "load", "bundle": str(tmp_path)}) == "format"
    assert code({"op": "info"}) == "usage"
    assert worker(load)["ok"]


def test_nothing_but_replies_reaches_stdout_even_from_native_code(bundle: Path) -> None:
    script = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); import loader\n"
        "check = loader.Model.check\n"
        "def noisy(self, inputs):\n"
        "    os.write(1, b'native noise\\n'); print('python noise')\n"
        "    check(self, inputs)\n"
        "loader.Model.check = noisy\n"
        "sys.exit(loader.main(['selftest', '--bundle', sys.argv[2]]))\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", script, str(bundle / "runtime"), str(bundle)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    answer(process)
    assert "native noise" in process.stderr
    assert "python noise" in process.stderr


def test_a_bad_bundle_fails_before_onnxruntime_is_imported(bundle: Path) -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import loader\n"
        "code = loader.main(['selftest', '--bundle', '/nonexistent'])\n"
        "assert 'onnxruntime' not in sys.modules\n"
        "sys.exit(code)\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", script, str(bundle / "runtime")], capture_output=True, text=True, timeout=120
    )
    refused(process, "format", 3)


def test_a_worker_ends_quietly_when_its_reader_is_gone(bundle: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = subprocess.run(
        [sys.executable, str(bundle / "runtime/loader.py"), "worker"],
        input=b'{"op": "info"}\n' * 3,
        stdout=writing,
        stderr=subprocess.PIPE,
        timeout=120,
    )
    os.close(writing)
    assert process.returncode == 1
    assert b"Traceback" not in process.stderr
