"""LSTM on integers, and weights of GRU, RNN and ConvTranspose as integers: answers, sizes, names that stay."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from numpy.typing import NDArray
from tests.support.graphs import model, node

from ortc.common.errors import NotApplicable
from ortc.passes.quantization.data_free import emit_integers, name_nodes, smooth
from ortc.passes.quantization.layers import LAYERS, emit, find_layers
from ortc.passes.quantization.weight_only import round_blocks

Array = NDArray[np.float32]
INPUTS, HIDDEN = 6, 8
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def normal(*shape: int) -> Array:
    return (np.random.default_rng(sum(shape)).standard_normal(shape) / 2).astype(np.float32)


def recurrent(
    operator: str, directions: int = 1, inputs: str = "x w r b", outputs: str = "y", features: int = INPUTS
) -> onnx.ModelProto:
    rows = GATES[operator] * HIDDEN
    direction = "bidirectional" if directions == 2 else "forward"
    constants = {
        "w": normal(directions, rows, features),
        "r": normal(directions, rows, HIDDEN),
        "b": normal(directions, 2 * rows),
        "p": normal(directions, 3 * HIDDEN),
    }
    return model(
        [
            onnx.helper.make_node(
                operator, inputs.split(" "), outputs.split(" "), hidden_size=HIDDEN, direction=direction
            )
        ],
        {
            "x": ["steps", "batch", features],
            **({"h": [directions, "batch", HIDDEN], "c": [directions, "batch", HIDDEN]} if " h c" in inputs else {}),
        },
        {
            **({"y": ["steps", directions, "batch", HIDDEN]} if outputs.startswith("y") else {}),
            **{name: [directions, "batch", HIDDEN] for name in outputs.split(" ")[1:] if name},
        },
        {name: constants[name] for name in constants if name in inputs.split(" ")},
    )


def transposed(group: int) -> onnx.ModelProto:
    weights = {"w": normal(4, 6 // group, 3, 3), "b": normal(6)}
    found = node("ConvTranspose", "x w b", "y", strides=[2, 2], group=group)
    return model([found], {"x": ["batch", 4, 5, 5]}, {"y": ["batch", 6, None, None]}, weights)


def run(graph: onnx.ModelProto, batch: int = 2) -> list[Any]:
    onnx.checker.check_model(graph, full_check=False)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    random = np.random.default_rng(3)
    sizes = {"steps": 5, "batch": batch}
    feeds = {
        value.name: random.standard_normal([sizes.get(size, size) for size in value.shape]).astype(np.float32)
        for value in session.get_inputs()
    }
    return list(session.run(None, feeds))


GRAPHS = {
    "LSTM": recurrent("LSTM"),
    "LSTM, both directions": recurrent("LSTM", 2),
    "LSTM, states in and out": recurrent("LSTM", 2, "x w r b  h c", "y hn cn"),
    "LSTM, last states alone": recurrent("LSTM", 1, "x w r", " hn cn"),
    "LSTM, peepholes": recurrent("LSTM", 1, "x w r b    p"),
    "GRU": recurrent("GRU"),
    "GRU, both directions": recurrent("GRU", 2),
    "RNN": recurrent("RNN"),
    "ConvTranspose": transposed(1),
    "ConvTranspose, groups": transposed(2),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_answers_stay_close_and_weights_become_a_quarter(name: str) -> None:
    graph = ir.from_proto(GRAPHS[name])
    before = {key: value.const_value.nbytes for key, value in graph.graph.initializers.items() if value.const_value}
    assert emit(graph, LAYERS) == 1
    rounded = ir.to_proto(graph)
    for wanted, found in zip(run(GRAPHS[name]), run(rounded), strict=True):
        assert wanted.shape == found.shape
        error = np.abs(wanted - found).max() / np.abs(wanted).max()
        assert 0 < error < 0.05
    kept = {value.name: value.const_value for value in graph.graph.initializers.values()}
    assert "w" not in kept
    integers = [tensor for tensor in kept.values() if tensor is not None and tensor.name.endswith("_quantized")]
    assert {str(tensor.dtype) for tensor in integers} == {"INT8"}
    assert sum(tensor.nbytes for tensor in integers) * 4 == sum(before[key] for key in before if key in "wr")


def test_a_weight_of_two_layers_is_stored_once() -> None:
    weights = {"w": normal(1, 32, HIDDEN), "r": normal(1, 32, HIDDEN)}
    nodes = [
        node("LSTM", "x w r", "a", hidden_size=HIDDEN, name="first"),
        node("Squeeze", "a axis", "s"),
        node("LSTM", "s w r", "y", hidden_size=HIDDEN, name="second"),
    ]
    constants = {**weights, "axis": np.array([1], np.int64)}
    proto = model(nodes, {"x": ["steps", "batch", HIDDEN]}, {"y": ["steps", 1, "batch", HIDDEN]}, constants)
    graph = ir.from_proto(proto)
    assert emit(graph, ("LSTM",)) == 2
    assert sorted(name for name in graph.graph.initializers if name.endswith("_quantized")) == [
        "r_quantized",
        "w_quantized",
    ]
    assert np.abs(run(proto)[0] - run(ir.to_proto(graph))[0]).max() < 0.05


def test_what_is_excluded_or_varies_stays() -> None:
    graph = ir.from_proto(GRAPHS["GRU"])
    (layer,) = find_layers(graph, LAYERS)
    assert (emit(graph, LAYERS, exclude={layer.name}), emit(graph, ("MatMul", "LSTM"))) == (0, 0)
    assert "w" in graph.graph.initializers
    nodes = [node("LSTM", "x w r", "y", hidden_size=HIDDEN)]
    variable = model(
        nodes,
        {"x": ["steps", "batch", 6], "w": [1, 32, 6]},
        {"y": ["steps", 1, "batch", HIDDEN]},
        {"r": normal(1, 32, HIDDEN)},
    )
    assert list(find_layers(ir.from_proto(variable), LAYERS)) == []


def empty(operator: str, rows: int, columns: int) -> onnx.ModelProto:
    inputs = {"MatMul": "x w", "Gemm": "x w", "Gather": "w x"}[operator]
    return model(
        [node(operator, inputs, "y")],
        {"x": ["batch"] if operator == "Gather" else ["batch", rows]},
        {"y": ["batch", columns]},
        {"w": np.zeros((rows, columns), np.float32)},
        dtypes={"x": onnx.TensorProto.INT64} if operator == "Gather" else None,
    )


EMPTY = {
    "LSTM without inputs": recurrent("LSTM", features=0),
    "GRU without inputs": recurrent("GRU", features=0),
    "RNN without inputs": recurrent("RNN", features=0),
    "MatMul without rows": empty("MatMul", 0, 4),
    "MatMul without columns": empty("MatMul", 32, 0),
    "Gemm without rows": empty("Gemm", 0, 4),
    "MatMul without columns after a LayerNormalization": model(
        [node("LayerNormalization", "x g", "n"), node("MatMul", "n w", "y")],
        {"x": ["batch", 8]},
        {"y": ["batch", 0]},
        {"g": np.ones(8, np.float32), "w": np.zeros((8, 0), np.float32)},
    ),
    "a table without columns": empty("Gather", 32, 0),
}


@pytest.mark.parametrize("bits", [0, 4, 8])
@pytest.mark.parametrize("name", EMPTY)
def test_weights_without_numbers_stay(name: str, bits: int) -> None:
    graph = ir.from_proto(EMPTY[name])
    name_nodes(graph)
    assert smooth(graph) == emit_integers(graph, ("MatMul", "Gemm", "Gather", *LAYERS), bits, (), ()) == 0
    assert ir.to_proto(graph).graph.initializer == EMPTY[name].graph.initializer


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["LSTM", "GRU", "RNN", "ConvTranspose"])
def test_weights_with_numbers_that_are_not_finite_are_refused_by_name(name: str, number: float) -> None:
    graph = ir.from_proto(GRAPHS[name])
    weight = graph.graph.initializers["w"]
    assert weight.const_value is not None
    numbers = weight.const_value.numpy().copy()
    numbers.flat[3] = number
    weight.const_value = ir.tensor(numbers, name="w")
    with pytest.raises(NotApplicable, match="the weight `w` has numbers that are not finite"):
        emit(graph, LAYERS)


def test_blocks_with_numbers_that_are_not_finite_are_refused_by_name() -> None:
    matrix = normal(32, 4)
    matrix[5, 1] = np.nan
    with pytest.raises(NotApplicable, match="the weight `w` has numbers that are not finite"):
        round_blocks("w", matrix, 4)


def test_unused_constants_that_callers_can_replace_stay() -> None:
    proto = recurrent("LSTM")
    proto.graph.initializer.append(onnx.numpy_helper.from_array(normal(2), "other"))
    proto.graph.input.append(onnx.helper.make_tensor_value_info("other", onnx.TensorProto.FLOAT, [2]))
    graph = ir.from_proto(proto)
    emit(graph, LAYERS)
    assert "other" in graph.graph.initializers
