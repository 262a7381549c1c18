"""A bundle measures itself with its own runtime, as on a machine without the compiler, and the result is attached."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.builds import Compiler
from tests.support.bundles import edit_json, seal
from tests.support.keys import write_keys
from tests.support.whole_bundles import manifest_of, whole_bundle

from ortc.__main__ import run
from ortc.bundle.measurement import read_measurement
from ortc.bundle.supply_chain.signing import sign, verify
from ortc.common.resources import cache_root
from ortc.execution.host import describe
from ortc.spec.runtimes import pins

pytestmark = pytest.mark.integration
TIMEOUT = 600
OURS = ("PYTHONPATH", "ORT_INTRA_OP_NUM_THREADS")


def measured(bundle: Path, output: Path) -> tuple[int, dict[str, Any]]:
    """Exit code and answer of `python runtime/measure.py`, of a copy, without the compiler on the path."""
    elsewhere = Path(shutil.copytree(bundle, output.parent / f"{output.stem}-copy"))
    before = sorted(path for path in elsewhere.rglob("*"))
    done = subprocess.run(
        [sys.executable, "runtime/measure.py", "--output", str(output)],
        cwd=elsewhere,
        env={
            name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "ORT_INTRA_OP_NUM_THREADS")
        },
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert sorted(path for path in elsewhere.rglob("*")) == before, "measuring leaves the bundle as it is"
    return done.returncode, json.loads(done.stdout)


def bundle_for_here(place: Path, **promises: Any) -> Path:
    """A whole bundle of this platform whose promises any machine keeps, and the runtime that is here."""
    import onnxruntime

    limits = {"latency": {"p99": 600}, "size": None, "memory": 2**36, "start": 600, "min_speedup": None}
    bundle = whole_bundle(place, platforms=[describe().platform], promises={"at": {"batch": 2}, **limits, **promises})
    runtime = manifest_of(bundle)["runtime"]
    if runtime["version"] != onnxruntime.__version__:
        edit_json(bundle / "manifest.json", runtime={**runtime, "version": onnxruntime.__version__})
        seal(bundle)
    return bundle


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, Any]]:
    """A bundle, its measurement on this machine, and what the program answered; not to be changed."""
    place = tmp_path_factory.mktemp("measured")
    bundle = bundle_for_here(place / "cpu")
    code, answer = measured(bundle, place / "measurement.json")
    assert (code, answer["ok"]) == (0, True)
    return bundle, place / "measurement.json", answer


def test_from_the_other_machine_to_a_signed_bundle(
    once: tuple[Path, Path, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    original, file, answer = once
    bundle = Path(shutil.copytree(original, tmp_path / "cpu"))
    private, public = write_keys(tmp_path / "keys")
    sign(bundle, private)
    result = answer["result"]
    assert result["samples"] >= 420
    assert result["fingerprint"] == describe().fingerprint()
    found = read_measurement(file)
    assert found.host == describe()
    assert (len(found.rounds), len(found.starts), found.at) == (20, 5, {"batch": 2})
    assert (found.providers, set(found.placement)) == (("CPUExecutionProvider",), {"CPUExecutionProvider"})
    assert [case.name for case in found.golden] == ["case-0", "case-1"]

    assert run(["attach", str(bundle), str(file), "--json"]) == 0
    attached = json.loads(capsys.readouterr().out)
    assert {verdict["gate"]: verdict["outcome"] for verdict in attached["verdicts"]} == {
        "self-test": "pass",
        "latency p99": "pass",
        "start": "pass",
        "memory": "pass",
    }
    assert attached["numbers"]["p50_ms"]["value"] == pytest.approx(result["p50_ms"], rel=0.01)
    assert attached["measurement"] in verify(bundle, public).unsigned_measurements
    sign(bundle, private)
    assert attached["measurement"] in verify(bundle, public).measurements
    assert run(["verify", str(bundle), "--key", str(public)]) == 0


def test_verify_and_bench_write_one_where_ortc_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = bundle_for_here(tmp_path / "cpu")
    (bundle / "requirements.txt").write_text(pins("onnxruntime").requirements_txt(), "utf-8")
    seal(bundle)
    file = tmp_path / "measurement.json"
    assert run(["verify", str(bundle), "--measurement", str(file), "--json"]) == 0
    judged = json.loads(capsys.readouterr().out)
    assert run(["attach", str(bundle), str(file), "--json"]) == 0
    attached = json.loads(capsys.readouterr().out)
    assert attached["numbers"] == judged["numbers"]
    times = ("latency p99", "start", "memory")
    told, kept = ([v for v in found["verdicts"] if v["gate"] in times] for found in (judged, attached))
    assert told == kept
    for arguments in (["--no-timing"], ["--platform", "linux/arm64"]):
        assert run(["verify", str(bundle), "--measurement", str(file), *arguments]) == 2
    assert run(["bench", str(file), "--measurement", str(file)]) == 2


def test_no_file_comes_of_a_damaged_bundle(tmp_path: Path) -> None:
    bundle = bundle_for_here(tmp_path / "cpu")
    (bundle / "golden/0.inputs.npz").write_bytes(b"")
    code, answer = measured(bundle, tmp_path / "damaged.json")
    assert (code, answer["error"]["code"]) == (4, "digest-mismatch")
    assert not (tmp_path / "damaged.json").exists()


def test_wrong_answers_are_evidence(tmp_path: Path) -> None:
    bundle = bundle_for_here(tmp_path / "cpu")
    place = bundle / "golden/1.outputs.npz"
    with np.load(place) as archive:
        answers = {name: archive[name] for name in archive.files}
    np.savez(place, **{**answers, "y": answers["y"] + np.float32(0.5)})
    seal(bundle)
    file = tmp_path / "measurement.json"
    code, answer = measured(bundle, file)
    assert (code, answer["error"]["code"]) == (9, "golden")
    failed = read_measurement(file).failed
    assert failed is not None
    assert "golden case 'case-1', output 'y'" in failed
    assert run(["attach", str(bundle), str(file)]) == 5
    kept = json.loads((bundle / f"measurements/{describe().fingerprint()}.json").read_bytes())
    assert [verdict["outcome"] for verdict in kept["verdicts"]].count("fail") == 1
    assert kept["numbers"] is None


def test_a_kill_while_attaching_leaves_a_bundle_that_takes_it_again(
    once: tuple[Path, Path, dict[str, Any]], tmp_path: Path
) -> None:
    original, file, _ = once
    bundle = Path(shutil.copytree(original, tmp_path / "cpu"))
    private, public = write_keys(tmp_path / "keys")
    sign(bundle, private)
    command = [sys.executable, "-m", "ortc", "attach", str(bundle), str(file)]
    environment = Compiler(cache_root()).environment()
    name = f"measurements/{describe().fingerprint()}.json"
    # From the start of the interpreter to after the end, wherever that is on a machine that is this busy.
    begin = time.monotonic()
    assert subprocess.run(command, env=environment, capture_output=True, timeout=TIMEOUT, check=False).returncode == 0
    whole, lasts = (bundle / name).read_bytes(), time.monotonic() - begin
    for share in (0.7, 0.8, 0.9, 0.95):
        for path in (bundle / name, (bundle / name).with_suffix(".cdx.json")):
            path.unlink(missing_ok=True)
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(share * lasts)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (bundle / name).exists() or (bundle / name).read_bytes() == whole
        verify(bundle, public)
    assert run(["attach", str(bundle), str(file)]) == 0
    assert (bundle / name).read_bytes() == whole
    assert not [path.name for path in tmp_path.iterdir() if ".new-" in path.name]
