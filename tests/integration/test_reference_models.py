"""ONNX files that are judged against the PyTorch model that they were made from, and by a task metric."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file
from tests.support.builds import PLAIN, Build, Compiler

pytestmark = pytest.mark.integration

CODE = """
import numpy as np
import torch


def build() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))


def mean(predict) -> float:
    return float(predict({"x": np.linspace(-1, 1, 16, dtype=np.float32).reshape(4, 4)})["y"].mean())
"""
WEIGHTS = {"source": "pytorch", "entrypoint": "net:build", "weights": "net.safetensors"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a small network, its file, and weights of another training."""
    root = tmp_path_factory.mktemp("made-from")
    (root / "pyproject.toml").touch()
    (root / "net.py").write_text(CODE)
    generator = np.random.default_rng(0)
    shapes = {"0.weight": (8, 4), "0.bias": (8,), "2.weight": (3, 8), "2.bias": (3,)}
    weights = {name: generator.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    save_file(weights, root / "net.safetensors")
    save_file({name: np.zeros_like(value) for name, value in weights.items()}, root / "other.safetensors")
    nodes = [
        helper.make_node("Gemm", ["x", "0.weight", "0.bias"], ["h"], transB=1),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "2.weight", "2.bias"], ["y"], transB=1),
    ]
    given, made = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size]) for name, size in (("x", 4), ("y", 3))
    )
    stored = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "net", [given], [made], initializer=stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), root / "net.onnx")
    return root


def build(ortc: Compiler, project: Path, output: Path, *options: str, reference: Any = None) -> Build:
    document = {
        "apiVersion": "ortc/v1alpha1",
        "kind": "ModelDeployment",
        "name": "net",
        "version": "1.0.0",
        "model": {"source": "onnx", "path": "net.onnx", **({} if reference is None else {"reference": reference})},
        "export": {"dynamic_axes": {"batch": {"max": 4}}},
        "accuracy": {"metric": {"entrypoint": "net:mean", "max_drop": 0.001}},
        "targets": {"cpu": {"precision": "fp32"}},
    }
    path = project / "net.yaml"
    path.write_text(json.dumps(document), "utf-8")
    return ortc.build(path, *PLAIN, *options, output=output, cwd=project)


def test_a_file_is_judged_against_the_model_that_it_was_made_from(
    ortc: Compiler, project: Path, tmp_path: Path
) -> None:
    reference = {"model": WEIGHTS}
    built = build(ortc, project, tmp_path, reference=reference)
    bundle = built.succeeded().bundle("net", "cpu")
    (target,) = built.report("net")["targets"]
    assert {"max_abs", "metric"} <= {verdict["gate"] for verdict in target["verdicts"]}
    # Where there is a model in PyTorch, it is raced.
    assert target["numbers"]["speedup"] is not None
    (statement,) = (bundle / "attestations").glob("*.json")
    assert '"reference/net.safetensors"' in statement.read_text("utf-8")

    command = [sys.executable, "-m", "ortc", "lock", "net.yaml", "-o", str(tmp_path)]
    subprocess.run(command, cwd=project, env=ortc.environment(), capture_output=True, check=True)
    assert "reference/net.safetensors" in (project / "ortc.lock").read_text("utf-8")

    weights = ("--set", "model.reference.model.weights=other.safetensors")
    said = build(ortc, project, tmp_path, *weights, reference=reference).failed(5)
    assert "differs from the PyTorch model that it was made from" in said
    said = build(ortc, project, tmp_path, reference={**reference, "outputs": ["a", "b"]}).failed(4)
    assert "the reference (`model.reference`)" in said


def test_the_file_itself_answers_a_task_metric(ortc: Compiler, project: Path, tmp_path: Path) -> None:
    built = build(ortc, project, tmp_path)
    built.succeeded()
    (target,) = built.report("net")["targets"]
    assert "metric" in {verdict["gate"] for verdict in target["verdicts"]}
    assert target["numbers"]["speedup"] is None
