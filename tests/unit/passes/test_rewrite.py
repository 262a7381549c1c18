"""Rewrites change the form of a graph and none of its answers, and leave alone what they would break."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.reference
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper
from tests.support.passes import rewrite_files

from ortc.passes.gelu import gelu
from ortc.passes.rewrite import MOST_MERGED, merge_projections

SIZE = 8
X = np.random.default_rng(0).standard_normal((3, 5, SIZE)).astype(np.float32)


def node(operator: str, inputs: str, outputs: str, **attributes: Any) -> NodeProto:
    return helper.make_node(operator, inputs.split(), outputs.split(), name=f"{operator}_{outputs}", **attributes)


def weights(*names: str, columns: int = SIZE) -> dict[str, NDArray[Any]]:
    random = np.random.default_rng(7)
    return {
        name: random.standard_normal(columns if name.startswith("b") else (SIZE, columns)).astype(np.float32)
        for name in names
    }


def make(
    nodes: list[NodeProto], outputs: str, tensors: dict[str, NDArray[Any]], dtype: int = TensorProto.FLOAT
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", dtype, ["batch", "sequence", SIZE])],
        [helper.make_tensor_value_info(name, dtype, ["batch", "sequence", None]) for name in outputs.split()],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(model: onnx.ModelProto, x: NDArray[Any] = X) -> list[Any]:
    onnx.checker.check_model(model)
    return list(onnx.reference.ReferenceEvaluator(model).run(None, {"x": x}))


def apply(rewriting: Any, model: onnx.ModelProto, expected: int) -> onnx.ModelProto:
    """The rewritten model, whose answers are those of the model."""
    changed = ir.from_proto(model)
    assert rewriting(changed) == expected
    result = ir.to_proto(changed)
    for before, after in zip(run(model), run(result), strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)
    names = [value.name for part in (result.graph.input, result.graph.output) for value in part]
    assert names == [value.name for part in (model.graph.input, model.graph.output) for value in part]
    return result


def operators(model: onnx.ModelProto) -> list[str]:
    return [entry.op_type for entry in model.graph.node]


ROOT, HALF, ONE = np.float32(math.sqrt(2)), np.float32(0.5), np.float32(1)
CONSTANTS: dict[str, NDArray[Any]] = {"root": np.array(ROOT), "half": np.array(HALF), "one": np.array(ONE)}


def gelu_nodes(swapped: bool = False) -> list[NodeProto]:
    def operands(first: str, second: str) -> str:
        return f"{second} {first}" if swapped else f"{first} {second}"

    return [
        node("Div", "x root", "scaled"),
        node("Erf", "scaled", "erf"),
        node("Add", operands("erf", "one"), "gate"),
        node("Mul", operands("half", "gate"), "halved"),
        node("Mul", operands("x", "halved"), "y"),
    ]


@pytest.mark.parametrize("swapped", [False, True])
def test_gelu_is_reordered(swapped: bool) -> None:
    model = make(gelu_nodes(swapped), "y", CONSTANTS)
    result = apply(gelu, model, 1)
    # To the bit: halving rounds nothing.
    np.testing.assert_array_equal(run(result)[0], run(model)[0])
    last, inner = result.graph.node[-1], result.graph.node[-2]
    assert (list(last.input), list(inner.input)) == (["halved", "half"], ["x", "gate"])
    # What has the form already keeps it.
    assert gelu(ir.from_proto(result)) == 0


def test_gelu_with_a_product_and_constants_from_nodes() -> None:
    nodes = gelu_nodes()
    nodes[0] = node("Mul", "factor x", "scaled")
    constant = numpy_helper.from_array(np.array([0.70710677], np.float32), "factor")
    apply(gelu, make([node("Constant", "", "factor", value=constant), *nodes], "y", CONSTANTS), 1)


def test_gelu_in_half_precision() -> None:
    half = {name: array.astype(np.float16) for name, array in CONSTANTS.items()}
    changed = ir.from_proto(make(gelu_nodes(), "y", half, TensorProto.FLOAT16))
    assert gelu(changed) == 1


@pytest.mark.parametrize(
    ("constants", "outputs", "more"),
    [
        ({"half": np.array(np.float32(0.4))}, "y", []),
        ({"one": np.array(np.float32(2))}, "y", []),
        ({"root": np.array(np.float32(2))}, "y", []),
        ({"half": np.full(SIZE, HALF)}, "y", []),
        ({}, "y halved", []),
        ({}, "y z", [node("Relu", "halved", "z")]),
    ],
    ids=["not half", "not one", "not the root of two", "a vector", "halved is an output", "halved is read twice"],
)
def test_what_is_no_gelu_is_left_alone(constants: dict[str, Any], outputs: str, more: list[NodeProto]) -> None:
    model = make([*gelu_nodes(), *more], outputs, CONSTANTS | constants)
    result = apply(gelu, model, 0)
    assert list(result.graph.node) == list(model.graph.node)


def test_gelu_of_something_else_is_left_alone() -> None:
    nodes = gelu_nodes()
    nodes[-1] = node("Mul", "other halved", "y")
    apply(gelu, make([node("Relu", "x", "other"), *nodes], "y", CONSTANTS), 0)


def projections(*members: str) -> list[NodeProto]:
    """`q` multiplies x by wq; `q+b` adds bias b."""
    nodes = []
    for member in members:
        name, _, bias = member.partition("+")
        nodes.append(node("MatMul", f"x w{name}", f"{name}_product" if bias else name))
        if bias:
            nodes.append(node("Add", f"{name}_product {bias}" if name != "k" else f"{bias} {name}_product", name))
    return [*nodes, *(node("Relu", member[0], f"{member[0]}_out") for member in members)]


def test_query_key_and_value_are_merged() -> None:
    # One bias for two of them: exporters write equal tensors once.
    model = make(projections("q+b0", "k+b1", "v+b0"), "q_out k_out v_out", weights("wq", "wk", "wv", "b0", "b1"))
    result = apply(merge_projections, model, 1)
    assert operators(result) == ["MatMul", "Add", "Split", "Relu", "Relu", "Relu"]
    names = {tensor.name: list(tensor.dims) for tensor in result.graph.initializer}
    assert sorted(names.values()) == [[3], [SIZE, 3 * SIZE], [3 * SIZE]]
    assert merge_projections(ir.from_proto(result)) == 0


def test_a_missing_bias_is_zero() -> None:
    model = make(projections("q+b0", "k", "v+b1"), "q_out k_out v_out", weights("wq", "wk", "wv", "b0", "b1"))
    assert operators(apply(merge_projections, model, 1))[:3] == ["MatMul", "Add", "Split"]


def test_without_any_bias_nothing_is_added() -> None:
    model = make(projections("q", "k"), "q_out k_out", weights("wq", "wk"))
    assert operators(apply(merge_projections, model, 1)) == ["MatMul", "Split", "Relu", "Relu"]


def test_widths_may_differ() -> None:
    narrow = {"wk": weights("wk", columns=2)["wk"], "b1": weights("b1", columns=2)["b1"]}
    model = make(projections("q+b0", "k+b1"), "q_out k_out", weights("wq", "b0") | narrow)
    result = apply(merge_projections, model, 1)
    sizes = next(numpy_helper.to_array(t) for t in result.graph.initializer if t.data_type == TensorProto.INT64)
    assert sizes.tolist() == [SIZE, 2]


def test_a_product_that_several_read_is_merged_when_it_has_no_bias() -> None:
    nodes = [*projections("q", "k"), node("Sigmoid", "q", "gate")]
    assert operators(apply(merge_projections, make(nodes, "q_out k_out gate", weights("wq", "wk")), 1))[1] == "Split"


def test_each_input_has_a_group_of_its_own() -> None:
    nodes = [*projections("q", "k"), node("MatMul", "q_out wq2", "q2"), node("MatMul", "q_out wk2", "k2")]
    nodes += [node("Relu", "q2", "r2"), node("Relu", "k2", "s2")]
    model = make(nodes, "r2 s2 k_out", weights("wq", "wk", "wq2", "wk2"))
    assert Counter(operators(apply(merge_projections, model, 2)))["MatMul"] == 2


@pytest.mark.parametrize(
    ("nodes", "outputs", "tensors"),
    [
        (projections("q", "k"), "q k_out", weights("wq", "wk")),
        (projections("q+b0", "k"), "q k_out", weights("wq", "wk", "b0")),
        (projections("q+b0", "k"), "q_out q_product k_out", weights("wq", "wk", "b0")),
        (
            [*projections("q+b0", "k"), node("Relu", "q_product", "z")],
            "q_out k_out z",
            weights("wq", "wk", "b0"),
        ),
        ([*projections("q", "k"), node("MatMul", "q_out wq", "z")], "z k_out", weights("wq", "wk")),
        ([*projections("q", "k")], "q_out k_out", weights("wq") | {"wk": np.ones((3, SIZE, SIZE), np.float32)}),
        (projections(*"qkvmn"), "q_out k_out v_out m_out n_out", weights("wq", "wk", "wv", "wm", "wn")),
    ],
    ids=[
        "a product is an output",
        "a sum is an output",
        "a product before its bias is an output",
        "a product is read before its bias",
        "a weight is shared",
        "a weight has three dimensions",
        "more than a layer has",
    ],
)
def test_what_cannot_be_merged_is_left_alone(
    nodes: list[NodeProto], outputs: str, tensors: dict[str, NDArray[Any]]
) -> None:
    assert MOST_MERGED == 4
    model = make(nodes, outputs, tensors)
    assert list(apply(merge_projections, model, 0).graph.node) == list(model.graph.node)


def test_weights_that_a_caller_may_replace_are_left_alone() -> None:
    model = make(projections("q", "k"), "q_out k_out", weights("wq", "wk"))
    model.graph.input.append(helper.make_tensor_value_info("wk", TensorProto.FLOAT, [SIZE, SIZE]))
    assert merge_projections(ir.from_proto(model)) == 0


def test_a_bias_that_others_read_stays() -> None:
    nodes = [*projections("q+b0", "k+b1"), node("Add", "k_out b0", "z")]
    result = apply(merge_projections, make(nodes, "q_out z", weights("wq", "wk", "b0", "b1")), 1)
    assert "b0" in {tensor.name for tensor in result.graph.initializer}


def test_branches_are_left_alone() -> None:
    """MatMuls inside of an If stay; what an If reads from outside is still what it was."""
    branch = helper.make_graph(
        [node("MatMul", "x wk", "inner"), node("Add", "inner q", "branch")],
        "then",
        [],
        [helper.make_tensor_value_info("branch", TensorProto.FLOAT, ["batch", "sequence", None])],
    )
    other = helper.make_graph(
        [node("Identity", "q", "same")],
        "else",
        [],
        [helper.make_tensor_value_info("same", TensorProto.FLOAT, ["batch", "sequence", None])],
    )
    nodes = projections("q+b0", "v")[:3]
    nodes += [node("If", "flag", "y", then_branch=branch, else_branch=other), node("Relu", "v", "z")]
    model = make(nodes, "y z", weights("wq", "wk", "wv", "b0") | {"flag": np.array(True)})
    result = apply(merge_projections, model, 1)
    kept = next(entry for entry in result.graph.node if entry.op_type == "If")
    found = next(a.g for a in kept.attribute if a.name == "then_branch")
    assert [entry.op_type for entry in found.node] == ["MatMul", "Add"]


def test_files(tmp_path: Path) -> None:
    source, output = tmp_path / "source", tmp_path / "output"
    source.mkdir()
    output.mkdir()
    nodes = [*projections("q", "k"), *gelu_nodes()]
    model = make(nodes, "q_out k_out y", weights("wq", "wk") | CONSTANTS)
    expected = run(model)
    onnx.save(model, source / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert rewrite_files(source, output, ("gelu", "merge-projections")) == {"gelu": 1, "merge-projections": 1}
    assert [path.name for path in output.iterdir()] == ["model.onnx"]
    for before, after in zip(expected, run(onnx.load(output / "model.onnx")), strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)
    with pytest.raises(KeyError, match="merge"):
        rewrite_files(source, output, ("merge",))
