"""Classifiers of ai.onnx.ml: the bundle's numbers are those of the file, and its labels the file's names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from ortc.frontend.import_onnx import import_onnx
from ortc.frontend.ort_original import Original
from ortc.inspection.onnx_file import inspect_onnx
from ortc.inspection.onnx_interface import interface_of
from ortc.inspection.onnx_wire import read_interface
from ortc.passes.canonical import Exported
from ortc.plan.plan import AxisPlan, ExportPlan, InputPlan

STRING, FLOAT, INT64 = TensorProto.STRING, TensorProto.FLOAT, TensorProto.INT64
NAMES = ["setosa", "versicolor", "virginica"]
X = np.random.default_rng(0).standard_normal((7, 2)).astype(np.float32)


def node(operator: str, inputs: str, outputs: str, domain: str = "", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, inputs.split(), outputs.split(), domain=domain, **attributes)


def ml(operator: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    return node(operator, inputs, outputs, "ai.onnx.ml", **attributes)


def forest(**classes: Any) -> onnx.NodeProto:
    """Two leaves below one split of each of two trees, which vote for three classes."""
    return ml(
        "TreeEnsembleClassifier",
        "x",
        "label scores",
        nodes_treeids=[0, 0, 0, 1, 1, 1],
        nodes_nodeids=[0, 1, 2] * 2,
        nodes_featureids=[0, 0, 0, 1, 0, 0],
        nodes_values=[0.1, 0, 0, -0.2, 0, 0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"] * 2,
        nodes_truenodeids=[1, 0, 0] * 2,
        nodes_falsenodeids=[2, 0, 0] * 2,
        nodes_missing_value_tracks_true=[0] * 6,
        nodes_hitrates=[1.0] * 6,
        class_treeids=[0, 0, 1, 1],
        class_nodeids=[1, 2, 1, 2],
        class_ids=[0, 1, 2, 0],
        class_weights=[0.6, 0.4, 0.3, 0.7],
        post_transform="NONE",
        **classes,
    )


def linear(**classes: Any) -> onnx.NodeProto:
    weights = {"coefficients": [1.0, 0, 0, 1, -1, -1], "intercepts": [0.0, 0.1, 0.2], "multi_class": 1}
    return ml("LinearClassifier", "x", "label scores", post_transform="SOFTMAX", **weights, **classes)


CHOICE = [node("MatMul", "x w", "scores"), node("ArgMax", "scores", "best", axis=1, keepdims=0)]
W = numpy_helper.from_array(np.random.default_rng(1).standard_normal((2, 3)).astype(np.float32), "w")
TABLE = helper.make_tensor("table", STRING, [3], [name.encode() for name in NAMES])
ENCODER = ml("LabelEncoder", "best", "label", keys_int64s=[0, 1, 2], values_strings=NAMES, default_string="none")
GRAPHS: dict[str, tuple[list[onnx.NodeProto], list[onnx.TensorProto]]] = {
    "forest": ([forest(classlabels_strings=NAMES)], []),
    "linear": ([linear(classlabels_strings=NAMES)], []),
    "encoder": ([*CHOICE, ENCODER], [W]),
    "table": ([*CHOICE, ml("ArrayFeatureExtractor", "table best", "label")], [W, TABLE]),
}


def classifier(graph: str, *, zipped: bool, renamed: bool = True) -> onnx.ModelProto:
    """A classifier of strings with outputs `y` and `p`; without operators of ONNX's own domain where none is needed."""
    nodes, constants = GRAPHS[graph]
    last = [node("Identity", "label", "y")] if renamed else []
    name = "y" if renamed else "label"
    outputs = [helper.make_tensor_value_info(name, STRING, [1, None] if graph == "table" else [None])]
    if zipped:
        last.append(ml("ZipMap", "scores", "p", classlabels_strings=NAMES))
        scalar = helper.make_tensor_type_proto(FLOAT, [])
        maps = helper.make_sequence_type_proto(helper.make_map_type_proto(STRING, scalar))
        outputs.append(helper.make_value_info("p", maps))
    else:
        outputs.append(helper.make_tensor_value_info("scores", FLOAT, ["batch", 3]))
    given = [helper.make_tensor_value_info("x", FLOAT, [None, 2])]
    made = helper.make_graph([*nodes, *last], "g", given, outputs, constants)
    own = [helper.make_opsetid("", 17)] if any(not entry.domain for entry in made.node) else []
    return helper.make_model(made, opset_imports=[*own, helper.make_opsetid("ai.onnx.ml", 3)], ir_version=8)


def imported(made: onnx.ModelProto, place: Path) -> Exported:
    onnx.save(made, place / "file.onnx")
    (place / "out").mkdir()
    axes = (AxisPlan(name="batch", min=1, typical=1, max=9),)
    inputs = (InputPlan(name="x", dtype="float32", shape=("batch", 2)),)
    outputs = inspect_onnx(place / "file.onnx", "file.onnx", 20).outputs
    plan = ExportPlan(opset=17, ir_version=8, exporter="auto", axes=axes, inputs=inputs, outputs=outputs)
    return import_onnx(place / "file.onnx", plan, place / "out")


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("graph", GRAPHS)
def test_names_of_classes_become_numbers_and_maps_become_scores(graph: str, zipped: bool, tmp_path: Path) -> None:
    exported = imported(classifier(graph, zipped=zipped), tmp_path)
    label, scores = exported.outputs
    assert (label.dtype, scores.dtype) == ("int64", "float32")
    assert label.labels is not None
    assert scores.labels == (tuple(NAMES) if zipped else None)
    file = ort.InferenceSession(tmp_path / "file.onnx", providers=["CPUExecutionProvider"])
    names, given = file.run(None, {"x": X})
    graph_ = ort.InferenceSession(tmp_path / "out" / "model.onnx", providers=["CPUExecutionProvider"])
    numbers, rows = graph_.run(None, {"x": X})
    assert [label.labels[number] for number in numbers.ravel()] == names.ravel().tolist()
    assert np.array_equal(rows, [[row[name] for name in NAMES] for row in given] if zipped else given)
    # The reference gives the same numbers, from the file as it came.
    original = Original()
    kept = {output.name: list(output.labels) for output in exported.outputs if output.labels is not None}
    request = {"model": str(tmp_path / "file.onnx"), "inputs": ["x"], "outputs": ["y", scores.name], "labels": kept}
    original.load({**request, "threads": 1})
    np.savez(tmp_path / "x.npz", x=X)
    original.run({"inputs": str(tmp_path / "x.npz"), "outputs": str(tmp_path / "y.npz")})
    with np.load(tmp_path / "y.npz") as found:
        assert np.array_equal(found["y"], numbers)
        assert np.array_equal(found[scores.name], rows)


def test_classifiers_alone_need_no_opset(tmp_path: Path) -> None:
    made = classifier("forest", zipped=True, renamed=False)
    assert [entry.domain for entry in made.opset_import] == ["ai.onnx.ml"]
    assert [output.name for output in imported(made, tmp_path).outputs] == ["label", "p"]


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("graph", GRAPHS)
def test_a_file_that_is_not_parsed_says_the_same(graph: str, zipped: bool, tmp_path: Path) -> None:
    made = classifier(graph, zipped=zipped)
    onnx.save(made, tmp_path / "file.onnx")
    assert read_interface(tmp_path / "file.onnx") == interface_of(made)
    assert all(value.unusable is None for value in interface_of(made).outputs)


def test_text_that_names_no_class_stays_text(tmp_path: Path) -> None:
    values = [helper.make_tensor_value_info(name, STRING, [3]) for name in "xy"]
    made = helper.make_model(helper.make_graph([node("StringNormalizer", "x", "y")], "g", values[:1], values[1:]))
    assert [value.element for value in interface_of(made).outputs] == ["STRING"]
