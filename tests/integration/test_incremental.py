"""Plans tell the truth, unchanged specs cost nothing, builds at once share their work, locked builds are the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.integration.conftest import MakeCache
from tests.support.builds import PATIENT, ROOT, Compiler

SPEC = "specs/digits.yaml"
Stages = list[tuple[str, str]]


@pytest.fixture(scope="module")
def compiler(make_cache: MakeCache, tmp_path_factory: pytest.TempPathFactory) -> Compiler:
    return Compiler(make_cache(tmp_path_factory.mktemp("incremental") / "cache"))


@pytest.fixture(scope="module")
def output(compiler: Compiler, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the digits were built once."""
    place = tmp_path_factory.mktemp("digits")
    compiler.build(SPEC, *PATIENT, output=place).succeeded()
    return place


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


def foreseen(compiler: Compiler, output: Path, *options: str) -> Stages:
    """The stages that `ortc plan` says will run."""
    document = json.loads(run(compiler, "plan", SPEC, "--json", "-o", str(output), *options))
    return [(entry["stage"], entry["subject"]) for entry in document["stages"] if entry["state"] == "will run"]


def done(report: dict[str, Any]) -> Stages:
    """The stages that a build ran; fetching is no cached stage, it compares digests every time."""
    return [
        (entry["stage"], entry["subject"])
        for entry in report["stages"]
        if not entry["cached"] and entry["stage"] != "fetch"
    ]


def test_an_unchanged_spec_does_no_work(compiler: Compiler, output: Path) -> None:
    assert foreseen(compiler, output, *PATIENT) == []
    before = {
        path: path.stat().st_mtime_ns for path in output.rglob("*") if path.is_file() and "report" not in path.name
    }
    build = compiler.build(SPEC, *PATIENT, output=output).succeeded()
    assert done(build.report("digits")) == []
    after = {
        path: path.stat().st_mtime_ns for path in output.rglob("*") if path.is_file() and "report" not in path.name
    }
    assert before == after


def test_a_budget_of_one_target_is_judged_again_and_nothing_else_runs(compiler: Compiler, output: Path) -> None:
    options = (*PATIENT[:2], "--set", "targets.edge.latency_budget.p99=61s")
    planned = foreseen(compiler, output, *options)
    assert planned == [("bundle", "edge")]
    assert done(compiler.build(SPEC, *options, output=output).succeeded().report("digits")) == planned
    # Back as it was for the tests that follow.
    compiler.build(SPEC, *PATIENT, output=output).succeeded()


def test_another_opset_runs_all_that_depends_on_the_graph(compiler: Compiler, output: Path, tmp_path: Path) -> None:
    options = (*PATIENT, "--set", "export.opset=18")
    planned = foreseen(compiler, tmp_path, *options)
    build = compiler.build(SPEC, *options, output=tmp_path).succeeded()
    ran = done(build.report("digits"))
    assert {stage for stage, _ in ran} == {stage for stage, _ in planned}
    # Everything but PyTorch's own outputs, which no opset changes.
    assert {stage for stage, _ in ran} == {"export", "shape matrix", "variant", "verify", "measure", "start", "bundle"}
    document = json.loads(
        run(compiler, "plan", SPEC, "--json", "-o", str(tmp_path), *PATIENT, "--set", "export.opset=19")
    )
    assert "opset 18 -> 19" in document["stages"][0]["reason"]


def test_a_plan_can_be_printed_and_says_what_is_pinned(compiler: Compiler, output: Path) -> None:
    plan = json.loads(run(compiler, "plan", SPEC, "--print"))
    assert [target["name"] for target in plan["targets"]] == ["cpu", "edge"]
    assert plan["targets"][0]["variants"][0]["runtime"]["version"] == "1.31.1"
    assert plan["export"]["ir_version"] > 0


def test_builds_at_once_share_their_work(make_cache: MakeCache, tmp_path: Path) -> None:
    compiler = Compiler(make_cache(tmp_path / "cache"))
    output = tmp_path / "out"
    processes = [
        subprocess.Popen(
            compiler.command(SPEC, *PATIENT, "--json", output=output),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=compiler.environment(),
            cwd=ROOT,
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
    assert set(stages.values()) == {1}, "a stage ran more than once"
    assert sorted(str(path.relative_to(output)) for path in output.rglob("manifest.json")) == [
        "digits/1.0.0/cpu/manifest.json",
        "digits/1.0.0/edge/manifest.json",
    ]


def test_the_cache_can_be_listed_and_pruned(make_cache: MakeCache, tmp_path: Path) -> None:
    compiler = Compiler(make_cache(tmp_path / "cache"))
    (compiler.cache / "environments").unlink()
    assert json.loads(run(compiler, "cache", "ls", "--json"))["entries"] == []
    entry = compiler.cache / "actions" / "export" / ("0" * 64)
    entry.mkdir(parents=True)
    (entry / "result.json").write_text("{}")
    assert len(json.loads(run(compiler, "cache", "ls", "--json"))["entries"]) == 1
    assert "would free" in run(compiler, "cache", "prune", "--all", "--dry-run")
    assert entry.exists()
    run(compiler, "cache", "prune", "--older-than", "1d")
    assert entry.exists()
    run(compiler, "cache", "prune", "--all")
    assert not entry.exists()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A checkout of what the digits need, where a lock can be written."""
    import shutil

    for name in ("examples", "targets", "templates", "compiler"):
        shutil.copytree(ROOT / name, tmp_path / "project" / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "project" / "specs").mkdir()
    shutil.copy(ROOT / "pyproject.toml", tmp_path / "project")
    text = (ROOT / SPEC).read_text("utf-8").replace("p99: 20ms", "p99: 60s")
    (tmp_path / "project" / SPEC).write_text(text, "utf-8")
    return tmp_path / "project"


def test_a_locked_build_is_the_same_or_fails(compiler: Compiler, project: Path, tmp_path: Path) -> None:
    spec = project / SPEC
    run(compiler, "lock", str(spec), "-o", str(tmp_path / "first"))
    lock = json.loads((project / "specs" / "ortc.lock").read_bytes())
    assert lock["specs"]["digits"]["targets"]["edge"]["variant"] == "int8-dynamic"
    sums = []
    for place in ("second", "third"):
        build = compiler.build(spec, "--locked", output=tmp_path / place).succeeded()
        sums.append([(build.bundle("digits", target) / "SHA256SUMS").read_bytes() for target in ("cpu", "edge")])
    assert sums[0] == sums[1]
    assert "differs from ortc.lock" in compiler.build(
        spec, "--locked", "--set", "export.opset=18", output=tmp_path / "other"
    ).failed(4)
    samples = project / "examples" / "digits" / "accuracy.py"
    samples.write_text(samples.read_text("utf-8") + "\n# changed\n", "utf-8")
    assert "code of ortc or of the spec's entry points" in compiler.build(
        spec, "--locked", output=tmp_path / "other"
    ).failed(4)
    assert not list((tmp_path / "other").rglob("manifest.json"))
