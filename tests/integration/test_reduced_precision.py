"""What a cosine does not see: scores of one number, labels, and weights that integers do not make smaller."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tests.support.builds import Build, Compiler

from ortc.execution.host import gpus

pytestmark = pytest.mark.integration

WIDTH, SAMPLES = 32, 96
OFFSET = 1000.0
"""In one channel of every sample: beside it, a scale for the whole tensor leaves nothing of the others."""
OPTIONS = ("-t", "cpu", "--variant", "int8-dynamic", "--search", "none")
HALF = ("-t", "server-gpu", "--variant", "fp16", "--search", "none")

Arrays = dict[str, NDArray[Any]]


def write(
    root: Path, name: str, nodes: list[Any], weights: Arrays, samples: Arrays, *, output: tuple[int, list[Any]]
) -> Path:
    """Write a model, its samples and its spec; gives the spec."""
    inputs = [
        helper.make_tensor_value_info(key, helper.np_dtype_to_tensor_dtype(array.dtype), ["batch", *array.shape[1:]])
        for key, array in samples.items()
    ]
    kind, shape = output
    graph = helper.make_graph(
        nodes,
        name,
        inputs,
        [helper.make_tensor_value_info("y", kind, ["batch", *shape])],
        [numpy_helper.from_array(array, key) for key, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, root / f"{name}.onnx")
    np.savez(root / f"{name}.npz", **samples)  # type: ignore[arg-type]
    (root / "pyproject.toml").touch()
    spec = {
        "apiVersion": "ortc/v1alpha1",
        "kind": "ModelDeployment",
        "name": name,
        "version": "1.0.0",
        "model": {"source": "onnx", "path": f"{name}.onnx"},
        "export": {"opset": 17, "dynamic_axes": {"batch": {"min": 1, "typical": 1, "max": 8}}},
        "accuracy": {"samples": f"{name}.npz"},
        "targets": {
            "cpu": {"precision": "int8", "latency_budget": {"p99": "60s"}},
            "server-gpu": {"precision": "fp16", "unmeasured": "allow"},
        },
    }
    path = root / f"{name}.yaml"
    path.write_text(json.dumps(spec, indent=1), "utf-8")
    return path


def random(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def regression(root: Path, *, offset: float) -> Path:
    """One score a sample, around 5."""
    x, weight = random(SAMPLES, WIDTH), random(WIDTH, 1, seed=1) / np.float32(WIDTH)
    x[:, 0] = offset
    weight[0] = 5 / offset
    nodes = [helper.make_node("MatMul", ["x", "weight"], ["y"], name="score")]
    return write(root, "regression", nodes, {"weight": weight}, {"x": x}, output=(TensorProto.FLOAT, [1]))


def verdicts(build: Build, name: str) -> dict[str, Any]:
    (target,) = build.report(name)["targets"]
    return {entry["gate"]: entry for entry in target["verdicts"]}


def test_scores_of_one_number_that_only_have_the_right_sign_do_not_ship(ortc: Compiler, tmp_path: Path) -> None:
    built = ortc.build(regression(tmp_path, offset=OFFSET), *OPTIONS, output=tmp_path / "dist")
    built.failed(5)
    found = verdicts(built, "regression")
    assert {gate for gate, entry in found.items() if entry["outcome"] == "fail"} == {"nrmse", "spearman"}
    assert float(found["nrmse"]["observed"]) > 0.5
    assert built.bundles() == []


def test_scores_of_one_number_that_are_right_ship_with_a_self_test_that_sees_them(
    ortc: Compiler, tmp_path: Path
) -> None:
    built = ortc.build(regression(tmp_path, offset=16.0), *OPTIONS, output=tmp_path / "dist").succeeded()
    assert float(verdicts(built, "regression")["nrmse"]["observed"]) < 0.1
    manifest = json.loads((built.bundle("regression", "cpu") / "manifest.json").read_text("utf-8"))
    for golden in manifest["golden"]:
        # The spread of the scores is about 1 / sqrt(WIDTH).
        assert 0 < golden["tolerance"]["outputs"]["y"]["max_abs"] < 0.1
        assert golden["tolerance"]["relative_error"] == pytest.approx(0.2)


def test_labels_are_judged_by_how_many_are_equal(ortc: Compiler, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["scores"], name="scores"),
        helper.make_node("ArgMax", ["scores"], ["y"], name="label", axis=1, keepdims=0),
    ]
    path = write(
        tmp_path,
        "labels",
        nodes,
        {"weight": random(WIDTH, 24)},
        {"x": random(512, WIDTH)},
        output=(TensorProto.INT64, []),
    )
    built = ortc.build(path, *OPTIONS, output=tmp_path / "dist").succeeded()
    verdict = verdicts(built, "labels")["top1_agreement"]
    assert verdict["outcome"] == "pass"
    assert verdict["where"].startswith("output `y`, ")


def test_weights_that_integers_make_larger_lose(ortc: Compiler, tmp_path: Path) -> None:
    """A table that is looked up and multiplied with: only the product's copy of it becomes integers."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"], name="rows"),
        helper.make_node("ReduceMean", ["rows"], ["mean"], name="mean", axes=[1], keepdims=0),
        helper.make_node("Gemm", ["mean", "table"], ["y"], name="scores", transB=1),
    ]
    ids = np.random.default_rng(0).integers(0, 500, (SAMPLES, 4))
    path = write(
        tmp_path, "tied", nodes, {"table": random(500, WIDTH)}, {"ids": ids}, output=(TensorProto.FLOAT, [500])
    )
    built = ortc.build(path, *OPTIONS, output=tmp_path / "dist")
    built.failed(6)
    (decision,) = (
        entry for entry in built.report("tied")["targets"][0]["decisions"] if entry["variant"] == "int8-dynamic"
    )
    assert decision["outcome"] == "rejected"
    assert decision["reason"].startswith("weights is ")
    assert decision["reason"].endswith("the weights of fp32")


@pytest.mark.skipif(bool(gpus()), reason="checked on the CPU provider where there is no GPU")
def test_half_precision_keeps_scales_and_the_floors_of_norms(ortc: Compiler, tmp_path: Path) -> None:
    """A factor that float16 does not hold, and a norm that a tiny number keeps away from zero."""
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["hidden"], name="hidden"),
        helper.make_node("ReduceL2", ["hidden"], ["length"], name="length", axes=[1], keepdims=1),
        helper.make_node("Max", ["length", "epsilon"], ["norm"], name="norm"),
        helper.make_node("Div", ["hidden", "norm"], ["unit"], name="unit"),
        helper.make_node("Mul", ["unit", "scale"], ["y"], name="scaled"),
    ]
    weights = {
        "weight": random(WIDTH, WIDTH, seed=1),
        "epsilon": np.array(1e-8, np.float32),
        "scale": np.array(1e5, np.float32),
    }
    x = random(SAMPLES, WIDTH)
    x[3] = 0
    path = write(tmp_path, "scaled", nodes, weights, {"x": x}, output=(TensorProto.FLOAT, [WIDTH]))
    built = ortc.build(path, *HALF, output=tmp_path / "dist").succeeded()
    found = verdicts(built, "scaled")
    for gate in ("cosine", "relative_error", "nrmse"):
        assert found[f"{gate} on CPU"]["outcome"] == "pass"
    assert float(found["relative_error on CPU"]["observed"]) < 0.01
    manifest = json.loads((built.bundle("scaled", "server-gpu") / "manifest.json").read_text("utf-8"))
    assert all(golden["tolerance"]["outputs"]["y"]["max_abs"] < 1e5 for golden in manifest["golden"])
