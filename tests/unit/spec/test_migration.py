"""`ortc migrate`: former keys of profiles become the present ones, and nothing else in a file changes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from ortc.__main__ import run
from ortc.common import atomic_files
from ortc.plan.checks import check_spec
from ortc.spec.diagnostics.errors import SpecError
from ortc.spec.diagnostics.source import SourceFile
from ortc.spec.former_keys import former_keys
from ortc.spec.load import load_profile
from ortc.spec.migration import migrated_text
from ortc.spec.syntax.yaml_parser import parse

HEAD = """# A board.
apiVersion: ortc/v1alpha1
kind: TargetProfile
name: board   # in the field
description: A board
platforms: [linux/amd64]
runtime: {package: onnxruntime, version: "1.31.1", minimum_version: "1.31.0", pins: onnxruntime}
execution_providers: [{name: CPUExecutionProvider}]
precision: auto
graph_levels: ["off"]
image: {base_image: python:3.12-slim, python: "3.12"}
"""
SPEC = """apiVersion: ortc/v1alpha1
kind: ModelDeployment
name: small
version: "1"
model: {source: huggingface, path: somewhere, weights: random}
targets: {board: {}}
"""
CASES = {
    "block": (
        """variants:
  - name: a
    precision: int8
    quantization: int8-static  # calibrated
    # which
    operators:
      - MatMul
      # and
      - Gemm  # too

    smoothing: auto   # alpha
    keep_narrowing: true  # the second
    # last
    quick: false
""",
        """variants:
  - name: a
    precision: int8
    quantization:
      kind: static  # calibrated
      # which
      operators:
        - MatMul
        # and
        - Gemm  # too

      smoothing: auto   # alpha
      narrowing: float  # the second
    # last
    quick: false
""",
    ),
    "scattered": (
        """variants:
  - operators: [MatMul]  # first
    name: a
    # why
    smooth: true
    precision: int8
    quantization: int8-dynamic
    weight_only: true
""",
        """variants:
  - quantization:
      kind: dynamic
      operators: [MatMul]  # first
      # why
      smoothing: layer-norm
      narrowing: weight-only
    name: a
    precision: int8
""",
    ),
    "defaults": (
        """variants:
  - name: a
    precision: fp32
    quantization: none  # nothing
    smooth: false
    # a flag
    weight_only: false  # said for clearness
    quick: true
""",
        """variants:
  - name: a
    precision: fp32
    # nothing
    # a flag
    # said for clearness
    quick: true
""",
    ),
    "flow": (
        """variants:
  - {name: a, precision: int8, quantization: int4-weights, operators: [MatMul], quick: false}
  - {operators: [Conv], quantization: int8-static, name: b, precision: int8, symmetric: true}  # both
  - {name: c, precision: fp32, quantization: none, smooth: false}
  - {name: d,
     precision: int8,  # eight
     quantization: int8-dynamic,  # ranges at run time
     operators: [MatMul,  # products
                 Gemm],
     smoothing: 0.5,  # alpha
     # the rest
     quick: false}
""",
        """variants:
  - {name: a, precision: int8, quantization: {kind: weight-only, bits: 4, operators: [MatMul]}, quick: false}
  - {quantization: {kind: static, operators: [Conv], symmetric: true}, name: b, precision: int8}  # both
  - {name: c, precision: fp32}
  - {name: d,
     precision: int8,  # eight
     quantization: {kind: dynamic, operators: [MatMul,  # products
                 Gemm], smoothing: 0.5},  # ranges at run time
     # alpha
     # the rest
     quick: false}
""",
    ),
    "anchors": (
        """variants:
  - &a
    name: a
    precision: int8
    quantization: int8-dynamic
    operators: &ops [MatMul, Gemm]
  - name: b
    operators: *ops
    quantization: "int8-weights"
    precision: int8
""",
        """variants:
  - &a
    name: a
    precision: int8
    quantization:
      kind: dynamic
      operators: &ops [MatMul, Gemm]
  - name: b
    quantization:
      kind: weight-only
      bits: 8
      operators: *ops
    precision: int8
""",
    ),
    "placement": (
        """variants: [{name: a, precision: fp32}]
# where
placement:  # of nodes
  max_cpu_nodes: 0
""",
        """variants: [{name: a, precision: fp32}]
# where
gates:  # of nodes
  max_cpu_nodes: 0
""",
    ),
    "placement beside gates": (
        """placement:  # of nodes
  # why
  max_cpu_nodes: 0  # none
variants: [{name: a, precision: fp32}]
gates:
  max_memcpy_nodes: 1  # one
  # end
""",
        """variants: [{name: a, precision: fp32}]
gates:
  max_memcpy_nodes: 1  # one
  # of nodes
  # why
  # none
  max_cpu_nodes: 0
  # end
""",
    ),
    "placement beside gates on one line": (
        """gates: {max_memcpy_nodes: 1, max_cpu_nodes: 0}
variants: [{name: a, precision: fp32}]
placement: {max_cpu_nodes: 0, size_budget: 3MB}  # where
""",
        """gates: {max_memcpy_nodes: 1, max_cpu_nodes: 0, size_budget: 3MB}
variants: [{name: a, precision: fp32}]
# where
""",
    ),
    "placement beside empty gates": (
        """placement: {max_cpu_nodes: 0}
gates:  # none yet
variants: [{name: a, precision: fp32}]
""",
        """gates: {max_cpu_nodes: 0}
# none yet
variants: [{name: a, precision: fp32}]
""",
    ),
    "empty placement": (
        """variants: [{name: a, precision: fp32}]
placement:  # nowhere
""",
        """variants: [{name: a, precision: fp32}]
gates: {}  # nowhere
""",
    ),
}


def comments(text: str) -> list[str]:
    return sorted(re.findall(r"#.*", text))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_profile_is_rewritten_with_its_comments(name: str, newline: str) -> None:
    before, after = (f"{HEAD}{part}".replace("\n", newline) for part in CASES[name])
    found = migrated_text(SourceFile("board.yaml", before))
    assert found == after
    assert comments(found) == comments(before)
    assert list(former_keys(parse(SourceFile("board.yaml", found)))) == []
    assert migrated_text(SourceFile("board.yaml", found)) == found
    unfinished = before.rstrip()
    assert migrated_text(SourceFile("board.yaml", unfinished)) == after.rstrip()


@pytest.mark.parametrize("name", CASES)
def test_what_was_rewritten_is_a_profile(name: str, tmp_path: Path) -> None:
    (tmp_path / "board.yaml").write_text(HEAD + CASES[name][1], "utf-8")
    assert load_profile(str(tmp_path / "board.yaml")).name == "board"
    (tmp_path / "board.yaml").write_text(HEAD + CASES[name][0], "utf-8")
    with pytest.raises(SpecError) as refused:
        load_profile(str(tmp_path / "board.yaml"))
    assert {item.code for item in refused.value.diagnostics} == {"ORTC130"}


@pytest.mark.parametrize(
    ("variant", "why"),
    [
        ("quantization: int8-static, operators: [MatMul], smooth: true", "it had no effect with"),
        ("quantization: int8-weights, operators: [MatMul], weight_only: true", "it had no effect with"),
        ("operators: [MatMul]", "it had no effect with"),
        ("quantization: int8-dynamic, operators: [MatMul], smooth: true, smoothing: 0.5", "takes one of"),
        ("quantization: int7, operators: [MatMul]", "is unknown"),
        ("quantization: {kind: dynamic, operators: [MatMul]}, smooth: true", "is a mapping already"),
        ("quantization: &q int8-dynamic, operators: [MatMul]", "an anchor"),
        ("quantization: int8-dynamic, operators: [MatMul], smooth: maybe", "neither `true` nor `false`"),
    ],
)
def test_what_has_no_present_spelling_is_refused(variant: str, why: str) -> None:
    text = f"{HEAD}variants:\n  - {{name: a, precision: int8, {variant}}}\n"
    with pytest.raises(SpecError) as refused:
        migrated_text(SourceFile("board.yaml", text))
    assert {item.code for item in refused.value.diagnostics} == {"ORTC130"}
    assert any(why in item.message for item in refused.value.diagnostics)


@pytest.mark.parametrize(
    ("placement", "gates", "why"),
    [
        ("{max_cpu_nodes: 0}", "{max_cpu_nodes: 1}", "`gates` has another `max_cpu_nodes`"),
        ("[1]", "{max_cpu_nodes: 1}", "one of `placement` and `gates` is not a mapping"),
        ("{max_cpu_nodes: 0}", "all", "one of `placement` and `gates` is not a mapping"),
    ],
)
def test_placement_that_contradicts_gates_is_moved_by_hand(placement: str, gates: str, why: str) -> None:
    text = f"{HEAD}variants: []\ngates: {gates}\nplacement: {placement}\n"
    with pytest.raises(SpecError) as refused:
        migrated_text(SourceFile("board.yaml", text))
    (found,) = refused.value.diagnostics
    assert found.message == f"`placement` cannot be moved: {why}"
    assert found.help == "move its keys into `gates` by hand"


@pytest.mark.parametrize("value", ["[1]", "off", "3", "'a'"])
def test_placement_of_another_type_is_refused_as_gates(value: str) -> None:
    found = migrated_text(SourceFile("board.yaml", f"{HEAD}variants: []\nplacement: {value}\n"))
    assert found == f"{HEAD}variants: []\ngates: {value}\n"


@pytest.mark.parametrize("gates", ["*p", "{max_memcpy_nodes: 1}\nextra: *p"])
def test_placement_that_others_refer_to_stays(gates: str) -> None:
    text = f"{HEAD}variants: []\nplacement: &p {{max_cpu_nodes: 0}}\ngates: {gates}\n"
    with pytest.raises(SpecError, match="cannot be rewritten safely"):
        migrated_text(SourceFile("board.yaml", text))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A spec whose base names a profile of the project in the former spelling."""
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "targets").mkdir()
    (tmp_path / "targets" / "board.yaml").write_bytes(b"\xef\xbb\xbf" + (HEAD + CASES["block"][0]).encode())
    (tmp_path / "targets" / "board.yaml").chmod(0o600)
    (tmp_path / "common.yaml").write_text(SPEC, "utf-8")
    (tmp_path / "spec.yaml").write_text("# mine\nbase: common.yaml\nname: mine\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_profiles_of_a_spec_are_rewritten(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    profile = project / "targets" / "board.yaml"
    before = profile.read_bytes()
    assert run(["migrate", "--check", "spec.yaml"]) == 3
    assert "board.yaml: is to be rewritten" in capsys.readouterr().out
    assert profile.read_bytes() == before
    assert run(["migrate", "spec.yaml"]) == 0
    assert capsys.readouterr().out == f"spec.yaml: is up to date\n{profile}: rewritten\n"
    assert profile.read_bytes() == b"\xef\xbb\xbf" + (HEAD + CASES["block"][1]).encode()
    assert profile.stat().st_mode & 0o777 == 0o600
    assert (project / "spec.yaml").read_text("utf-8") == "# mine\nbase: common.yaml\nname: mine\n"
    assert run(["migrate", "--check", "spec.yaml"]) == 0
    assert sorted(path.name for path in profile.parent.iterdir()) == ["board.yaml"]


def test_one_file_that_cannot_be_rewritten_stops_all(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = project / "other.yaml"
    other.write_text(f"{HEAD}variants: [{{name: a, precision: int8, quantization: int7}}]\n", "utf-8")
    before = (project / "targets" / "board.yaml").read_bytes()
    assert run(["migrate", "spec.yaml", "other.yaml"]) == 3
    assert "ORTC130" in capsys.readouterr().err
    assert (project / "targets" / "board.yaml").read_bytes() == before


def test_a_crash_leaves_the_file_whole(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = project / "targets" / "board.yaml"
    before = profile.read_bytes()

    def crash(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic_files.os, "fsync", crash)
    assert run(["migrate", str(profile)]) == 2
    assert profile.read_bytes() == before
    assert sorted(path.name for path in profile.parent.iterdir()) == ["board.yaml"]


def test_a_diagnostic_shows_the_present_spelling(project: Path) -> None:
    with pytest.raises(SpecError) as refused:
        check_spec("spec.yaml")
    found: Any = [item for item in refused.value.diagnostics if item.code == "ORTC130"]
    assert [item.span.start.line for item in found] == [15, 17, 22, 23]
    new = "quantization: {kind: static, operators: [MatMul, Gemm], smoothing: auto, narrowing: float}"
    assert all(f"write `{new}`; `ortc migrate targets/board.yaml` rewrites the file" in item.help for item in found)
