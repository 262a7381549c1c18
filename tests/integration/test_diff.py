"""`ortc diff` on bundles that were really built, and on revisions of a real repository."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support import bundles
from tests.support.builds import PATIENT, PLAIN, ROOT, Build, Compiler

pytestmark = pytest.mark.integration

DIGITS = "specs/digits.yaml"


def run(compiler: Compiler, *arguments: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ortc", "diff", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        # What git tells its hooks is about the repository that the tests are in.
        env={name: value for name, value in compiler.environment().items() if not name.startswith("GIT_")},
        check=False,
    )


def differences(compiler: Compiler, *arguments: str | Path, code: int = 0, cwd: Path = ROOT) -> Any:
    done = run(compiler, *arguments, "--json", cwd=cwd)
    assert done.returncode == code, done.stderr
    document = json.loads(done.stdout)
    assert document["format_version"] == 1
    return document


def refused(compiler: Compiler, *arguments: str | Path, code: int, cwd: Path = ROOT) -> str:
    done = run(compiler, *arguments, cwd=cwd)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def section(target: Any, name: str) -> dict[str, tuple[Any, Any]]:
    found = next((entry["changes"] for entry in target["sections"] if entry["name"] == name), [])
    return {".".join(change["path"]): (change["before"], change["after"]) for change in found}


@pytest.fixture(scope="module")
def before(built: Build) -> Path:
    """The digits' bundles."""
    return built.succeeded().output / "digits" / "1.0.0"


@pytest.fixture(scope="module")
def after(ortc: Compiler, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same at another opset, quantized, without `edge`."""
    output = tmp_path_factory.mktemp("after")
    options = ["-t", "cpu", "--variant", "int8-dynamic", "--set", "targets.cpu.precision=int8"]
    # By the exporter that takes less time.
    options += ["--set", "export.exporter=torchscript", "--set", "export.opset=18", "--set", "version=2.0.0"]
    return ortc.build(DIGITS, *PATIENT[:2], *PLAIN, *options, output=output).succeeded().output / "digits" / "2.0.0"


def test_two_builds(ortc: Compiler, before: Path, after: Path) -> None:
    document = differences(ortc, before, after)
    assert (document["kind"], document["same"]) == ("bundles", False)
    assert (document["added"], document["removed"]) == ([], ["edge"])
    (cpu,) = document["targets"]
    assert section(cpu, "identity") == {"version": ("1.0.0", "2.0.0")}
    assert section(cpu, "model")["opset"] == (20, 18)
    assert section(cpu, "variant")["precision"] == ("fp32", "int8")
    assert "requirements" not in {entry["name"] for entry in cpu["sections"]}
    operators = {entry["operator"]: (entry["before"], entry["after"]) for entry in cpu["operators"]}
    assert operators["com.microsoft::DynamicQuantizeMatMul"][0] == 0
    assert operators["com.microsoft::DynamicQuantizeMatMul"][1] > 0
    assert cpu["sizes"]["model_after"] < cpu["sizes"]["model_before"]
    for side, place in (("before", before), ("after", after)):
        size = sum(path.stat().st_size for path in (place / "cpu" / "model").iterdir())
        assert cpu["sizes"][f"model_{side}"] == size
    # Measured by both builds, on this machine.
    (timing,) = cpu["timings"]
    assert timing["comparable"] is None
    assert timing["before"]["shape"] == "batch=1"


def test_what_both_compute(ortc: Compiler, before: Path, after: Path) -> None:
    (cpu,) = differences(ortc, before, after)["targets"]
    numerics = cpu["numerics"]
    assert (numerics["skipped"], numerics["failed"]) == (None, [])
    # The same samples and shapes: every golden case is both's.
    assert [case["golden_of"] for case in numerics["cases"]] == ["both", "both"]
    for case in numerics["cases"]:
        (logits,) = case["outputs"]
        assert 1e-4 < logits["max_abs"] < 1
        assert 0.99 <= logits["cosine"] < 1
    exact = [entry["outputs"][0]["max_abs"] for entry in numerics["golden_before"]]
    rounded = [entry["outputs"][0]["max_abs"] for entry in numerics["golden_after"]]
    assert len(exact) == len(rounded) == 2
    assert max(exact) <= 1e-4 < min(rounded)
    # A is nearly PyTorch, so that B is as far from A as it is from PyTorch.
    between = [case["outputs"][0]["max_abs"] for case in numerics["cases"]]
    assert between == pytest.approx(rounded, abs=2e-4)


def test_the_other_way_round(ortc: Compiler, before: Path, after: Path) -> None:
    document = differences(ortc, after, before, "--no-run")
    assert (document["added"], document["removed"]) == (["edge"], [])
    (cpu,) = document["targets"]
    assert section(cpu, "model")["opset"] == (18, 20)
    assert cpu["numerics"]["skipped"] == "not asked for"


def test_a_bundle_and_itself(ortc: Compiler, before: Path) -> None:
    document = differences(ortc, before / "cpu", before / "cpu")
    assert document["same"] is True
    done = run(ortc, before / "cpu", before / "cpu", "--markdown")
    assert done.stdout.splitlines()[0].endswith(": no difference")
    # Nothing but the result goes to stdout.
    assert run(ortc, before, before).stdout.startswith("A  ")


def test_a_race(ortc: Compiler, before: Path, after: Path) -> None:
    (cpu,) = differences(ortc, before / "cpu", after / "cpu", "--measure", "--no-run")["targets"]
    race = cpu["race"]
    assert race["skipped"] is None
    assert race["speedup"]["low"] <= race["speedup"]["value"] <= race["speedup"]["high"]
    assert race["before_p99_ms"]["samples"] >= 400
    assert race["fingerprint"] == cpu["timings"][0]["fingerprint"]


def test_inputs_that_only_one_takes(ortc: Compiler, before: Path, copy_of: Callable[[Path], Path]) -> None:
    bundle = copy_of(before / "cpu")
    axes = [{"name": "batch", "min": 1, "typical": 1, "max": 8, "multiple_of": 1}]
    bundles.edit_json(bundle / "manifest.json", axes=axes)
    bundles.seal(bundle)
    (cpu,) = differences(ortc, before / "cpu", bundle)["targets"]
    assert section(cpu, "interface") == {"axes.batch.max": (64, 8)}
    problems = {case["case"]: case["problem"] for case in cpu["numerics"]["cases"]}
    (real,) = (name for name in problems if name.startswith("samples"))
    assert problems[real] is None
    assert "B does not run on these inputs" in problems["batch=64"]
    assert "axis 0 (batch) is 64" in problems["batch=64"]
    assert cpu["numerics"]["failed"] == []


def test_a_damaged_bundle_is_told_and_fails(ortc: Compiler, before: Path, copy_of: Callable[[Path], Path]) -> None:
    bundle = copy_of(before / "cpu")
    path = bundle / "golden" / "0.outputs.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    # Its manifest is the other's; told apart, it is run.
    bundles.edit_json(bundle / "manifest.json", provisional=True)
    sums = (bundle / "SHA256SUMS").read_text().splitlines()
    lines = [line for line in sums if not line.endswith("  manifest.json")]
    lines.append(f"{bundles.digest(bundle / 'manifest.json')}  manifest.json")
    (bundle / "SHA256SUMS").write_text("\n".join(lines) + "\n")
    (cpu,) = differences(ortc, before / "cpu", bundle, "--measure", code=4)["targets"]
    assert "B does not load: golden/0.outputs.npz was changed or damaged" in cpu["numerics"]["failed"][0]
    assert cpu["race"]["skipped"] == cpu["numerics"]["failed"][0]


def test_what_cannot_be_measured_here(ortc: Compiler, before: Path, copy_of: Callable[[Path], Path]) -> None:
    bundle = copy_of(before / "cpu")
    bundles.edit_json(bundle / "manifest.json", platforms=["plan9/mips"])
    bundles.seal(bundle)
    (cpu,) = differences(ortc, before / "cpu", bundle)["targets"]
    assert "B is for plan9/mips" in cpu["numerics"]["skipped"]
    assert differences(ortc, before / "cpu", bundle, "--measure", code=7)["targets"][0]["race"]["speedup"] is None


# --- revisions -----------------------------------------------------------------------------------------------------


def git(directory: Path, *arguments: str) -> str:
    identity = {
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@x",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@x",
    }
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(
        [str(shutil.which("git")), "-c", "commit.gpgsign=false", *arguments],
        cwd=directory,
        env={**environment, **identity, "GIT_CONFIG_GLOBAL": os.devnull},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two commits, the first tagged v1, of a spec with a base, a profile of its own, samples, and untracked weights."""
    root = tmp_path / "repo with spaces"
    shutil.copytree(ROOT / "examples", root / "sub" / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    weights = root / "sub" / "weights" / "digits.safetensors"
    weights.parent.mkdir()
    (root / "sub" / "examples" / "digits" / "weights.safetensors").rename(weights)
    (root / ".gitignore").write_text("weights/\n")
    (root / "sub" / "pyproject.toml").touch()
    text = (
        (ROOT / DIGITS).read_text("utf-8").replace("examples/digits/weights.safetensors", "weights/digits.safetensors")
    )
    (root / "sub" / "specs").mkdir()
    (root / "sub" / "specs" / "common.yaml").write_text(text)
    (root / "sub" / "specs" / "spec.yaml").write_text("base: common.yaml\nname: digits\n")
    (root / "sub" / "targets").mkdir()
    profile = (ROOT / "targets" / "cpu.yaml").read_text("utf-8")
    (root / "sub" / "targets" / "cpu.yaml").write_text(profile)
    git(root, "init", "-q", "-b", "main")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "one")
    git(root, "tag", "v1")
    (root / "sub" / "specs" / "common.yaml").write_text(text.replace("opset: 20", "opset: 18"))
    (root / "sub" / "targets" / "cpu.yaml").write_text(
        profile.replace("enable_mem_pattern: true", "enable_mem_pattern: false")
    )
    with (root / "sub" / "examples" / "digits" / "accuracy.py").open("a") as stream:
        stream.write("\n# changed\n")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "two")
    return root


SPEC = Path("sub", "specs", "spec.yaml")


def test_revisions_with_everything_beside_the_spec(ortc: Compiler, repository: Path) -> None:
    (repository / "sub" / "specs" / "spec.yaml").write_text("base: common.yaml\nversion: 1.1.0\n")
    state = [
        git(repository, "status", "--porcelain"),
        git(repository, "ls-files", "-s"),
        git(repository, "worktree", "list"),
    ]
    document = differences(ortc, "v1", "HEAD", "--spec", SPEC, cwd=repository)
    assert (document["kind"], document["before"], document["after"]) == ("specs", f"v1:{SPEC}", f"HEAD:{SPEC}")
    assert section(document, "spec") == {"export.opset": (20, 18)}
    follows = section(document, "plan")
    assert follows.pop("export.ir_version") == (9, 8)
    # The profile beside the spec, in every variant that takes its session.
    assert "targets.cpu.variants.fp32.session.options.enable_mem_pattern" in follows
    assert {path.rpartition(".")[2] for path in follows} == {"enable_mem_pattern"}
    assert set(follows.values()) == {(True, False)}
    assert "code.examples.digits.accuracy:accuracy" in section(document, "files")
    assert document["stages_unknown"] is None
    assert {(entry["target"], entry["stage"]) for entry in document["stages"] if not entry["anew"]} == {
        (None, "environment"),
        ("cpu", "environment"),
        ("edge", "environment"),
    }
    # The repository is as it was.
    assert state == [
        git(repository, "status", "--porcelain"),
        git(repository, "ls-files", "-s"),
        git(repository, "worktree", "list"),
    ]


def test_the_work_tree(ortc: Compiler, repository: Path) -> None:
    assert differences(ortc, "HEAD", "--spec", SPEC, cwd=repository)["same"] is True
    (repository / SPEC).write_text("base: common.yaml\nversion: 1.1.0\n")
    expected = {"version": ("1.0.0", "1.1.0")}
    specs = repository / "sub" / "specs"
    for arguments, place in (
        (("HEAD", "--spec", str(SPEC)), repository),
        (("HEAD", "--spec", str(repository / SPEC)), ROOT),
        ((f"HEAD:{SPEC}", str(SPEC)), repository),
        (("main:./spec.yaml", "spec.yaml"), specs),
        (("v1:../specs/spec.yaml", "spec.yaml"), specs),
    ):
        document = differences(ortc, *arguments, cwd=place)
        assert expected.items() <= section(document, "spec").items(), arguments


def test_several_specs_and_an_exit_code_for_scripts(ortc: Compiler, repository: Path) -> None:
    other = repository / "sub" / "specs" / "other.yaml"
    other.write_text("base: common.yaml\nname: other\n")
    git(repository, "add", "-A")
    git(repository, "commit", "-qm", "three")
    (repository / SPEC).write_text("base: common.yaml\nversion: 1.1.0\n")
    arguments = ("HEAD", "--spec", str(SPEC), "--spec", str(other.relative_to(repository)), "--exit-code")
    document = differences(ortc, *arguments, cwd=repository, code=8)
    assert [(entry["same"], entry["exit_code"]) for entry in document["specs"]] == [(False, 8), (True, 0)]
    assert run(ortc, "HEAD", "--spec", other.relative_to(repository), "--exit-code", cwd=repository).returncode == 0
    new = other.with_name("new.yaml")
    new.write_bytes(other.read_bytes())
    document = differences(ortc, *arguments, "--spec", str(new.relative_to(repository)), cwd=repository, code=2)
    assert [entry["exit_code"] for entry in document["specs"]] == [8, 0, 2]
    assert "there is no file `sub/specs/new.yaml`" in document["specs"][-1]["error"]
    markdown = run(ortc, *arguments, "--markdown", cwd=repository)
    assert (markdown.returncode, markdown.stdout.count("sub/specs/")) == (8, 4)


def test_untracked_files_are_the_work_trees_at_every_revision(ortc: Compiler, repository: Path) -> None:
    (repository / "sub" / "weights" / "digits.safetensors").unlink()
    message = refused(ortc, "v1", "HEAD", "--spec", SPEC, code=3, cwd=repository)
    assert "error[ORTC301]: there is no file `weights/digits.safetensors`" in message
    assert "v1:sub/specs/common.yaml:" in message


def test_mistakes_at_a_revision_are_shown_where_they_are(ortc: Compiler, repository: Path) -> None:
    common = repository / "sub" / "specs" / "common.yaml"
    common.write_text(common.read_text().replace("opset: 18", "opset: 99"))
    git(repository, "commit", "-qam", "three")
    message = refused(ortc, "v1", "HEAD", "--spec", SPEC, code=3, cwd=repository)
    line = next(n for n, text in enumerate(common.read_text().splitlines(), 1) if "opset: 99" in text)
    assert f"--> HEAD:sub/specs/common.yaml:{line}:10" in message
    assert "ortc-diff-" not in message


def test_refusals(ortc: Compiler, repository: Path, tmp_path: Path) -> None:
    for arguments, told in (
        (("v9", "HEAD", "--spec", SPEC), "there is no revision `v9`"),
        (("--end-of-options", "HEAD", "--spec", SPEC), "No such option"),
        ((f"HEAD:{SPEC}", "HEAD:sub/specs/none.yaml"), "there is no file `sub/specs/none.yaml` at revision `HEAD`"),
        ((f"HEAD:{SPEC}", "HEAD:sub/specs"), "there is no file `sub/specs` at revision `HEAD`"),
        ((f"HEAD:{SPEC}", f":{SPEC}"), "a revision is missing before the colon"),
        ((f"HEAD:{SPEC}", "HEAD:../x.yaml"), "lies outside of the repository"),
        (("v1", "HEAD"), "`ortc diff v1 --spec PATH`"),
        (("v1", "HEAD", "--spec", tmp_path / "x.yaml"), "git finds no repository around"),
        ((f"v1:{SPEC}", SPEC, "--measure"), "--no-run and --measure are for bundles"),
        ((f"v1:{SPEC}", SPEC, "--json", "--markdown"), "either --markdown or --json"),
    ):
        assert told in refused(ortc, *arguments, code=2, cwd=repository), arguments
    outside = tmp_path / "outside"
    outside.mkdir()
    assert "git finds no repository around" in refused(ortc, "HEAD:x.yaml", "HEAD:y.yaml", code=2, cwd=outside)


def test_without_git(ortc: Compiler, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(repository))
    assert "git is not installed" in refused(ortc, "v1", "HEAD", "--spec", SPEC, code=2, cwd=repository)


def test_a_repository_inside_of_a_checkout_is_not_followed(ortc: Compiler, repository: Path, tmp_path: Path) -> None:
    """Anybody can commit a directory that git takes for a repository, with a configuration that names programs."""
    ran = tmp_path / "ran"
    specs = repository / "sub" / "specs"
    git(tmp_path, "clone", "-q", "--bare", str(repository), str(tmp_path / "bare"))
    shutil.copytree(tmp_path / "bare", specs, dirs_exist_ok=True)
    for key in ("filter.x.smudge", "core.fsmonitor", "core.pager", "core.sshCommand"):
        git(specs, "config", "-f", "config", key, f"touch {ran}; cat")
    git(specs, "config", "-f", "config", "core.worktree", str(repository))
    git(specs, "config", "-f", "config", "core.bare", "false")
    (specs / "info" / "attributes").write_text("* filter=x\n")
    (specs / "hooks" / "post-checkout").write_text(f"#!/bin/sh\ntouch {ran}\n")
    message = refused(ortc, "HEAD", "--spec", "spec.yaml", code=2, cwd=specs)
    assert "git finds no repository around" in message
    assert "safe.bareRepository" in message
    assert not ran.exists(), "a program of the checkout was run"


def test_nothing_that_a_repository_configures_runs(ortc: Compiler, repository: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    weights = repository / "sub" / "weights" / "digits.safetensors"
    (repository / ".gitattributes").write_text("*.yaml filter=x\n*.md filter=x ident\n")
    oid = bundles.digest(weights)
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize 1\n"
    stored = repository / ".git" / "lfs" / "objects" / oid[:2] / oid[2:4] / oid
    stored.parent.mkdir(parents=True)
    weights.rename(stored)
    weights.write_text(pointer)
    git(repository, "add", "-fA")
    git(repository, "commit", "-qm", "three")
    spec = repository / "sub" / "specs" / "common.yaml"
    spec.write_text(spec.read_text().replace("cosine: 0.99", "cosine: 0.98"))
    git(repository, "commit", "-qam", "four")
    for key in ("filter.x.smudge", "filter.x.clean", "filter.x.process", "core.fsmonitor"):
        git(repository, "config", key, f"touch {ran}; cat")
    for name in ("post-checkout", "post-index-change", "reference-transaction"):
        (repository / ".git" / "hooks" / name).write_text(f"#!/bin/sh\ntouch {ran}\n")
        (repository / ".git" / "hooks" / name).chmod(0o755)
    document = differences(ortc, "HEAD~1", "HEAD", "--spec", SPEC, cwd=repository)
    assert section(document, "spec") == {"accuracy.cosine": (0.99, 0.98)}
    assert document["stages_unknown"] is None
    assert not ran.exists(), "a program of the repository was run"


def test_markdown_for_a_pull_request(ortc: Compiler, repository: Path) -> None:
    done = run(ortc, "v1", "main", "--spec", SPEC, "--markdown", cwd=repository)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"**`v1:{SPEC}` → `main:{SPEC}`**: 1 field changed, ")
    assert "| `export.opset` | `20` | `18` |" in lines
    assert lines.count("<details>") == 0
    assert done.stdout.count("<details>") == done.stdout.count("</details>") > 0
