"""INT8 on x86-64 without VNNI: an emulated processor overflows as a real one does, and builds judge on it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.support import bundles
from tests.support.builds import Build, Compiler

from ortc.build.instruction_sets import AMD64, emulator, run_on_avx2
from ortc.common.arrays import write_arrays
from ortc.evaluation.accuracy import ReferenceCase
from ortc.execution.host import describe
from ortc.passes.quantization.dynamic import emit

FOUND = emulator()
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(FOUND is None, reason="needs qemu-user-static 7.2 or later"),
    pytest.mark.skipif(describe().platform != AMD64, reason="emulates the processors of this platform"),
]

WIDTH = 64
UNSIGNED = {"session.x64quantprecision": "1"}
OTHER_MACHINE = """
import sys
import ortc.execution.host
real = ortc.execution.host.describe
ortc.execution.host.describe = lambda: real().model_copy(update={"isa": ("avx2", "avx512_vnni")})
if sys.argv.pop(1) == "without":
    import ortc.build.instruction_sets
    ortc.build.instruction_sets.emulator = lambda: None
from ortc.__main__ import main
main()
"""
"""The compiler as on a machine that has VNNI, with or without an emulator."""


@pytest.fixture
def overflowing(tmp_path: Path) -> tuple[bundles.Recipe, ReferenceCase]:
    """A product whose integers are all great: two products of U8 and S8 leave 16 bits."""
    weight = np.ones((WIDTH, 8), np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
        "overflowing",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 8])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    emit(model, ("MatMul",))
    recipe = bundles.linear()
    recipe.model = ir.to_proto(model)
    x = np.random.default_rng(0).uniform(1, 4, (8, WIDTH)).astype(np.float32)
    recipe.golden = [{"x": x}]
    recipe.manifest["golden"] = recipe.manifest["golden"][:1]
    recipe.manifest["inputs"] = [{"name": "x", "dtype": "float32", "shape": ["batch", WIDTH], "range": None}]
    recipe.manifest["outputs"] = [{"name": "y", "dtype": "float32", "shape": ["batch", 8]}]
    inputs, outputs = tmp_path / "in.npz", tmp_path / "out.npz"
    write_arrays(inputs, {"x": x})
    write_arrays(outputs, {"y": x @ weight})
    return recipe, ReferenceCase(name="samples 1-8", is_sample=True, inputs=inputs, outputs=outputs)


def error(recipe: bundles.Recipe, case: ReferenceCase, place: Path) -> float:
    assert FOUND is not None
    check = run_on_avx2(FOUND, Path(sys.executable), recipe.write(place), (case,))
    assert check.error is None
    return check.outputs[0].nrmse


def test_products_overflow_on_the_emulated_processor_unless_weights_are_unsigned(
    overflowing: tuple[bundles.Recipe, ReferenceCase], tmp_path: Path
) -> None:
    """The loader finds no VNNI there, whatever this machine has."""
    recipe, case = overflowing
    assert error(recipe, case, tmp_path / "signed") > 0.3
    recipe.session["config_entries"] |= UNSIGNED
    assert error(recipe, case, tmp_path / "unsigned") < 0.05


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("avx2")
    (root / "pyproject.toml").touch()
    random = np.random.default_rng(0).standard_normal
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 16])],
        [numpy_helper.from_array(random((WIDTH, 16)).astype(np.float32), "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), root / "small.onnx")
    np.savez(root / "small.npz", x=random((64, WIDTH)).astype(np.float32))
    (root / "small.yaml").write_text(
        "apiVersion: ortc/v1alpha1\nkind: ModelDeployment\nname: small\nversion: 1.0.0\n"
        "model: {source: onnx, path: small.onnx}\n"
        "export: {dynamic_axes: {batch: {min: 1, typical: 1, max: 8}}}\n"
        "accuracy: {samples: small.npz}\n"
        "targets: {cpu: {precision: int8, latency_budget: {p99: 60s}}}\n",
        "utf-8",
    )
    return root / "small.yaml"


def build(ortc: Compiler, spec: Path, output: Path, emulated: str, *options: str) -> Build:
    """As on a machine with VNNI."""
    arguments = [str(spec), "--variant", "int8-dynamic", "--search", "none", *options, "-o", str(output)]
    done = subprocess.run(
        [sys.executable, "-c", OTHER_MACHINE, emulated, "build", *arguments],
        cwd=ortc.root,
        env=ortc.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    return Build(done.returncode, done.stdout, done.stderr, output, 0.0)


def verdicts(build: Build) -> dict[str, Any]:
    (target,) = build.report("small")["targets"]
    return {entry["gate"]: entry for entry in target["verdicts"]}


def test_a_machine_with_vnni_judges_on_an_emulated_processor(ortc: Compiler, spec: Path, tmp_path: Path) -> None:
    found = verdicts(build(ortc, spec, tmp_path / "dist", "with").succeeded())
    for gate in ("cosine", "relative_error", "nrmse"):
        assert found[f"{gate} on AVX2"]["outcome"] == "pass"
        assert "emulated by QEMU" in found[f"{gate} on AVX2"]["where"]


def test_without_an_emulator_a_bundle_is_unmeasured(ortc: Compiler, spec: Path, tmp_path: Path) -> None:
    refused = build(ortc, spec, tmp_path / "dist", "without")
    refused.failed(7)
    assert verdicts(refused)["parity on AVX2"]["outcome"] == "unmeasured"
    allowed = build(ortc, spec, tmp_path / "dist", "without", "--set", "targets.cpu.unmeasured=allow").succeeded()
    assert allowed.report("small")["targets"][0]["status"] == "provisional"
