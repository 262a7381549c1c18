"""What ONNX Runtime fuses in exported transformers, and that they go on answering as PyTorch does."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from tests.support.passes import rewrite_files

from ortc.common.arrays import Arrays, read_arrays

pytestmark = pytest.mark.integration

LAYERS = 2


def session(path: Path, optimized: Path | None = None) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def fused(path: Path, scratch: Path) -> Counter[str]:
    """Operators that ONNX Runtime runs in place of the graph's."""
    session(path, scratch / "optimized.onnx")
    return Counter(node.op_type for node in onnx.load(scratch / "optimized.onnx").graph.node)


def answers(path: Path, inputs: Arrays) -> list[np.ndarray]:
    return list(session(path).run(None, inputs))


def test_without_help_no_gelu_is_fused(encoders: Path, tmp_path: Path) -> None:
    found = fused(encoders / "bert" / "raw.onnx", tmp_path)
    assert (found["Erf"], found["Gelu"] + found["BiasGelu"]) == (LAYERS, 0), "the exporter needs no help any more"


@pytest.mark.parametrize("name", ["bert", "vit"])
def test_gelu_is_fused_in_every_layer(encoders: Path, tmp_path: Path, name: str) -> None:
    canonical = encoders / name / "canonical" / "model.onnx"
    found = fused(canonical, tmp_path)
    # With the bias before it.
    assert (found["Erf"], found["BiasGelu"]) == (0, LAYERS)
    inputs = read_arrays(encoders / name / "inputs.npz")
    expected = read_arrays(encoders / name / "outputs.npz")
    for actual, wanted in zip(answers(canonical, inputs), expected.values(), strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "operator"), [("roberta", "FastGelu"), ("clip", "QuickGelu")])
def test_other_activations_are_fused_as_they_are(encoders: Path, tmp_path: Path, name: str, operator: str) -> None:
    assert fused(encoders / name / "canonical" / "model.onnx", tmp_path)[operator] == LAYERS


@pytest.mark.parametrize("name", ["bert", "roberta", "vit", "clip"])
def test_projections_are_merged_in_every_layer(encoders: Path, tmp_path: Path, name: str) -> None:
    canonical = encoders / name / "canonical"
    assert rewrite_files(canonical, tmp_path, ("merge-projections",)) == {"merge-projections": LAYERS}
    graph = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(graph, full_check=True)
    count = Counter(node.op_type for node in graph.graph.node)
    before = Counter(node.op_type for node in onnx.load(canonical / "model.onnx").graph.node)
    assert before["MatMul"] - count["MatMul"] == 2 * LAYERS
    inputs = read_arrays(encoders / name / "inputs.npz")
    expected = read_arrays(encoders / name / "outputs.npz")
    for actual, wanted in zip(answers(tmp_path / "model.onnx", inputs), expected.values(), strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=1e-4, atol=1e-5)
