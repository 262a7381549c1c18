"""The pre-commit hook, in a repository that uses it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SPEC = """\
apiVersion: ortc/v1alpha1
kind: ModelDeployment
name: example
version: 1.0.0
model: {source: huggingface, path: model, weights: random}
targets: {cpu: {}}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one spec and the hook."""
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "test")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "test@localhost")
    for name in [name for name in os.environ if name.startswith("GIT_") and "NAME" not in name and "EMAIL" not in name]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PRE_COMMIT_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    hook, project = tmp_path / "hook", tmp_path / "project"
    hook.mkdir()
    shutil.copy(ROOT / ".pre-commit-hooks.yaml", hook)
    run("git", "init", "-q", cwd=hook)
    run("git", "add", ".", cwd=hook)
    run("git", "commit", "-q", "-m", "hook", cwd=hook)
    commit = run("git", "rev-parse", "HEAD", cwd=hook).stdout.strip()
    (project / "specs").mkdir(parents=True)
    (project / "model").mkdir()
    (project / "specs" / "example.yaml").write_text(SPEC, "utf-8")
    (project / "other.yaml").write_text("not: a spec\n", "utf-8")
    (project / ".pre-commit-config.yaml").write_text(
        f"repos:\n  - repo: {hook}\n    rev: {commit}\n    hooks: [{{id: ortc-check}}]\n", "utf-8"
    )
    run("git", "init", "-q", cwd=project)
    run("git", "add", ".", cwd=project)
    return project


def run(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True)


def hook(project: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pre_commit", "run", "--all-files", "--color", "never"]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)


def test_passes_and_fails_with_the_specs(project: Path) -> None:
    done = hook(project)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ortc check" in done.stdout
    assert "Passed" in done.stdout
    path = project / "specs" / "example.yaml"
    path.write_text(path.read_text("utf-8").replace("cpu", "cpuu"), "utf-8")
    done = hook(project)
    assert done.returncode == 1
    assert "error[ORTC201]: there is no target profile `cpuu`" in done.stdout
    assert "other.yaml" not in done.stdout
