"""Which nodes compute nothing but shapes: those that a placement budget does not count."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ortc.passes.shape_arithmetic import shape_nodes

INT, FLOAT = TensorProto.INT64, TensorProto.FLOAT


def node(operator: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    """A node called as its output."""
    return helper.make_node(operator, inputs.split(), [output], name=output, **attributes)


def found(
    *nodes: onnx.NodeProto,
    outputs: tuple[str, ...] = ("y",),
    inputs: dict[str, int] | None = None,
    shape: tuple[int, ...] | None = (1,),
    tensors: dict[str, NDArray[Any]] | None = None,
) -> dict[str, tuple[str, ...]]:
    """Over x [batch, 8], other inputs of a shape, tensors, and int64 constants zero, one, two."""
    numbers = {name: np.array([value], dtype=np.int64) for value, name in enumerate(("zero", "one", "two"))}
    constants = [numpy_helper.from_array(array, name) for name, array in {**numbers, **(tensors or {})}.items()]
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [
            helper.make_tensor_value_info("x", FLOAT, ["batch", 8]),
            *(helper.make_tensor_value_info(name, kind, shape) for name, kind in (inputs or {}).items()),
        ],
        [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs],
        constants,
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=10)
    return shape_nodes(ir.serde.deserialize_model(model))


SIZES = node("Shape", "x", "sizes")
HALF = (
    node("Gather", "sizes zero", "rows"),
    node("Div", "rows two", "half"),
    node("Concat", "half one", "wanted", axis=0),
)
FOLD = node("Reshape", "x wanted", "y")


def test_from_a_shape_to_a_shape() -> None:
    expected = {"Concat": ("wanted",), "Div": ("half",), "Gather": ("rows",), "Shape": ("sizes",)}
    assert found(SIZES, *HALF, FOLD) == expected


def test_a_size_that_is_computed_with_is_data_and_so_is_what_leads_to_it() -> None:
    """`rows` goes two ways: into a shape, and into the values, for which it is copied to the device."""
    scale = (node("Cast", "rows", "number", to=FLOAT), node("Div", "folded number", "y"))
    assert found(SIZES, *HALF, node("Reshape", "x wanted", "folded"), *scale) == {
        "Concat": ("wanted",),
        "Div": ("half",),
    }


def test_a_shape_that_is_an_answer_is_data() -> None:
    assert found(SIZES, *HALF, FOLD, outputs=("y", "half")) == {"Concat": ("wanted",)}


def test_what_is_computed_of_values_is_data_even_where_it_becomes_a_shape() -> None:
    longest = (node("Cast", "x", "numbers", to=INT), node("ReduceMax", "numbers", "longest", keepdims=0))
    wanted = (node("Mul", "longest one", "wanted"), FOLD)
    assert found(*longest, *wanted) == {}


@pytest.mark.parametrize(("beside", "expected"), [("sizes", {"Max": ("wanted",), "Shape": ("sizes",)}), ("one", {})])
def test_an_input_of_the_graph_counts_only_beside_a_shape(beside: str, expected: dict[str, tuple[str, ...]]) -> None:
    assert found(SIZES, node("Max", f"asked {beside}", "wanted"), FOLD, inputs={"asked": INT}) == expected


@pytest.mark.parametrize(
    ("kind", "shape", "counts"),
    [(INT, (), True), (INT, (3,), True), (INT, (2, 8), False), (FLOAT, (1,), False), (INT, None, False)],
)
def test_only_a_few_integers_of_an_input_are_a_shape(kind: int, shape: tuple[int, ...] | None, counts: bool) -> None:
    names = found(SIZES, node("Max", "asked sizes", "wanted"), FOLD, inputs={"asked": kind}, shape=shape)
    assert ("Max" in names) == counts


def test_values_that_end_as_a_shape_are_data() -> None:
    """What is computed of an input's values costs what it costs, wherever it ends."""
    chain = (
        SIZES,
        node("Gather", "sizes zero", "rows"),
        node("Cast", "rows", "number", to=FLOAT),
        node("Mul", "x number", "scaled"),
        node("MatMul", "scaled w", "product"),
        node("ReduceMax", "product", "most", keepdims=0),
        node("Cast", "most", "end", to=INT),
        node("Reshape", "end one", "wanted"),
        FOLD,
    )
    assert found(*chain, tensors={"w": np.ones((8, 1), np.float32)}) == {}


@pytest.mark.parametrize(("size", "counts"), [(100, True), (101, False)])
def test_a_table_is_data(size: int, counts: bool) -> None:
    names = found(SIZES, node("Gather", "table sizes", "wanted"), FOLD, tensors={"table": np.arange(size)})
    assert ("Gather" in names) == counts
    constant = node("Constant", "", "table", value=numpy_helper.from_array(np.arange(size)))
    assert ("Gather" in found(SIZES, constant, node("Gather", "table sizes", "wanted"), FOLD)) == counts


def test_what_computes_the_same_as_data_is_data() -> None:
    """ONNX Runtime makes one node of two that are equal, and either name may stay."""
    twice = (
        SIZES,
        node("Gather", "sizes zero", "for_data"),
        node("Gather", "sizes zero", "for_shape"),
        node("Gather", "sizes one", "other"),
        node("Cast", "for_data", "number", to=FLOAT),
        node("Concat", "for_shape other", "wanted", axis=0),
        node("Reshape", "x wanted", "folded"),
    )
    assert found(*twice, node("Div", "folded number", "y")) == {"Concat": ("wanted",), "Gather": ("other",)}


def test_the_ends_of_a_range_are_shapes_and_its_numbers_are_data() -> None:
    count = (SIZES, node("Gather", "sizes zero", "rows"), node("Squeeze", "rows zero", "end"))
    scalars = (node("Squeeze", "zero zero", "begin"), node("Squeeze", "one zero", "step"))
    numbers = (node("Range", "begin end step", "positions"), node("Cast", "positions", "number", to=FLOAT))
    expected = {"Gather": ("rows",), "Shape": ("sizes",), "Squeeze": ("end",)}
    assert found(*count, *scalars, *numbers, node("Add", "x number", "y")) == expected


def test_a_branch_may_use_a_shape() -> None:
    branches = {
        f"{name}_branch": helper.make_graph(
            [node("Reshape", "x wanted", name)], name, [], [helper.make_tensor_value_info(name, FLOAT, None)]
        )
        for name in ("then", "else")
    }
    asked = node("If", "asked", "y", **branches)
    names = found(SIZES, *HALF, asked, inputs={"asked": TensorProto.BOOL})
    assert names == {"Concat": ("wanted",), "Div": ("half",), "Gather": ("rows",), "Shape": ("sizes",)}


def test_what_a_body_gives_is_data() -> None:
    body = helper.make_graph(
        [node("Identity", "sizes", "inner")], "body", [], [helper.make_tensor_value_info("inner", INT, None)]
    )
    chosen = node("If", "asked", "wanted", then_branch=body, else_branch=body)
    assert found(SIZES, chosen, FOLD, inputs={"asked": TensorProto.BOOL}) == {}


def test_only_names_that_tell_a_node_are_names() -> None:
    nodes = [onnx.NodeProto.FromString(n.SerializeToString()) for n in (SIZES, *HALF, FOLD)]
    nodes[1].name = ""
    nodes[2].name = "twice"
    data = helper.make_node("Div", ["y", "y"], ["z"], name="twice")
    assert found(*nodes, data, outputs=("z",)) == {"Concat": ("wanted",), "Shape": ("sizes",)}


def test_operators_of_other_domains_say_so() -> None:
    same = node("QuickGelu", "sizes", "wanted", domain="com.microsoft")
    assert found(SIZES, same, FOLD) == {"Shape": ("sizes",), "com.microsoft::QuickGelu": ("wanted",)}
