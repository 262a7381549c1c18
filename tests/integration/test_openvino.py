"""Bundles for the OpenVINO execution provider in `onnxruntime-openvino`: providers, placement, threads, callers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.support import bundles
from tests.support.builds import ROOT, Compiler, answer, loader, refusal

from ortc.execution import host
from ortc.execution.worker import Worker
from ortc.passes.shape_arithmetic import shape_nodes
from ortc.spec.unused_files import PARTS, TOOLS

pytestmark = pytest.mark.integration

OPENVINO, CPU = "OpenVINOExecutionProvider", "CPUExecutionProvider"
CPUS = len(os.sched_getaffinity(0))


def wide() -> bundles.Recipe:
    """y = relu(x @ w) @ w over x [batch, 1024]: enough work for several threads."""
    recipe = bundles.linear()
    random = np.random.default_rng(0)
    weights = (random.standard_normal((1024, 1024)) / 32).astype(np.float32)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 1024]) for name in ("x", "y")]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["hidden"], name="first"),
        helper.make_node("Relu", ["hidden"], ["positive"], name="relu"),
        helper.make_node("MatMul", ["positive", "w"], ["y"], name="second"),
    ]
    return _with_graph(recipe, nodes, values, weights)


def split() -> bundles.Recipe:
    """y = x @ w, through text and back: OpenVINO has no strings."""
    recipe = bundles.linear()
    weights = np.eye(8, dtype=np.float32)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 8]) for name in ("x", "y")]
    nodes = [
        helper.make_node("Cast", ["x"], ["text"], name="to-text", to=TensorProto.STRING),
        helper.make_node("Cast", ["text"], ["number"], name="to-number", to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["number", "w"], ["y"], name="matmul"),
    ]
    return _with_graph(recipe, nodes, values, weights)


def folded() -> bundles.Recipe:
    """y = x @ w, through text that is folded to twice the rows and back: OpenVINO cannot tell the sizes of strings."""
    recipe = bundles.linear()
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 8]) for name in ("x", "y")]
    numbers = {"factors": [2, 0], "rest": [0, 4]}
    constants = [
        helper.make_node("Constant", [], [name], name=name, value=numpy_helper.from_array(np.array(pair, np.int64)))
        for name, pair in numbers.items()
    ]
    nodes = [
        *constants,
        helper.make_node("Cast", ["x"], ["text"], name="to-text", to=TensorProto.STRING),
        helper.make_node("Shape", ["text"], ["sizes"], name="sizes"),
        helper.make_node("Mul", ["sizes", "factors"], ["twice"], name="twice"),
        helper.make_node("Add", ["twice", "rest"], ["wanted"], name="wanted"),
        helper.make_node("Reshape", ["text", "wanted"], ["folded"], name="fold"),
        helper.make_node("Reshape", ["folded", "sizes"], ["unfolded"], name="unfold"),
        helper.make_node("Cast", ["unfolded"], ["number"], name="to-number", to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["number", "w"], ["y"], name="matmul"),
    ]
    return _with_graph(recipe, nodes, values, np.eye(8, dtype=np.float32))


def _with_graph(recipe: bundles.Recipe, nodes: list[Any], values: list[Any], weights: Any) -> bundles.Recipe:
    graph = helper.make_graph(nodes, "graph", values[:1], values[1:], [numpy_helper.from_array(weights, "w")])
    recipe.model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    width = weights.shape[0]
    recipe.golden = [{"x": np.linspace(-1, 1, 2 * width, dtype=np.float32).reshape(2, width)}]
    recipe.manifest |= {
        "inputs": [{"name": "x", "dtype": "float32", "shape": ["batch", width], "range": None}],
        "outputs": [{"name": "y", "dtype": "float32", "shape": ["batch", width]}],
        "golden": recipe.manifest["golden"][:1],
    }
    return recipe


@pytest.mark.parametrize("recipe", [bundles.linear, bundles.text, wide])
def test_selftest(openvino_python: Path, tmp_path: Path, recipe: Callable[[], bundles.Recipe]) -> None:
    bundle = bundles.on_openvino(recipe().write(tmp_path / "bundle"))
    result = answer(loader(openvino_python, bundle, "selftest", "--threads", "1"))
    assert result["providers"] == [OPENVINO, CPU]
    assert result["placement"].keys() == {OPENVINO}
    assert result["threads"]["intra_op"] == 1
    assert result["versions"]["onnxruntime"] == "1.24.1"
    assert result["golden"]


def test_what_images_leave_out_is_not_needed(openvino_python: Path, tmp_path: Path) -> None:
    (packages,) = (openvino_python.parents[1] / "lib").glob("python*/site-packages")
    kept = tmp_path / "packages"
    shutil.copytree(
        packages, kept, copy_function=os.link, ignore=shutil.ignore_patterns("__pycache__", "*.pyi", "tests")
    )
    for pattern in (*TOOLS, *PARTS[OPENVINO]):
        for path in kept.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    size = sum(path.stat().st_size for path in kept.rglob("*") if path.is_file())
    assert size <= 195 * 10**6, size
    bundle = bundles.on_openvino(wide().write(tmp_path / "bundle"))
    done = subprocess.run(
        # Without `site`: nothing of this environment is there, as in the image.
        [sys.executable, "-S", "-B", str(bundle / "runtime/loader.py"), "selftest"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(kept)},
    )
    result = answer(done)
    assert result["placement"].keys() == {OPENVINO}
    assert result["golden"]


PROFILE = """
apiVersion: ortc/v1alpha1
kind: TargetProfile
name: vino
description: OpenVINO and nothing else
platforms: [linux/amd64]
runtime: {package: onnxruntime-openvino, version: "1.24.1", minimum_version: "1.24.1", pins: onnxruntime-openvino}
execution_providers:
  - {name: OpenVINOExecutionProvider, options: {device_type: CPU}}
  - {name: CPUExecutionProvider}
precision: fp32
variants:
  - {name: fp32, precision: fp32, offline: false}
graph_levels: ["off"]
image: {base_image: "python:3.12-slim", python: "3.12"}
"""


def test_a_build_for_openvino(openvino_python: Path, ortc: Compiler, tmp_path: Path) -> None:
    root = tmp_path / "project"
    (root / "targets").mkdir(parents=True)
    (root / "pyproject.toml").touch()
    (root / "targets" / "vino.yaml").write_text(PROFILE, "utf-8")
    onnx.save(bundles.linear_model(), root / "linear.onnx")
    spec = {
        "apiVersion": "ortc/v1alpha1",
        "kind": "ModelDeployment",
        "name": "linear",
        "version": "1.0.0",
        "model": {"source": "onnx", "path": "linear.onnx"},
        "export": {"opset": 17, "dynamic_axes": {"batch": {"min": 1, "typical": 1, "max": 8}}},
        "targets": {"vino": {"latency_budget": {"p99": "60s"}, "max_cpu_nodes": 0, "max_memcpy_nodes": 0}},
    }
    (root / "linear.yaml").write_text(json.dumps(spec), "utf-8")
    result = ortc.build(root / "linear.yaml", output=tmp_path / "dist", cwd=root).succeeded()
    verdicts = {verdict["gate"]: verdict for verdict in result.report("linear")["targets"][0]["verdicts"]}
    assert [verdicts[gate]["outcome"] for gate in ("cpu_nodes", "memcpy_nodes")] == ["pass", "pass"]
    assert verdicts["memcpy_nodes"]["observed"] == "0 nodes"
    command = [sys.executable, "-m", "ortc", "verify", str(result.bundle("linear", "vino")), "--no-timing", "--json"]
    again = subprocess.run(command, env=ortc.environment(), cwd=root, capture_output=True, text=True, check=True)
    judged = {verdict["gate"]: verdict["outcome"] for verdict in json.loads(again.stdout)["verdicts"]}
    assert judged == {"self-test": "pass", "cpu_nodes": "pass", "memcpy_nodes": "pass"}
    numbers = result.report("linear")["targets"][0]["numbers"]
    assert (numbers["soak"]["shapes"], numbers["soak"]["of"], numbers["soak"]["end"]) == (8, 8, "all")
    assert numbers["peak_rss_bytes"] >= numbers["soak"]["peak_rss_bytes"]
    info = answer(loader(openvino_python, result.bundle("linear", "vino"), "selftest"))
    assert info["placement"].keys() == {OPENVINO}
    assert info["threads"]["intra_op"] == host.cores()
    assert info["golden"]


def runs(python: Path, bundle: Path, threads: int) -> Any:
    program = ROOT / "tests" / "support" / "runs_of_bundle.py"
    command = [str(python), "-E", "-s", "-B", str(program), str(bundle), str(threads), "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("threads", [1, pytest.param(2, marks=pytest.mark.skipif(CPUS < 2, reason="one CPU"))])
def test_threads_and_callers(openvino_python: Path, tmp_path: Path, threads: int) -> None:
    bundle = bundles.on_openvino(wide().write(tmp_path / "bundle"))
    seen = runs(openvino_python, bundle, threads)
    assert seen["equal"]
    assert seen["info"]["threads"]["intra_op"] == threads
    caller, *others = seen["processor"]
    # With one thread the caller does all the work; on a machine under load the others get little of it.
    assert (sum(others) > caller / 200) == (threads > 1), seen["processor"]
    # Unbound: two processes of one thread each find a core each.
    assert seen["affinities"] == [sorted(os.sched_getaffinity(0))]


@pytest.mark.skipif(CPUS < 2, reason="one CPU")
def test_the_session_file_may_bind_threads(openvino_python: Path, tmp_path: Path) -> None:
    config = json.dumps({"CPU": {"ENABLE_CPU_PINNING": "YES"}})
    bundle = bundles.on_openvino(wide().write(tmp_path / "bundle"), load_config=config)
    # On a machine under load one run once showed a single set of processors; threads that are not bound never show two.
    assert any(len(runs(openvino_python, bundle, 2)["affinities"]) > 1 for _ in range(5))


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        # It starts, and leaves everything to the CPU.
        ({"device_type": "SOME"}, "providers", "runs none of the 3 nodes"),
        # These do not start: ONNX Runtime itself would go on without.
        ({"precision": "FP12"}, "providers", "gave CPUExecutionProvider"),
        ({"disable_dynamic_shapes": "1"}, "providers", "gave CPUExecutionProvider"),
        # These the loader refuses before ONNX Runtime reads them.
        ({"load_config": '{"CPU": {"NUM_THREADS": "1"}}'}, "format", "may not have 'NUM_THREADS'"),
        ({"made_up": "1"}, "format", "may not have 'made_up'"),
        # These it would ignore.
        ({"load_config": '{"CPU": {"INFERENCE_PRECISION_HINT": "fp16"}}'}, "format", "expected bf16, f16 or f32"),
        ({"load_config": '{"cpu": {"INFERENCE_PRECISION_HINT": "bf16"}}'}, "format", "expected the device CPU"),
    ],
)
def test_no_answer_without_openvino(
    openvino_python: Path, tmp_path: Path, options: dict[str, str], code: str, message: str
) -> None:
    bundle = bundles.on_openvino(wide().write(tmp_path / "bundle"), **options)
    assert message in refusal(loader(openvino_python, bundle, "selftest"), code)


@pytest.mark.parametrize("budget", [None, 2, 1])
def test_nodes_on_the_cpu_are_known_and_counted(openvino_python: Path, tmp_path: Path, budget: int | None) -> None:
    recipe = split()
    recipe.manifest["placement"] = {"max_cpu_nodes": budget}
    done = loader(openvino_python, bundles.on_openvino(recipe.write(tmp_path / "bundle")), "selftest")
    if budget == 1:
        assert "2 of 3 nodes run on the CPU" in refusal(done, "placement")
    else:
        assert answer(done)["placement"] == {OPENVINO: 1, CPU: 2}


@pytest.mark.parametrize(
    ("rename", "budget", "fits"),
    [({}, 4, True), ({}, 3, False), ({"sizes": "sizes_token_1"}, 5, True), ({"sizes": "sizes_token_1"}, 4, False)],
)
def test_what_computes_shapes_is_told_apart(
    openvino_python: Path, tmp_path: Path, rename: dict[str, str], budget: int, fits: bool
) -> None:
    """Of what computes shapes, OpenVINO leaves one node to the CPU; a node under another name is counted."""
    recipe = folded()
    listed = {
        operator: [rename.get(name, name) for name in names]
        for operator, names in shape_nodes(ir.serde.deserialize_model(recipe.model)).items()
    }
    recipe.manifest["placement"] = {"max_cpu_nodes": budget, "max_memcpy_nodes": 0, "shape_nodes": listed}
    done = loader(openvino_python, bundles.on_openvino(recipe.write(tmp_path / "bundle")), "selftest")
    if fits:
        info = answer(done)
        assert info["placement"] == {OPENVINO: 3, CPU: 5}
        assert (info["fallback"]["nodes"], info["fallback"]["shape_nodes"]) == ((5, 0) if rename else (4, 1))
        assert ("Shape 'sizes'" in info["fallback"]["named"]) == bool(rename)
    else:
        besides = "" if rename else " besides 1 that compute shapes"
        assert f"{5 if rename else 4} of 8 nodes run on the CPU{besides}, " in refusal(done, "placement")


def soaked(python: Path, bundle: Path) -> dict[str, Any]:
    with Worker.for_bundle("soak", python, bundle) as worker:
        worker.call("load", bundle=str(bundle))
        return dict(worker.call("soak", seconds=60.0))


@pytest.mark.proof(
    "test_a_cache_with_a_bound_is_filled_before_the_soak_ends; test_growth_without_a_bound_is_continued_over_all_shapes"
)
def test_memory_is_promised_for_many_shapes_and_bounded(openvino_python: Path, tmp_path: Path) -> None:
    """OpenVINO keeps kernels of every shape; of a cache without a bound, the growth goes into the promise."""
    recipe = wide()
    recipe.manifest["axes"] = [{"name": "batch", "min": 1, "typical": 1, "max": 1024, "multiple_of": 1}]
    unbounded = bundles.on_openvino(recipe.write(tmp_path / "unbounded"))
    bounded = bundles.on_openvino(
        recipe.write(tmp_path / "bounded"), load_config=json.dumps({"CPU": {"CPU_RUNTIME_CACHE_CAPACITY": "32"}})
    )
    bundles.edit_json(bounded / "session.json", environment={"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "32"})
    bundles.seal(bounded)
    free, held = soaked(openvino_python, unbounded), soaked(openvino_python, bounded)
    assert held["end"] == "plateau"
    assert held["shapes"] >= 128
    assert free["grown_bytes"] > 2 * held["grown_bytes"]
    assert free["peak_rss_bytes"] > held["peak_rss_bytes"] + 30 * 10**6


def test_bf16_is_what_the_session_file_says(openvino_python: Path, tmp_path: Path) -> None:
    if "avx512_bf16" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("without bf16 instructions OpenVINO computes in fp32")
    config = json.dumps({"CPU": {"INFERENCE_PRECISION_HINT": "bf16"}})
    recipe = wide()
    bundle = bundles.on_openvino(recipe.write(tmp_path / "strict"), load_config=config)
    assert "max_abs is 0.0" in refusal(loader(openvino_python, bundle, "selftest"), "golden")
    recipe.manifest["golden"][0]["tolerance"] = {"max_abs": None, "cosine": 0.999}
    bundle = bundles.on_openvino(recipe.write(tmp_path / "bundle"), load_config=config)
    assert answer(loader(openvino_python, bundle, "selftest"))["golden"][0]["cosine"] < 0.999999


def test_another_onnxruntime_is_refused(tmp_path: Path) -> None:
    # That of the compiler's own environment.
    bundle = bundles.on_openvino(bundles.linear().write(tmp_path / "bundle"))
    message = refusal(loader(Path(sys.executable), bundle, "selftest"), "providers")
    assert f"asks for {OPENVINO}, {CPU}" in message
    assert "Install the package of requirements.txt" in message
