"""The table of CUDA's kernels, and what is foreseen of a graph with it."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from ortc.passes.kernel_tables import Kernel, Kernels, counted, kernels, own_operators
from ortc.passes.placement import foresee

CUDA = "CUDAExecutionProvider"


@pytest.fixture(scope="module")
def cuda() -> Kernels:
    found = kernels("onnxruntime-gpu", "1.31.1", CUDA)
    assert found is not None
    return found


def graph(*nodes: Any, opset: int = 17, dtype: int = TensorProto.FLOAT, gives: int | None = None) -> ir.Model:
    """From `x` [batch, 4] of a type to `y`."""
    x = helper.make_tensor_value_info("x", dtype, ["batch", 4])
    y = helper.make_tensor_value_info("y", dtype if gives is None else gives, None)
    constants = [helper.make_tensor("two", TensorProto.INT64, [2], [2, 2])]
    made = helper.make_graph(list(nodes), "graph", [x], [y], constants)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return ir.from_proto(helper.make_model(made, opset_imports=opsets, ir_version=10))


def left(model: ir.Model, table: Kernels) -> list[tuple[str, tuple[str, ...]]]:
    return [(node.operator, node.types) for node in foresee(model, table).cpu_nodes]


def test_an_open_range_of_versions_is_for_its_first_alone() -> None:
    kernel = {"inputs": ("T",), "outputs": ("T",), "types": ({"T": "float"},)}
    closed, open_ = Kernel(since=13, until=16, **kernel), Kernel(since=17, until=None, **kernel)
    assert [closed.serves(version) for version in (12, 13, 16, 17)] == [False, True, True, False]
    assert [open_.serves(version) for version in (16, 17, 18)] == [False, True, False]


def test_types_that_go_together_go_together() -> None:
    kernel = Kernel(
        since=1,
        until=None,
        inputs=("T1", None, "T2"),
        outputs=("T1",),
        types=({"T1": "float", "T2": "bool"}, {"T1": "float16 double", "T2": "int64"}),
    )
    assert kernel.takes(["float", "string", "bool"], ["float"])
    assert kernel.takes(["double", None, "int64"], ["double"])
    assert not kernel.takes(["float", "string", "int64"], ["float"])
    # The last input's constraint holds for what follows, too; what nobody knows may be anything.
    assert not kernel.takes(["float", None, "bool", "int64"], [])
    assert kernel.takes([None, None, "int64", None], [None])


@pytest.mark.parametrize("dtype", ["float", "float16", "bfloat16"])
@pytest.mark.parametrize("operator", ["Attention", "SkipLayerNormalization", "BiasGelu", "MultiHeadAttention"])
def test_fused_operators_have_kernels_in_every_precision(cuda: Kernels, operator: str, dtype: str) -> None:
    assert cuda.has(f"com.microsoft::{operator}", 1, [dtype] * 3, [dtype])
    assert not cuda.has(f"com.microsoft::{operator}", 1, ["int64"] * 3, ["int64"])


def test_a_type_without_a_kernel_is_named_with_the_node(cuda: Kernels) -> None:
    node = helper.make_node("ArgMax", ["x"], ["y"], name="largest", axis=1)
    assert left(graph(node, gives=TensorProto.INT64), cuda) == []
    found = foresee(graph(node, dtype=TensorProto.INT32, gives=TensorProto.INT64), cuda)
    assert (found.provider, found.runtime) == (CUDA, "onnxruntime-gpu 1.31.1")
    assert [(entry.name, entry.operator, entry.types) for entry in found.cpu_nodes] == [
        ("largest", "ArgMax", ("int32",))
    ]


def test_a_type_that_the_graph_does_not_say_is_inferred(cuda: Kernels) -> None:
    cast = helper.make_node("Cast", ["x"], ["whole"], to=TensorProto.INT32)
    argmax = helper.make_node("ArgMax", ["whole"], ["y"], axis=1)
    assert left(graph(cast, argmax, gives=TensorProto.INT64), cuda) == [("ArgMax", ("int32",))]


def test_what_onnx_defines_by_others_is_taken_apart_unless_the_cpu_has_it(cuda: Kernels) -> None:
    assert left(graph(helper.make_node("Mish", ["x"], ["y"]), opset=18), cuda) == []
    assert left(graph(helper.make_node("Celu", ["x"], ["y"])), cuda) == [("Celu", ("float",))]


def test_arithmetic_on_shapes_is_no_compute(cuda: Kernels) -> None:
    """CUDA has no kernel to shift sizes, and needs none."""
    shape = helper.make_node("Shape", ["x"], ["sizes"])
    odd = helper.make_node("BitShift", ["sizes", "two"], ["y"], direction="LEFT")
    assert left(graph(shape, odd, gives=TensorProto.INT64), cuda) == []
    cast = helper.make_node("Cast", ["x"], ["sizes"], to=TensorProto.INT64)
    assert left(graph(cast, odd, gives=TensorProto.INT64), cuda) == [("BitShift", ("int64", "int64"))]


def test_an_operator_that_nobody_knows_is_named(cuda: Kernels) -> None:
    node = helper.make_node("CDist", ["x", "x"], ["y"], domain="com.microsoft")
    assert left(graph(node), cuda) == [("com.microsoft::CDist", ("float", "float"))]


@pytest.mark.parametrize(
    ("package", "version", "provider"),
    [
        ("onnxruntime", "1.31.1", "CPUExecutionProvider"),
        ("onnxruntime-gpu", "1.30.0", CUDA),
        ("onnxruntime-gpu", "1.31.1", "TensorrtExecutionProvider"),
    ],
)
def test_of_other_providers_nothing_is_known(package: str, version: str, provider: str) -> None:
    assert kernels(package, version, provider) is None


def test_onnx_runtimes_own_operators_are_told_without_their_domain() -> None:
    graph_of = {
        "MatMul": 3,
        "SimplifiedLayerNormalization": 1,
        "com.microsoft::BiasGelu": 2,
        "com.microsoft::Attention": 12,
    }
    assert counted(own_operators(graph_of)) == "12 Attention, 2 BiasGelu, 1 SimplifiedLayerNormalization"
