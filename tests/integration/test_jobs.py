"""Jobs: two machines build one target each, and a third puts together what they did, with the bytes of one build."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.integration.conftest import MakeCache
from tests.support.builds import PATIENT, PLAIN, ROOT, Build, Compiler, checkout, what_runs

pytestmark = pytest.mark.integration

SPEC = "specs/digits.yaml"


def ortc(compiler: Compiler, *arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """A command of the compiler, in the root of its checkout."""
    return subprocess.run(
        [sys.executable, "-m", "ortc", *map(str, arguments)],
        **{"cwd": compiler.root, "env": compiler.environment(), **options},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def jobs_of(compiler: Compiler, *arguments: str) -> list[dict[str, Any]]:
    done = ortc(compiler, "plan", *arguments, "--jobs", "json")
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)["jobs"]
    return found


def test_machines_do_one_job_each_and_the_bytes_are_those_of_one_build(
    digits: Build, make_cache: MakeCache, tmp_path: Path
) -> None:
    url = f"file://{tmp_path}/shared"
    here = Compiler(make_cache(tmp_path / "planner"), url=url)
    jobs = jobs_of(here, SPEC, *PATIENT, *PLAIN)
    assert [(job["target"], job["platform"]) for job in jobs] == [("cpu", "linux/amd64"), ("edge", "linux/arm64")]
    assert {job["cache_url"] for job in jobs} == {url}
    for number, job in enumerate(jobs):
        # Without the variable of the environment: the job names the cache.
        machine = Compiler(make_cache(tmp_path / f"machine-{number}"), checkout(tmp_path / f"clone-{number}"))
        done = ortc(machine, "job", "run", "-", "-o", tmp_path / "jobs", input=json.dumps(job))
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"digits 1.0.0 {job['target']}")
        assert (tmp_path / "jobs" / "digits" / f"1.0.0.{job['target']}.report.json").is_file()
    after = jobs_of(here, SPEC, *PATIENT, *PLAIN)
    # What ships is put together again wherever it is to lie.
    assert [job["will_run"] for job in after] == [1, 1]
    together = Compiler(make_cache(tmp_path / "merger"), url=url)
    built = together.build(SPEC, *PATIENT, *PLAIN, output=tmp_path / "dist").succeeded()
    assert {stage["stage"] for stage in built.report("digits")["stages"] if not stage["cached"]} == {"fetch", "bundle"}
    for target in ("cpu", "edge"):
        places = (digits.succeeded().output, tmp_path / "jobs", tmp_path / "dist")
        sums = [(place / "digits/1.0.0" / target / "SHA256SUMS").read_text("utf-8") for place in places]
        assert sums[0] == sums[1] == sums[2]


def test_another_checkout_does_not_do_the_job(digits_compiler: Compiler, tmp_path: Path) -> None:
    (job,) = jobs_of(digits_compiler, SPEC, "-t", "cpu", *PLAIN)
    clone = checkout(tmp_path / "clone")
    text = (clone / SPEC).read_text("utf-8")
    (clone / SPEC).write_text(text.replace("cosine: 0.99", "cosine: 0.98"), "utf-8")
    assert (clone / SPEC).read_text("utf-8") != text
    other = Compiler(digits_compiler.cache, clone)
    done = ortc(other, "job", "run", json.dumps(job))
    assert done.returncode == 2
    assert "this checkout has another plan for `cpu` of specs/digits.yaml" in done.stderr
    assert not (clone / "dist").exists()


@pytest.fixture
def programs(digits_compiler: Compiler, tmp_path: Path) -> dict[str, str]:
    """An environment with `ortc` and `pip` on its path, where pip installs nothing."""
    place = tmp_path / "bin"
    place.mkdir()
    for name, content in {
        "ortc": f'exec {sys.executable} -m ortc "$@"',
        "python3": 'echo "$@" > "$PIP_CALLED"',
    }.items():
        (place / name).write_text(f"#!/bin/sh\n{content}\n", "utf-8")
        (place / name).chmod(0o755)
    called, path = str(tmp_path / "pip"), f"{place}{os.pathsep}{os.environ['PATH']}"
    return {**digits_compiler.environment(), "PATH": path, "PIP_CALLED": called}


def run(text: str, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """A step of a workflow, by the shell that GitHub names."""
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", text]
    return subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=600, check=False)


@pytest.mark.usefixtures("digits")
def test_the_action_plans_and_builds(programs: dict[str, str], tmp_path: Path) -> None:
    action = yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))
    install, plan, build = (step["run"] for step in action["runs"]["steps"])
    variables = {**programs, "GITHUB_ACTION_PATH": "/the/action", "GITHUB_OUTPUT": str(tmp_path / "outputs")}
    assert run(install, variables).returncode == 0
    assert (tmp_path / "pip").read_text("utf-8").split()[-1] == "/the/action"
    options = " ".join((*PATIENT, *PLAIN))
    done = run(plan, {**variables, "ORTC_SPECS": "specs/digit*.yaml", "ORTC_OPTIONS": options})
    assert done.returncode == 0, done.stderr
    name, _, value = (tmp_path / "outputs").read_text("utf-8").rstrip("\n").partition("=")
    assert name == "matrix"
    entries = json.loads(value)["include"]
    assert [entry["target"] for entry in entries] == ["cpu", "edge"]
    job = {"ORTC_JOB": entries[0]["job"], "ORTC_OUTPUT": str(tmp_path / "dist"), "ORTC_OPTIONS": ""}
    done = run(build, {**variables, **job})
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "dist/digits/1.0.0/cpu/manifest.json").is_file()


@pytest.mark.usefixtures("digits")
def test_the_component_starts_a_pipeline_whose_jobs_build(programs: dict[str, str], tmp_path: Path) -> None:
    header, jobs = (ROOT / "templates/ortc.yml").read_text("utf-8").split("---\n")
    given = {"specs": " ".join((SPEC, *PATIENT, *PLAIN)), "image": "ortc:1", "stage": "build"}
    assert given.keys() == yaml.safe_load(header)["spec"]["inputs"].keys()
    for name, value in given.items():
        jobs = jobs.replace(f"$[[ inputs.{name} ]]", value)
    assert "$[[" not in jobs
    (line,) = yaml.safe_load(jobs)["ortc-plan"]["script"]
    done = run(line.replace("> ortc-jobs.yml", f"> {tmp_path}/ortc-jobs.yml"), programs)
    assert done.returncode == 0, done.stderr
    pipeline = yaml.safe_load((tmp_path / "ortc-jobs.yml").read_text("utf-8"))
    (job,) = (job for name, job in pipeline.items() if name.startswith("digits-1.0.0-edge-"))
    assert (job["tags"], job["image"]) == (["linux-arm64"], "$ORTC_IMAGE")
    (script,) = job["script"]
    variables = {name: entry["value"] for name, entry in job["variables"].items()}
    done = run(f"{script} -o {tmp_path}/dist", {**programs, **variables})
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "dist/digits/1.0.0/edge/manifest.json").is_file()


PAIRS = ("--set", "targets.cpu.latency_budget.at.batch=2", "--set", "targets.edge.latency_budget.at.batch=2")
"""What is measured again, and built again not."""


def test_targets_are_done_side_by_side(digits: Build, digits_compiler: Compiler, tmp_path: Path) -> None:
    built = digits_compiler.build(SPEC, *PATIENT, *PLAIN, *PAIRS, "-j", "2", output=tmp_path / "dist").succeeded()
    assert built.stderr.startswith("2 jobs, 2 at once\n")
    assert {"1 of 2", "2 of 2"} <= {line.rpartition(", ")[2] for line in built.stderr.splitlines()}
    assert {stage["stage"] for stage in built.report("digits")["stages"] if not stage["cached"]} == {"fetch", "bundle"}
    for target in ("cpu", "edge"):
        assert what_runs(built.bundle("digits", target)) == what_runs(digits.succeeded().bundle("digits", target))
    again = digits_compiler.build(SPEC, *PATIENT, *PLAIN, *PAIRS, "-j", "2", output=tmp_path / "dist").succeeded()
    assert "at once" not in again.stderr


def test_jobs_end_with_the_build_that_started_them(make_cache: MakeCache, tmp_path: Path) -> None:
    compiler = Compiler(make_cache(tmp_path / "cache"))
    (tmp_path / "tmp").mkdir()
    process = subprocess.Popen(
        compiler.command(SPEC, *PLAIN, "-j", "2", output=tmp_path / "dist"),
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**compiler.environment(), "TMPDIR": str(tmp_path / "tmp")},
    )
    with process:
        assert process.stderr is not None
        lines = [process.stderr.readline() for _ in range(3)]
        assert [line.split()[0] for line in lines[1:]] == ["begun", "begun"], lines
        process.send_signal(signal.SIGTERM)
        process.stderr.read()
        assert process.wait(60) == 128 + signal.SIGTERM
    assert not [line for line in commands() if str(tmp_path) in line]
    assert not list((tmp_path / "tmp").glob("ortc-jobs-*"))


def commands() -> list[str]:
    """The command lines of all processes."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended
            found.append(place.read_bytes().decode("utf-8", "replace"))
    return found
