"""Fusing: what is folded into weights, which operators are let through, and what is left alone."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.reference
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from ortc.common.errors import NotApplicable
from ortc.passes import fusion as stage
from ortc.passes.canonical import write
from ortc.passes.fusion import _join_constants, fuse

SIZE = 8
RANDOM = np.random.default_rng(5)
X = RANDOM.standard_normal((2, 3, SIZE)).astype(np.float32)
TENSORS = {
    "w": RANDOM.standard_normal((SIZE, SIZE)).astype(np.float32),
    "v": RANDOM.standard_normal((SIZE, SIZE)).astype(np.float32),
    "b": RANDOM.standard_normal(SIZE).astype(np.float32),
    "half": np.array(0.5, np.float32),
    "one": np.array(1, np.float32),
    "root": np.array(math.sqrt(2), np.float32),
}


def node(operator: str, inputs: str, outputs: str, **attributes: Any) -> NodeProto:
    return helper.make_node(operator, inputs.split(), outputs.split(), name=f"{operator}_{outputs}", **attributes)


def make(nodes: list[NodeProto], *names: str) -> ir.Model:
    used = {name for entry in nodes for name in entry.input}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "sequence", SIZE])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names or ("y",)],
        [numpy_helper.from_array(array, name) for name, array in TENSORS.items() if name in used],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return ir.from_proto(onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True))


BIASED_GELU = [
    node("MatMul", "x w", "z"),
    node("Add", "z b", "a"),
    node("Div", "a root", "scaled"),
    node("Erf", "scaled", "erf"),
    node("Add", "erf one", "gate"),
    node("Mul", "a gate", "product"),
    node("Mul", "product half", "y"),
]


def test_a_bias_and_its_activation(tmp_path: Path) -> None:
    model = make(BIASED_GELU)
    expected = onnx.reference.ReferenceEvaluator(ir.to_proto(model)).run(None, {"x": X})[0]
    assert fuse(model) == 1
    assert [entry.op_type for entry in model.graph] == ["MatMul", "BiasGelu"]
    write(model, tmp_path)
    session = ort.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"x": X})[0], expected, atol=1e-5)
    # What is fused already is not counted again.
    assert fuse(model) == 0


def test_an_operator_that_cuda_may_lack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "FUSED", stage.FUSED - {"BiasGelu"})
    with pytest.raises(NotApplicable, match="`BiasGelu`, which CUDA does not run"):
        fuse(make(BIASED_GELU))


def test_weights_are_joined_whatever_their_size(tmp_path: Path) -> None:
    nodes = [
        node("Concat", "w v", "joined", axis=-1),
        node("Transpose", "joined", "turned", perm=[1, 0]),
        node("Transpose", "turned", "back"),
        node("MatMul", "x back", "y"),
    ]
    model = make(nodes)
    expected = X @ np.concatenate([TENSORS["w"], TENSORS["v"]], axis=1)
    _join_constants(model)
    assert Counter(entry.op_type for entry in model.graph) == {"MatMul": 1}
    assert list(model.graph.initializers) == ["back"]
    write(model, tmp_path)
    session = ort.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"x": X})[0], expected, rtol=1e-5, atol=1e-5)


def test_what_is_no_constant_is_not_joined() -> None:
    nodes = [
        node("Concat", "x x", "twice", axis=0),
        node("Transpose", "w", "y", perm=[1, 0]),
        node("Concat", "w v", "joined", axis=0),
        node("Relu", "joined", "z"),
    ]
    model = make(nodes, "y", "z", "twice")
    _join_constants(model)
    # One reads the input, one is an output; the last is a constant, and its parts are no weights any more.
    assert [entry.op_type for entry in model.graph] == ["Concat", "Transpose", "Relu"]
    assert sorted(model.graph.initializers) == ["joined", "w"]
