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

from ortc.passes.quantization.layers import LAYERS, emit, find_layers

Array = NDArray[np.float32]
INPUTS, HIDDEN = 6, 8
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def normal(*shape: int) -> Array:
    return (np.random.default_rng(sum(shape)).standard_normal(shape) / 2).astype(np.float32)


def recurrent(operator: str, directions: int = 1, inputs: str = "x w r b", outputs: str = "y") -> onnx.ModelProto:
    rows = GATES[operator] * HIDDEN
    direction = "bidirectional" if directions == 2 else "forward"
    constants = {
        "w": normal(directions, rows, INPUTS),
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
            "x": ["steps", "batch", INPUTS],
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
