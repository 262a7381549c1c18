"""Shape arithmetic in real graphs, as they ship and as ONNX Runtime makes them over: the same nodes, the same names."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import onnxruntime as ort
import pytest

from ortc.stages.rewrite import rewrite
from ortc.stages.shapes import shape_nodes

pytestmark = pytest.mark.integration
LEVELS = ("ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL")


def optimized(model: Path, level: str, output: Path) -> ir.Model:
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    options.optimized_model_filepath = str(output)
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return ir.load(output)


def named(model: ir.Model) -> set[tuple[str, str]]:
    return {(operator, name) for operator, names in shape_nodes(model).items() for name in names}


@pytest.mark.parametrize("form", ["plain", "fused"])
@pytest.mark.parametrize("name", ["bert", "roberta", "clip", "vit"])
def test_onnxruntime_keeps_the_names_of_what_computes_shapes(
    encoders: Path, tmp_path: Path, name: str, form: str
) -> None:
    graph = encoders / name / "canonical"
    if form == "fused":
        graph = tmp_path / "fused"
        graph.mkdir()
        rewrite(encoders / name / "canonical", graph, ("fuse",))
    ships = ir.load(graph / "model.onnx")
    known = named(ships)
    assert "Shape" in {operator for operator, _ in known}
    assert len(known) < len(list(ir.traversal.RecursiveGraphIterator(ships.graph))) / 4
    for level in LEVELS:
        found = named(optimized(graph / "model.onnx", level, tmp_path / f"{level}.onnx"))
        assert found, level
        assert found <= known, level
