"""Shape arithmetic in real graphs, as they ship and as ONNX Runtime makes them over: the same nodes, the same names."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import onnxruntime as ort
import pytest
from tests.support.passes import rewrite_files

from ortc.passes.shape_arithmetic import HOST_INPUTS, shape_nodes

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


def left_to_the_host(model: ir.Model) -> set[tuple[str, str]]:
    """What ONNX Runtime's rule takes from CUDA, in a graph that CUDA has kernels for all of.

    A node goes to the host when it reads something that is there (what Shape and Size give, and such nodes themselves),
    besides that only constants and inputs of the graph, and none of what is there by an input that its kernel reads on
    the host anyway.
    """
    given = set(model.graph.inputs)
    on_host: dict[ir.Node, bool] = {}
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        if node.op_type in ("Shape", "Size"):
            on_host[node] = False  # it runs on the device, and answers on the host
            continue
        read = [(index, value) for index, value in enumerate(node.inputs) if value is not None]
        read = [(i, v) for i, v in read if not v.is_initializer() and v not in given and not _is_constant(v)]
        beside = HOST_INPUTS.get((node.domain, node.op_type), frozenset())
        if read and all(value.producer() in on_host and index not in beside for index, value in read):
            on_host[node] = True
    return {(node.op_type, node.name or "") for node, moved in on_host.items() if moved}


def _is_constant(value: ir.Value) -> bool:
    producer = value.producer()
    return producer is not None and producer.op_type == "Constant"


@pytest.mark.parametrize("form", ["plain", "fused"])
@pytest.mark.parametrize("name", ["bert", "roberta", "clip", "vit"])
def test_onnxruntime_keeps_the_names_of_what_computes_shapes(
    encoders: Path, tmp_path: Path, name: str, form: str
) -> None:
    graph = encoders / name / "canonical"
    if form == "fused":
        graph = tmp_path / "fused"
        graph.mkdir()
        rewrite_files(encoders / name / "canonical", graph, ("fuse",))
    ships = ir.load(graph / "model.onnx")
    known = named(ships)
    assert "Shape" in {operator for operator, _ in known}
    assert len(known) < len(list(ir.traversal.RecursiveGraphIterator(ships.graph))) / 4
    # A budget of no node on the CPU can hold.
    assert left_to_the_host(ships) <= known
    for level in LEVELS:
        made_over = optimized(graph / "model.onnx", level, tmp_path / f"{level}.onnx")
        assert named(made_over), level
        assert named(made_over) <= known, level
        assert left_to_the_host(made_over) <= known, level
