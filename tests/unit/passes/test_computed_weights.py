"""Weights that graphs compute from constants: what becomes one constant, what stays computed, and the answers."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from numpy.typing import NDArray
from tests.support.graphs import model, node

from ortc.passes.computed_weights import fold_computed_weights


def normal(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def whole(*numbers: int) -> NDArray[np.int64]:
    return np.array(numbers, np.int64)


def of_rows(nodes: list[onnx.NodeProto], constants: dict[str, NDArray[np.generic]], opset: int = 17) -> onnx.ModelProto:
    """Rows of eight numbers times a computed weight `w` of shape (8, 6)."""
    nodes = [*nodes, node("MatMul", "x w", "y")]
    return model(nodes, {"x": ["batch", 8]}, {"y": ["batch", 6]}, constants, opset=opset)


GATES = [
    node("Slice", "v zero three axis", "first"),
    node("Slice", "v three six axis", "second"),
    node("Concat", "second first", "w", axis=1),
]
CUTS = {"zero": whole(0), "three": whole(3), "six": whole(6), "axis": whole(1)}
FOLDED = {
    "gates in another order": of_rows(GATES, {"v": normal(8, 6), **CUTS}),
    "two halves": of_rows([node("Concat", "a b", "w", axis=0)], {"a": normal(5, 6), "b": normal(3, 6)}),
    "another shape": of_rows(
        [node("Reshape", "v s", "t"), node("Transpose", "t", "w")], {"v": normal(48), "s": whole(6, 8)}
    ),
    "weight normalization": of_rows(
        [
            node("ReduceL2", "v", "n", axes=[0], keepdims=1),
            node("Div", "v n", "d"),
            node("Mul", "d g", "w"),
        ],
        {"v": normal(8, 6), "g": normal(1, 6)},
    ),
    "listed in another order than they run": of_rows(GATES[::-1], {"v": normal(8, 6), **CUTS}),
    "an old opset": of_rows(
        [node("Unsqueeze", "v", "u", axes=[0]), node("Squeeze", "u", "w", axes=[0])], {"v": normal(8, 6)}, 11
    ),
}
WIDE = 64
HALVES = [
    node("Slice", "v zero half axis", "first"),
    node("Slice", "v half all axis", "second"),
    node("Concat", "second first", "w", axis=1),
]
PLACES = {"zero": whole(0), "half": whole(WIDE // 2), "all": whole(WIDE), "axis": whole(1)}


def wide(nodes: list[onnx.NodeProto], constants: dict[str, NDArray[np.generic]], *outputs: str) -> onnx.ModelProto:
    """Rows of 64 numbers times a computed square weight `w`, whose size matters."""
    shapes = {"y": ["batch", WIDE], **{key: [WIDE, WIDE] for key in outputs}}
    return model([*nodes, node("MatMul", "x w", "y")], {"x": ["batch", WIDE]}, shapes, constants)


KEPT = {
    "read elsewhere": wide([*HALVES, node("Abs", "v", "z")], {"v": normal(WIDE, WIDE), **PLACES}, "z"),
    "read on the way": wide([*HALVES, node("Abs", "first", "z")], {"v": normal(WIDE, WIDE), **PLACES}, "z"),
    "larger than what it is made of": wide([node("Mul", "a b", "w")], {"a": normal(WIDE, 1), "b": normal(1, WIDE)}),
    "stored small": wide(
        [node("DequantizeLinear", "q s", "w")], {"q": np.ones((WIDE, WIDE), np.int8), "s": np.array(0.5, np.float32)}
    ),
    "of an input": model(
        [node("MatMul", "x w", "y"), node("Mul", "v x", "w")][::-1],
        {"x": [WIDE, WIDE]},
        {"y": [WIDE, WIDE]},
        {"v": normal(WIDE, WIDE)},
    ),
    "doubled again and again": model(
        [*(node("Concat", f"v{n} v{n}", f"v{n + 1}", axis=0) for n in range(60)), node("MatMul", "x v60", "y")],
        {"x": [1, "n"]},
        {"y": [1, 4]},
        {"v0": normal(4, 4)},
    ),
    "repeated in one node": wide(
        [node("Concat", "v " * 9, "u", axis=0), node("Slice", "u zero all first", "w")],
        {"v": normal(WIDE, WIDE), "first": whole(0), **PLACES},
    ),
    # ONNX Runtime gives the first row; ONNX's reference gives none.
    "begins before its tensor": of_rows(
        [node("Slice", "v far further axis back", "row"), node("Concat", "u row", "w", axis=0)],
        {
            "v": normal(8, 6),
            "u": normal(7, 6),
            "far": whole(-100),
            "further": whole(-200),
            "axis": whole(0),
            "back": -whole(1),
        },
    ),
    # ONNX's reference cannot flatten it.
    "empty on the way": of_rows(
        [node("Flatten", "none", "flat"), node("Concat", "flat v", "w", axis=0)],
        {"v": normal(8, 6), "none": np.zeros((0, 6), np.float32)},
    ),
    # The greatest of these is another number in ONNX Runtime and in ONNX's reference.
    "not a number": of_rows(
        [node("ReduceMax", "v", "most", axes=[0], keepdims=1), node("Add", "most u", "w")],
        {"v": np.full((8, 6), np.nan, np.float32), "u": normal(8, 6)},
    ),
    "ill-formed": of_rows([node("Reshape", "v s", "w")], {"v": normal(8, 6), "s": whole(5, 7)}),
    "waiting for itself": of_rows([node("Add", "v w", "u"), node("Add", "u v", "w")], {"v": normal(8, 6)}),
}


@pytest.mark.parametrize("name", FOLDED)
def test_what_constants_alone_decide_is_computed_once(name: str) -> None:
    graph = ir.from_proto(FOLDED[name])
    size = sum(value.const_value.nbytes for value in graph.graph.initializers.values() if value.const_value)
    assert fold_computed_weights(graph) == 1
    assert [found.op_type for found in graph.graph] == ["MatMul"]
    assert list(graph.graph.initializers) == ["w"]
    folded = ir.to_proto(graph)
    onnx.checker.check_model(folded, full_check=True)
    assert sum(len(tensor.raw_data) for tensor in folded.graph.initializer) <= size
    x = {"x": normal(3, 8)}
    answers = [
        onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, x)[0]
        for proto in (FOLDED[name], folded)
    ]
    np.testing.assert_allclose(answers[1], answers[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", KEPT)
def test_what_would_grow_or_varies_stays(name: str) -> None:
    graph = ir.from_proto(KEPT[name])
    assert fold_computed_weights(graph) == 0
    after = ir.to_proto(graph).graph
    assert (after.node, after.initializer) == (KEPT[name].graph.node, KEPT[name].graph.initializer)
