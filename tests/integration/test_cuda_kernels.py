"""The table of CUDA's kernels, and what is foreseen with it, against the provider itself: over stand-ins for CUDA."""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper
from tests.support.stand_ins import build_stand_ins, cuda_provider, placements

from ortc.common.resources import data_dir, targets_dir
from ortc.passes.kernel_tables import kernels
from ortc.passes.placement import foresee

pytestmark = pytest.mark.integration

PACKAGE, VERSION = "onnxruntime-gpu", "1.31.1"
PROVIDER, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
OPSETS = (17, 20)
TYPES = ("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE", "INT64", "INT32", "INT8", "BOOL")
LEAST = 300
"""Graphs of one operator that ONNX Runtime loads; fewer would be a broken test."""


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    cuda_provider()
    if importlib.metadata.version(PACKAGE) != VERSION:
        pytest.skip(f"the table is of {PACKAGE} {VERSION}, another one is installed")


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_stand_ins(tmp_path_factory.mktemp("stand-ins"))


@pytest.mark.usefixtures("stand_ins")
def test_the_table_is_what_the_installed_provider_registers() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(targets_dir()))
        generator = importlib.import_module("generate_kernels")
        found = generator.to_json(generator.table(VERSION))
    assert found == (data_dir() / "kernels" / f"{PACKAGE}-{VERSION}.json").read_text("utf-8")


def schemas(opset: int) -> Iterator[onnx.defs.OpSchema]:
    """Operators of one or two tensors of the same type as what they give, without attributes that must be said."""
    for name in sorted({schema.name for schema in onnx.defs.get_all_schemas_with_history() if schema.domain == ""}):
        if not onnx.defs.has(name, opset):
            continue
        schema = onnx.defs.get_schema(name, opset)
        required = [attribute for attribute in schema.attributes.values() if attribute.required]
        kinds = {value.type_str for value in (*schema.inputs[: schema.min_input], *schema.outputs[:1])}
        if not schema.deprecated and schema.min_input in (1, 2) and len(kinds) == 1 and not required:
            yield schema


def graphs(opset: int) -> Iterator[onnx.ModelProto]:
    """A graph of one node for every such operator and type."""
    for schema in schemas(opset):
        allowed = {
            kind for one in schema.type_constraints for kind in one.allowed_type_strs if kind.startswith("tensor(")
        }
        for dtype in TYPES:
            if f"tensor({dtype.lower()})" not in allowed:
                continue
            names = [f"x{index}" for index in range(schema.min_input)]
            node = helper.make_node(schema.name, names, ["y"], name="node")
            inputs = [helper.make_tensor_value_info(name, TensorProto.DataType.Value(dtype), [3, 3]) for name in names]
            output = helper.make_tensor_value_info("y", TensorProto.DataType.Value(dtype), None)
            graph = helper.make_graph([node], "one", inputs, [output])
            yield helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


@pytest.mark.parametrize("opset", OPSETS)
def test_what_is_foreseen_of_an_operator_is_what_the_provider_does(opset: int, stand_ins: Path, tmp_path: Path) -> None:
    table = kernels(PACKAGE, VERSION, PROVIDER)
    assert table is not None
    models = list(graphs(opset))
    paths = [tmp_path / f"{index}.onnx" for index in range(len(models))]
    for model, path in zip(models, paths, strict=True):
        onnx.save(model, path)
    wrong, looked_at, on_cpu = [], 0, 0
    for model, placement in zip(models, placements(paths, stand_ins), strict=True):
        if placement is None:
            # Neither provider has a kernel.
            continue
        looked_at += 1
        foreseen = bool(foresee(ir.from_proto(model), table).cpu_nodes)
        on_cpu += bool(placement.get(CPU))
        if foreseen != bool(placement.get(CPU)):
            node = model.graph.node[0]
            dtype = TensorProto.DataType.Name(model.graph.input[0].type.tensor_type.elem_type)
            wrong.append(f"{node.op_type} {dtype}: foreseen {foreseen}, {placement}")
    assert not wrong
    assert looked_at > LEAST
    assert 0 < on_cpu < looked_at
