"""Plans tell the truth, unchanged specs cost nothing, builds at once share their work, locked builds are the same."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from tests.integration.conftest import MakeCache
from tests.support import bundles
from tests.support.builds import CALIBRATED, PATIENT, PLAIN, ROOT, Build, Compiler, what_runs
from tests.support.plans import plan

from ortc.common.arrays import read_arrays, write_arrays
from ortc.diff.stages import compare_stages, foresee
from ortc.execution.action_cache import Store

SPEC = "specs/digits.yaml"
DONE = (*PATIENT, *PLAIN)
"""How the digits were built."""
Stages = list[tuple[str, str]]


@pytest.fixture
def compiler(digits_compiler: Compiler) -> Compiler:
    return digits_compiler


@pytest.fixture
def output(digits: Build) -> Path:
    """Where the digits were built once."""
    return digits.succeeded().output


def run(compiler: Compiler, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "ortc", *arguments],
        capture_output=True,
        text=True,
        env=compiler.environment(),
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def foreseen(compiler: Compiler, output: Path, *options: str, state: str = "will run") -> Stages:
    """The stages that `ortc plan` says will run, or are in another state."""
    document = json.loads(run(compiler, "plan", SPEC, "--json", "-o", str(output), *options))
    return sorted((entry["stage"], entry["subject"]) for entry in document["stages"] if entry["state"] == state)


def done(report: dict[str, Any]) -> Stages:
    """The stages that a build ran, in any order; fetching is no cached stage, it compares digests every time."""
    return sorted(
        (entry["stage"], entry["subject"])
        for entry in report["stages"]
        if not entry["cached"] and entry["stage"] != "fetch"
    )


def from_afar(report: dict[str, Any]) -> Stages:
    """The stages whose results came from the remote cache."""
    return sorted((entry["stage"], entry["subject"]) for entry in report["stages"] if entry["remote"])


def test_an_unchanged_spec_does_no_work(compiler: Compiler, output: Path) -> None:
    assert foreseen(compiler, output, *DONE) == []
    text = run(compiler, "plan", SPEC, "-o", str(output), *DONE)
    assert "not run: `examples.digits.model:build`, `examples.digits.accuracy:accuracy`. A build runs them" in text
    before = {
        path: path.stat().st_mtime_ns for path in output.rglob("*") if path.is_file() and "report" not in path.name
    }
    build = compiler.build(SPEC, *DONE, output=output).succeeded()
    assert done(build.report("digits")) == []
    after = {
        path: path.stat().st_mtime_ns for path in output.rglob("*") if path.is_file() and "report" not in path.name
    }
    assert before == after


def test_a_budget_of_one_target_is_judged_again_and_nothing_else_runs(
    compiler: Compiler, output: Path, tmp_path: Path
) -> None:
    options = (*PATIENT[:2], *PLAIN, "--set", "targets.edge.latency_budget.p99=61s")
    # Others look at what is there.
    copied = Path(shutil.copytree(output, tmp_path / "dist"))
    planned = foreseen(compiler, copied, *options)
    assert planned == [("bundle", "edge")]
    assert done(compiler.build(SPEC, *options, output=copied).succeeded().report("digits")) == planned


@pytest.mark.usefixtures("calibrated")
def test_another_opset_runs_all_that_depends_on_the_graph(compiler: Compiler, tmp_path: Path) -> None:
    # By the exporter that takes less time.
    edge = (*CALIBRATED, "--set", "export.exporter=torchscript")
    options = (*edge, "--set", "export.opset=18")
    planned = foreseen(compiler, tmp_path, *options)
    build = compiler.build(SPEC, *options, output=tmp_path).succeeded()
    ran = done(build.report("digits"))
    assert {stage for stage, _ in ran} == {stage for stage, _ in planned}
    # Everything but PyTorch's own outputs, which no opset changes.
    made = {"export", "shape matrix", "calibrate", "variant"}
    assert {stage for stage, _ in ran} == made | {"verify", "measure", "start", "bundle"}
    document = json.loads(run(compiler, "plan", SPEC, "--json", "-o", str(tmp_path), *edge, "--set", "export.opset=19"))
    assert "opset 18 -> 19" in document["stages"][0]["reason"]


MORE = pytest.mark.proof("test_what_a_change_costs_is_what_the_plan_then_says with four other changes")


@pytest.mark.parametrize(
    "change",
    [
        "targets.edge.latency_budget.p99=62s",
        "export.dynamic_axes.batch.max=32",
        "targets.cpu.precision=auto",
        "model.args.width=16",
        pytest.param("export.opset=19", marks=MORE),
        pytest.param("accuracy.cosine=0.97", marks=MORE),
        pytest.param("targets.cpu.latency_budget.at.batch=2", marks=MORE),
        pytest.param("targets.edge.latency_budget.at.batch=2", marks=MORE),
    ],
)
def test_what_a_change_costs_is_what_the_plan_then_says(
    compiler: Compiler, output: Path, change: str, tmp_path: Path
) -> None:
    """`ortc diff` asks no cache: from two specs it tells the stages that `ortc plan` finds missing after a build."""
    sides = []
    for name, overrides in (("before", PATIENT[1::2]), ("after", (*PATIENT[1::2], change))):
        work = tmp_path / name
        work.mkdir()
        sides.append(foresee(plan(ROOT / SPEC, *overrides, search="none"), ROOT, work).stages)
    told = {(entry.target, entry.stage) for entry in compare_stages(*sides) if entry.anew}
    planned = foreseen(compiler, output, *DONE, "--set", change)
    targets = {"cpu", "edge"}
    expected = {
        (target if (target := subject.partition(":")[0]) in targets else None, stage) for stage, subject in planned
    }
    assert told == expected


def test_a_plan_can_be_printed_and_says_what_is_pinned(compiler: Compiler, output: Path) -> None:
    plan = json.loads(run(compiler, "plan", SPEC, "--print"))
    assert (plan["targets"], sorted(plan["profiles"])) == (["cpu", "edge"], ["cpu", "edge"])
    assert plan["profiles"]["cpu"]["runtime"]["version"] == "1.31.1"
    assert len(plan["pins"]["onnxruntime"]) == 64


def test_builds_at_once_share_their_work(
    make_cache: MakeCache, write_spec: Callable[..., Path], tmp_path: Path
) -> None:
    compiler = Compiler(make_cache(tmp_path / "cache"))
    onnx.save(bundles.linear_model(), tmp_path / "linear.onnx")
    axes = {"batch": {"min": 1, "typical": 1, "max": 8}}
    spec = write_spec(tmp_path, {"source": "onnx", "path": "linear.onnx"}, {"opset": 17, "dynamic_axes": axes})
    output = tmp_path / "out"
    processes = [
        subprocess.Popen(
            compiler.command(spec, *PLAIN, "--json", output=output),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=compiler.environment(),
            cwd=tmp_path,
        )
        for _ in range(4)
    ]
    results = [process.communicate(timeout=600) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0, 0], results[0][1]
    stages: dict[tuple[str, str], int] = {}
    for answer, _ in results:
        for entry in done(json.loads(answer)["builds"][0]):
            if entry[0] != "bundle":
                stages[entry] = stages.get(entry, 0) + 1
    assert stages
    assert {entry: count for entry, count in stages.items() if count > 1} == {}, "a stage ran more than once"
    found = [str(path.relative_to(output)) for path in output.rglob("manifest.json")]
    assert found == ["small/1.0.0/cpu/manifest.json"]


def test_another_machine_takes_what_this_one_did(
    compiler: Compiler, calibrated: Build, make_cache: MakeCache, tmp_path: Path
) -> None:
    other = Compiler(make_cache(tmp_path / "cache"), url=compiler.url)
    planned = foreseen(other, tmp_path, *CALIBRATED, state="cached (remote)")
    assert {stage for stage, _ in planned} == {
        *("export", "reference", "metric", "shape matrix", "calibrate", "variant", "verify", "measure", "start")
    }
    assert foreseen(other, tmp_path, *CALIBRATED) == [("bundle", "edge")]
    assert not (other.cache / "actions").exists(), "a plan fetches nothing"
    build = other.build(SPEC, *CALIBRATED, output=tmp_path).succeeded()
    assert from_afar(build.report("digits")) == planned
    assert done(build.report("digits")) == [("bundle", "edge")]
    one, two = (made.bundle("digits", "edge") / "SHA256SUMS" for made in (calibrated, build))
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.proof("test_a_damaged_file_is_never_used_and_then_mended; test_another_machine_takes_what_this_one_did")
def test_a_truncated_file_of_the_remote_cache_is_made_again(
    compiler: Compiler, calibrated: Build, make_cache: MakeCache, tmp_path: Path
) -> None:
    shared = Path(compiler.url.removeprefix("file://"))
    records = [json.loads(path.read_bytes()) for path in (shared / "actions").iterdir()]
    # What ships is looked at again, and nothing else of a build that was done. Other specs left records of its name.
    manifest = json.loads((calibrated.succeeded().bundle("digits", "edge") / "manifest.json").read_bytes())
    sha256 = next(file["sha256"] for file in manifest["files"] if file["path"] == "model/model.onnx")
    record = next(r for r in records if r["stage"] == "variant" and sha256 in [file["sha256"] for file in r["files"]])
    blob = shared / "blobs" / sha256[:2] / sha256
    whole = blob.read_bytes()
    blob.chmod(0o644)
    blob.write_bytes(whole[:-1])
    other = Compiler(make_cache(tmp_path / "cache"), url=compiler.url)
    build = other.build(SPEC, *CALIBRATED, output=tmp_path).succeeded()
    assert "`model.onnx` is damaged" in build.stderr
    assert ("variant", record["subject"].removeprefix("digits: ")) in done(build.report("digits"))
    assert {stage for stage, _ in done(build.report("digits"))} == {"variant", "bundle"}
    assert blob.read_bytes() == whole, "what is damaged is written again"


def test_a_remote_cache_that_is_not_there(
    compiler: Compiler, output: Path, make_cache: MakeCache, tmp_path: Path
) -> None:
    # Nobody listens on the discard port.
    nowhere = "ftp://127.0.0.1:9/cache"
    done = subprocess.run(
        [sys.executable, "-m", "ortc", "plan", SPEC],
        capture_output=True,
        text=True,
        env=Compiler(make_cache(tmp_path / "cache"), url=nowhere).environment(),
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(f"note: the remote cache {nowhere} cannot be reached") == 1
    # What is here is enough, and nobody is asked.
    build = Compiler(compiler.cache, url=nowhere).build(SPEC, *DONE, output=output).succeeded()
    assert "remote" not in build.stderr


def test_the_cache_can_be_listed_and_pruned(make_cache: MakeCache, tmp_path: Path) -> None:
    compiler = Compiler(make_cache(tmp_path / "cache"))
    (compiler.cache / "environments").unlink()
    assert json.loads(run(compiler, "cache", "ls", "--json"))["entries"] == []
    entry = Store(compiler.cache).run("export", {}, lambda directory: {"size": (directory / "a").write_bytes(b"12345")})
    old = compiler.cache / "actions" / "export" / ("0" * 64)
    old.mkdir(parents=True)
    (old / "result.json").write_text("{}")
    listed = json.loads(run(compiler, "cache", "ls", "--json"))["entries"]
    assert [entry["kind"] for entry in listed] == ["action export", "left behind"]
    assert "would free" in run(compiler, "cache", "prune", "--all", "--dry-run")
    assert entry.files["a"].exists()
    run(compiler, "cache", "prune", "--older-than", "1d")
    assert entry.files["a"].exists()
    assert not old.exists()
    run(compiler, "cache", "prune", "--all")
    assert not entry.files["a"].exists()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A checkout of what the digits need, where a lock can be written."""
    for name in ("examples", "targets", "templates", "compiler"):
        shutil.copytree(ROOT / name, tmp_path / "project" / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "project" / "specs").mkdir()
    shutil.copy(ROOT / "pyproject.toml", tmp_path / "project")
    text = (ROOT / SPEC).read_text("utf-8").replace("p99: 20ms", "p99: 60s")
    (tmp_path / "project" / SPEC).write_text(text, "utf-8")
    return tmp_path / "project"


def test_other_samples_make_other_bundles_where_nothing_can_be_run(
    make_cache: MakeCache, write_spec: Callable[..., Path], tmp_path: Path
) -> None:
    """Of a target without its hardware no result tells that the golden data changed."""
    compiler = Compiler(make_cache(tmp_path / "cache"))
    onnx.save(bundles.linear_model(), tmp_path / "linear.onnx")
    axes = {"batch": {"min": 1, "typical": 1, "max": 8}}
    spec = write_spec(tmp_path, {"source": "onnx", "path": "linear.onnx"}, {"opset": 17, "dynamic_axes": axes})
    document = json.loads(spec.read_bytes())
    document["accuracy"] = {"samples": "real.npz"}
    document["targets"] = {"server-gpu": {"unmeasured": "allow"}}
    spec.write_text(json.dumps(document), "utf-8")
    samples = np.random.default_rng(0).standard_normal((16, 4)).astype(np.float32)
    golden = []
    for factor in (1.0, 0.5):
        write_arrays(tmp_path / "real.npz", {"x": samples * np.float32(factor)})
        build = compiler.build(spec, *PLAIN, output=tmp_path / "out", cwd=tmp_path).succeeded()
        golden.append(read_arrays(build.bundle("small", "server-gpu") / "golden" / "0.inputs.npz")["x"])
    assert np.array_equal(golden[0] * np.float32(0.5), golden[1])
    assert golden[0].any()


@pytest.mark.usefixtures("digits")
def test_a_locked_build_is_the_same_or_fails(compiler: Compiler, project: Path, tmp_path: Path) -> None:
    spec = project / SPEC
    run(compiler, "lock", str(spec), *PLAIN, "-o", str(tmp_path / "first"))
    lock = json.loads((project / "specs" / "ortc.lock").read_bytes())
    assert lock["specs"]["digits"]["targets"]["edge"]["variant"] == "int8-dynamic"
    compiler.build(spec, "--locked", *PLAIN, output=tmp_path / "second").succeeded()
    first, second = (
        [what_runs(tmp_path / place / "digits" / "1.0.0" / target) for target in ("cpu", "edge")]
        for place in ("first", "second")
    )
    assert first == second
    assert "differs from ortc.lock" in compiler.build(
        spec, "--locked", *PLAIN, "--set", "export.opset=18", output=tmp_path / "other"
    ).failed(4)
    samples = project / "examples" / "digits" / "accuracy.py"
    samples.write_text(samples.read_text("utf-8") + "\n# changed\n", "utf-8")
    assert "file accuracy.py beside `examples.digits" in compiler.build(
        spec, "--locked", *PLAIN, output=tmp_path / "other"
    ).failed(4)
    assert not list((tmp_path / "other").rglob("manifest.json"))
