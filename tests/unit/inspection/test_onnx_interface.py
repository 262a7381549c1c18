"""Inputs and outputs that no bundle can have are named, with what they are and a way out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tests.support.graphs import model, node

from ortc.common.errors import StageError
from ortc.frontend.import_onnx import import_onnx
from ortc.inspection.findings import InspectionError
from ortc.inspection.onnx_file import inspect_onnx
from ortc.passes.canonical import Exported
from ortc.plan.plan import AxisPlan, ExportPlan

LINEAR = {"x": ["batch", 2]}
ANSWER = {"y": ["batch", 2]}
TENSOR = helper.make_tensor_type_proto(TensorProto.FLOAT, ["batch", 2])


def classifier() -> onnx.ModelProto:
    """Probabilities as a tensor, and as a list of maps from class to probability."""
    zipped = node("ZipMap", "p", "m", classlabels_int64s=[0, 1])
    zipped.domain = "ai.onnx.ml"
    made = model([node("Softmax", "x", "p"), zipped], LINEAR, {"p": ["batch", 2]})
    scalar = helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    maps = helper.make_sequence_type_proto(helper.make_map_type_proto(TensorProto.INT64, scalar))
    made.graph.output.insert(0, helper.make_value_info("m", maps))
    made.opset_import.append(helper.make_opsetid("ai.onnx.ml", 1))
    return made


def other_maps() -> onnx.ModelProto:
    """Maps that no ZipMap makes."""
    made = classifier()
    made.graph.node[1].op_type = "OtherMaps"
    return made


def given(made: onnx.ModelProto, output: onnx.ValueInfoProto) -> onnx.ModelProto:
    made.graph.output[0].CopyFrom(output)
    return made


def cast(kind: int) -> onnx.ModelProto:
    return model([node("Cast", "x", "y", to=kind)], LINEAR, ANSWER, dtypes={"y": kind}, opset=19, ir_version=9)


def same(kind: int) -> onnx.ModelProto:
    return model([node("Identity", "x", "y")], LINEAR, ANSWER, dtypes={"x": kind, "y": kind})


def imported(made: onnx.ModelProto, place: Path, *outputs: str) -> Exported:
    (place / "file.onnx").write_bytes(made.SerializeToString())
    (place / "out").mkdir(exist_ok=True)
    axes = (AxisPlan(name="batch", min=1, typical=1, max=4),)
    plan = ExportPlan(opset=17, ir_version=8, exporter="auto", axes=axes, inputs=None, outputs=outputs or None)
    return import_onnx(place / "file.onnx", plan, place / "out")


UNUSABLE = {
    "maps": (other_maps(), "output `m` is a sequence of maps"),
    "sequence": (
        given(
            model([node("SequenceConstruct", "x x", "y")], LINEAR, ANSWER),
            helper.make_value_info("y", helper.make_sequence_type_proto(TENSOR)),
        ),
        "output `y` is a sequence",
    ),
    "optional": (
        given(
            model([node("Optional", "x", "y")], LINEAR, ANSWER),
            helper.make_value_info("y", helper.make_optional_type_proto(TENSOR)),
        ),
        "output `y` is an optional value",
    ),
    "untyped": (
        given(model([node("Relu", "x", "y")], LINEAR, ANSWER), onnx.ValueInfoProto(name="y")),
        "without a type",
    ),
    "bfloat16": (cast(TensorProto.BFLOAT16), "output `y` is a tensor of bfloat16"),
    "float8": (cast(TensorProto.FLOAT8E4M3FN), "output `y` is a tensor of float8e4m3fn"),
    "complex": (same(TensorProto.COMPLEX64), "input `x` is a tensor of complex64"),
    "text": (same(TensorProto.STRING), "output `y` is a tensor of text"),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_what_no_bundle_can_have_is_named(kind: str, tmp_path: Path) -> None:
    made, message = UNUSABLE[kind]
    with pytest.raises(StageError, match=message) as refused:
        imported(made, tmp_path)
    assert refused.value.help


def test_outputs_that_are_not_kept_leave_with_what_makes_them(tmp_path: Path) -> None:
    exported = imported(classifier(), tmp_path, "p")
    assert [(output.name, output.shape) for output in exported.outputs] == [("p", ("batch", 2))]
    assert exported.operators == {"Softmax": 1}


def test_a_draft_keeps_the_outputs_that_a_bundle_can_give(tmp_path: Path) -> None:
    (tmp_path / "file.onnx").write_bytes(other_maps().SerializeToString())
    draft = inspect_onnx(tmp_path / "file.onnx", "file.onnx", 26)
    assert draft.outputs == ("p",)
    assert "A bundle cannot give the others: m is a sequence of maps." in draft.notes["outputs"]
    (tmp_path / "file.onnx").write_bytes(cast(TensorProto.BFLOAT16).SerializeToString())
    said = "can give no output of the graph: y is a tensor of bfloat16; export the model again .* as outputs"
    with pytest.raises(InspectionError, match=said):
        inspect_onnx(tmp_path / "file.onnx", "file.onnx", 26)


def test_a_draft_of_a_git_lfs_pointer_says_so(tmp_path: Path) -> None:
    (tmp_path / "file.onnx").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(InspectionError, match=r"is a Git LFS pointer.*git lfs pull"):
        inspect_onnx(tmp_path / "file.onnx", "file.onnx", 26)


def test_sequences_inside_of_a_graph_are_left_alone(tmp_path: Path) -> None:
    nodes = [node("SequenceConstruct", "x x", "pair"), node("SequenceAt", "pair first", "y")]
    made = model(nodes, LINEAR, ANSWER, {"first": np.array(0)})
    assert imported(made, tmp_path).outputs[0].name == "y"
