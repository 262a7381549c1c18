"""`ortc plan --print` and `ortc build --plan`: the same bundles without the spec, and what an edit of the plan says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from tests.support.builds import PATIENT, PLAIN, Build, Compiler, checkout

pytestmark = pytest.mark.integration

SPEC = "specs/digits.yaml"


def printed(compiler: Compiler, *options: str) -> str:
    """The plan of the digits."""
    done = subprocess.run(
        [sys.executable, "-m", "ortc", "plan", SPEC, *options, "--print"],
        capture_output=True,
        text=True,
        env=compiler.environment(),
        cwd=compiler.root,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_plan_builds_the_bundles_of_its_spec_in_another_clone(
    digits: Build, digits_compiler: Compiler, tmp_path: Path
) -> None:
    (tmp_path / "plan.json").write_text(printed(digits_compiler, *PATIENT, *PLAIN), "utf-8")
    clone = checkout(tmp_path / "clone")
    (clone / SPEC).unlink()
    other = Compiler(digits_compiler.cache, clone)
    again = other.build("--plan", tmp_path / "plan.json", output=tmp_path / "dist", cwd=clone / "tests").succeeded()
    assert again.report("digits")["plan_sha256"] == digits.succeeded().report("digits")["plan_sha256"]
    for target in ("cpu", "edge"):
        one, two = (build.bundle("digits", target) / "SHA256SUMS" for build in (digits, again))
        assert one.read_text("utf-8") == two.read_text("utf-8")


@pytest.mark.proof("test_a_plan_from_stdin; test_a_plan_builds_the_bundles_of_its_spec_in_another_clone compares bytes")
def test_a_plan_through_a_pipe_for_one_target(digits: Build, digits_compiler: Compiler, tmp_path: Path) -> None:
    text = printed(digits_compiler, *PATIENT, *PLAIN)
    again = digits_compiler.build("--plan", "-", "-t", "cpu", output=tmp_path / "plan", input=text).succeeded()
    assert again.bundles() == ["digits/1.0.0/cpu"]
    # `edge`, which calibrates, holds samples out whether it is built or not.
    one, two = (build.bundle("digits", "cpu") / "SHA256SUMS" for build in (digits.succeeded(), again))
    assert one.read_text("utf-8") == two.read_text("utf-8")


@pytest.mark.proof("test_an_edit_is_taken_at_its_word; test_two_builds builds this variant")
@pytest.mark.usefixtures("digits")
def test_another_precision_in_the_plan_is_what_is_built(digits_compiler: Compiler, tmp_path: Path) -> None:
    plan = json.loads(printed(digits_compiler, *PATIENT, "-t", "cpu", *PLAIN))
    plan["spec"]["targets"]["cpu"]["precision"] = "int8"
    (tmp_path / "plan.json").write_text(json.dumps(plan), "utf-8")
    build = digits_compiler.build("--plan", tmp_path / "plan.json", output=tmp_path / "dist").succeeded()
    bundle = build.bundle("digits", "cpu")
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    assert (manifest["variant"]["name"], manifest["variant"]["precision"]) == ("int8-dynamic", "int8")
    graph = onnx.load(bundle / "model" / "model.onnx").graph
    assert any(tensor.data_type == onnx.TensorProto.INT8 for tensor in graph.initializer)
    # Judged as int8 is: by the cosine, which the plan promises too.
    assert {entry["gate"] for entry in build.report("digits")["targets"][0]["verdicts"]} >= {"cosine", "metric"}


def test_a_plan_of_other_pins_is_not_built(digits_compiler: Compiler, tmp_path: Path) -> None:
    plan = json.loads(printed(digits_compiler, "-t", "cpu"))
    plan["pins"]["onnxruntime"] = "0" * 64
    (tmp_path / "plan.json").write_text(json.dumps(plan, indent=2), "utf-8")
    result = digits_compiler.build("--plan", tmp_path / "plan.json", output=tmp_path / "dist")
    told = result.failed(3)
    assert "error[ORTC161]: the pins `onnxruntime` of this ortc are not those of the plan" in told
    assert not (tmp_path / "dist").exists()
