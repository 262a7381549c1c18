"""Digests of local files: told by `ortc check` where they differ, and written anew by `ortc lock --update-digests`."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from ortc.__main__ import run
from ortc.plan.checks import check_spec
from ortc.spec.diagnostics.errors import SpecError

OLD, NEW = b"weights before", b"weights after"
SPEC = """\
apiVersion: ortc/v1alpha1
kind: ModelDeployment
name: net     # a comment
version: 1.0.0
model:
  source: pytorch
  entrypoint: "net:build"
  weights: runs/net.pt
  sha256: {digest}   # of runs/net.pt
export:
  dynamic_axes: {{batch: {{max: 4}}}}
  inputs: {{x: {{dtype: float32, shape: [batch, 8]}}}}
targets:
  cpu: {{precision: fp32}}
"""


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "net.py").write_text("def build(): ...\n")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "net.pt").write_bytes(OLD)
    return tmp_path


def spec(project: Path, text: str) -> Path:
    path = project / "spec.yaml"
    path.write_text(text, "utf-8")
    return path


def codes(path: Path) -> list[tuple[str, str]]:
    try:
        check_spec(path)
    except SpecError as error:
        return [(str(found.rule.code), found.span.source.name) for found in error.diagnostics]
    return []


@pytest.mark.parametrize("quote", ["{}", '"{}"', "'{}'"])
def test_a_retrained_file_is_told_and_its_digest_written(
    project: Path, quote: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = spec(project, SPEC.format(digest=quote.format(sha256(OLD))))
    path.chmod(0o640)
    assert codes(path) == []
    assert run(["lock", "--update-digests", str(path)]) == 0
    assert capsys.readouterr().out == "every digest is that of its file\n"
    (project / "runs" / "net.pt").write_bytes(NEW)
    with pytest.raises(SpecError) as caught:
        check_spec(path)
    (found,) = caught.value.diagnostics
    assert (found.rule.code, found.span.start.line) == ("ORTC336", 9)
    assert found.message == f"`runs/net.pt` has another sha256 than declared: {sha256(NEW)}"
    assert "ortc lock --update-digests SPEC" in str(found.help)
    assert run(["lock", "--update-digests", str(path)]) == 0
    assert capsys.readouterr().out.startswith(f"runs/net.pt: {sha256(OLD)[:12]}… -> {sha256(NEW)[:12]}…\nwritten: ")
    assert path.read_text("utf-8") == SPEC.format(digest=quote.format(sha256(NEW)))
    assert path.stat().st_mode & 0o777 == 0o640
    assert codes(path) == []


def test_a_digest_that_is_inherited_is_written_where_it_stands(project: Path) -> None:
    (project / "base.yaml").write_text(SPEC.format(digest=sha256(OLD)), "utf-8")
    text = "apiVersion: ortc/v1alpha1\nkind: ModelDeployment\nbase: base.yaml\nname: other\n"
    path = spec(project, text)
    (project / "runs" / "net.pt").write_bytes(NEW)
    assert codes(path) == [("ORTC336", str(project / "base.yaml"))]
    assert run(["lock", "--update-digests", str(path)]) == 0
    assert path.read_text("utf-8") == text
    assert sha256(NEW) in (project / "base.yaml").read_text("utf-8")
    assert codes(path) == []


def test_files_of_a_directory(project: Path) -> None:
    model = project / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(OLD)
    digests = "".join(
        f"    {name}: {sha256(data)}\n" for name, data in (("config.json", b"{}"), ("model.safetensors", b""))
    )
    text = SPEC.format(digest="x").split("model:\n")[0] + "model:\n  source: huggingface\n  path: model\n  files:\n"
    path = spec(project, f"{text}{digests}targets:\n  cpu: {{precision: fp32}}\n")
    assert ("ORTC336", str(path)) in codes(path)
    assert run(["lock", "--update-digests", str(path)]) == 0
    assert f"config.json: {sha256(b'{}')}\n    model.safetensors: {sha256(OLD)}\n" in path.read_text("utf-8")


@pytest.mark.parametrize("digest", [f"&d {sha256(OLD)}", f'"\\x{ord(sha256(OLD)[0]):02x}{sha256(OLD)[1:]}"'])
def test_what_cannot_be_replaced_safely_is_left_alone(
    project: Path, digest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = SPEC.format(digest=digest)
    path = spec(project, text)
    (project / "runs" / "net.pt").write_bytes(NEW)
    assert run(["lock", "--update-digests", str(path)]) == SpecError.exit_code
    assert f"write it by hand: {sha256(NEW)}" in capsys.readouterr().err
    assert path.read_text("utf-8") == text


def test_a_file_that_is_missing_or_lies_elsewhere(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a file outside of the project holds is told to nobody, not even by its digest."""
    path, weights = spec(project, SPEC.format(digest=sha256(OLD))), project / "runs" / "net.pt"
    secret = project.parent / f"{project.name}-secret"
    secret.write_bytes(b"secret")
    weights.unlink()
    for make in (lambda: None, lambda: weights.symlink_to(secret), lambda: (weights.unlink(), os.mkfifo(weights))):
        make()
        assert run(["lock", "--update-digests", str(path)]) == SpecError.exit_code
        said = capsys.readouterr().err
        assert "`runs/net.pt` is no file of the project" in said
        assert sha256(b"secret") not in said
        assert path.read_text("utf-8") == SPEC.format(digest=sha256(OLD))
