"""Embeddings as one operator: what is recognized, what is left alone, and that the answers stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from ortc.passes.canonical import write
from ortc.passes.embedding_fusion import embeddings

SIZE, WORDS, LONGEST = 8, 11, 6
RANDOM = np.random.default_rng(9)
TENSORS: dict[str, Any] = {
    "words": RANDOM.standard_normal((WORDS, SIZE)).astype(np.float32),
    "places": RANDOM.standard_normal((LONGEST, SIZE)).astype(np.float32),
    "kinds": RANDOM.standard_normal((2, SIZE)).astype(np.float32),
    "scale": RANDOM.standard_normal(SIZE).astype(np.float32),
    "shift": RANDOM.standard_normal(SIZE).astype(np.float32),
    "counted": np.arange(LONGEST)[None],
    "shuffled": np.roll(np.arange(LONGEST), 1)[None],
    "zero": np.array([0]),
    "one": np.array([1]),
}
IDS = {"ids": RANDOM.integers(0, WORDS, (3, 5)), "types": RANDOM.integers(0, 2, (3, 5))}


def node(operator: str, inputs: str, outputs: str, **attributes: Any) -> NodeProto:
    return helper.make_node(operator, inputs.split(), outputs.split(), name=f"{operator}_{outputs}", **attributes)


def graph(*, places: str = "counted", types: bool = True) -> ir.Model:
    """Words, kinds and places, looked up, added and normalized; the constant `places` holds the positions."""
    nodes = [
        node("Shape", "ids", "length", start=1, end=2),
        node("Slice", f"{places} zero length one", "at"),
        node("Gather", "words ids", "word"),
        node("Gather", "places at", "place"),
        node("Gather", "kinds types", "kind"),
        node("Add", "word kind", "both") if types else node("Add", "word place", "sum"),
        *([node("Add", "both place", "sum")] if types else []),
        node("LayerNormalization", "sum scale shift", "z", axis=-1, epsilon=1e-6),
        node("Identity", "z", "y"),
    ]
    if not types:
        nodes = [entry for entry in nodes if entry.output[0] != "kind"]
    used = {name for entry in nodes for name in entry.input}
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, TensorProto.INT64, ["batch", "sequence"]) for n in IDS if n in used],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in TENSORS.items() if name in used],
    )
    proto = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True))


def answer(model: ir.Model, place: Path) -> Any:
    place.mkdir()
    write(model, place)
    onnx.checker.check_model(str(place / "model.onnx"))
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(place / "model.onnx", options, providers=["CPUExecutionProvider"])
    return session.run(None, {entry.name: IDS[entry.name] for entry in session.get_inputs()})[0]


@pytest.mark.parametrize("types", [True, False])
@pytest.mark.parametrize("places", ["counted", "shuffled"])
def test_tables_and_their_normalization_are_one(tmp_path: Path, places: str, types: bool) -> None:
    wanted = answer(graph(places=places, types=types), tmp_path / "before")
    model = graph(places=places, types=types)
    assert embeddings(model) == 1
    found = {entry.op_type: entry for entry in model.graph}
    made = found["EmbedLayerNormalization"]
    # Positions that count from zero are what the operator takes by itself; others are given.
    assert (len(made.inputs) == 9) == (places == "shuffled")
    assert (made.inputs[1] is None) == (not types)
    assert not {"Gather", "Add", "LayerNormalization"} & found.keys()
    assert ("Slice" in found) == ("Shape" in found) == (places == "shuffled")
    assert set(model.graph.initializers) >= {"words", "places", "scale", "shift"}
    assert "counted" not in model.graph.initializers
    np.testing.assert_allclose(answer(model, tmp_path / "after"), wanted, atol=1e-5)
    assert embeddings(model) == 0


def test_what_others_read_stays() -> None:
    """A sum that has another reader is no part of it, and neither is a normalization that is an answer itself."""
    model = graph()
    total = next(entry for entry in model.graph if entry.outputs[0].name == "sum")
    model.graph.outputs.append(total.outputs[0])
    assert embeddings(model) == 0
    ending = graph()
    ending.graph.outputs[0] = next(entry for entry in ending.graph if entry.op_type == "LayerNormalization").outputs[0]
    assert embeddings(ending) == 0


def test_a_table_that_is_computed_is_none() -> None:
    model = graph()
    words = model.graph.initializers["words"]
    negated = ir.node("Neg", [words], outputs=[ir.Value(name="computed", shape=words.shape, type=words.type)])
    gather = next(entry for entry in model.graph if entry.inputs[0] is words)
    model.graph.insert_before(gather, negated)
    gather.replace_input_with(0, negated.outputs[0])
    assert embeddings(model) == 0
