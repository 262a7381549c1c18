"""ONNX files as canonical graphs: their own opset, their inputs with defaults, and what a conversion touches."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.reference
import pytest
from tests.support.graphs import floats, model, node

from ortc.common.errors import StageError
from ortc.frontend.import_onnx import import_onnx
from ortc.inspection.onnx_file import inspect_onnx
from ortc.passes.canonical import Conversion, Exported
from ortc.plan.checks import check_spec
from ortc.plan.plan import AxisPlan, ExportPlan, InputPlan
from ortc.spec.diagnostics.errors import SpecError
from ortc.spec.onnx_header import Header, read_header
from ortc.spec.runtimes import ir_version_for_opset

SPEC = """\
apiVersion: ortc/v1alpha1
kind: ModelDeployment
name: small
version: 1.0.0
model: {source: onnx, path: file.onnx}
export:
  dynamic_axes: {batch: {max: 4}}
targets: {cpu: {}}
"""
LINEAR = {"x": ["batch", 2]}


def scaled(**options: Any) -> onnx.ModelProto:
    """y = x * scale + shift, over two constants."""
    constants = {"scale": floats(2, 3), "shift": floats(0, 1)}
    nodes = [node("Mul", "x scale", "product"), node("Add", "product shift", "y")]
    return model(nodes, LINEAR, {"y": ["batch", 2]}, constants, **options)


def imported(made: onnx.ModelProto, place: Path, opset: int, *names: str) -> Exported:
    onnx.save(made, place / "file.onnx")
    shapes = {"x": ("batch", 2)}
    inputs = tuple(InputPlan(name=name, dtype="float32", shape=shapes.get(name, (2,))) for name in names)
    plan = ExportPlan(
        opset=opset,
        ir_version=ir_version_for_opset(opset),
        exporter="auto",
        axes=(AxisPlan(name="batch", min=1, typical=1, max=4),),
        inputs=inputs or None,
        outputs=None,
    )
    (place / "out").mkdir()
    return import_onnx(place / "file.onnx", plan, place / "out")


@pytest.mark.parametrize(("opset", "planned"), [(7, 9), (11, 11), (17, 17), (26, 26)])
def test_a_spec_without_an_opset_keeps_that_of_the_file(opset: int, planned: int, tmp_path: Path) -> None:
    onnx.save(scaled(opset=opset), tmp_path / "file.onnx")
    assert read_header(tmp_path / "file.onnx") == Header(ir_version=8, opset=opset)
    (tmp_path / "spec.yaml").write_text(SPEC)
    assert check_spec(tmp_path / "spec.yaml").loaded.spec.export.shipped_opset == planned


def test_the_opset_of_a_spec_goes_before_that_of_the_file(tmp_path: Path) -> None:
    onnx.save(scaled(opset=11), tmp_path / "file.onnx")
    (tmp_path / "spec.yaml").write_text(SPEC.replace("export:", "export:\n  opset: 13"))
    assert check_spec(tmp_path / "spec.yaml").loaded.spec.export.shipped_opset == 13


def test_a_file_whose_opset_no_runtime_reads_is_named_with_one_that_fits(tmp_path: Path) -> None:
    onnx.save(scaled(opset=28), tmp_path / "file.onnx")
    (tmp_path / "spec.yaml").write_text(SPEC)
    with pytest.raises(SpecError, match="opset 28 is not supported") as refused:
        check_spec(tmp_path / "spec.yaml")
    assert "`opset: 26`" in str(refused.value.diagnostics[0].help)


def test_opsets_of_other_domains_are_not_read(tmp_path: Path) -> None:
    made = scaled(opset=11)
    made.opset_import.insert(0, onnx.helper.make_opsetid("com.example", 99))
    made.opset_import[1].domain = "ai.onnx"
    onnx.save(made, tmp_path / "file.onnx")
    assert read_header(tmp_path / "file.onnx").opset == 11


@pytest.mark.parametrize("content", [b"", b"\xff\xff not a graph"])
def test_what_is_no_onnx_file_has_no_header(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file.onnx").write_bytes(content)
    with pytest.raises(ValueError, match=r"empty file|wire type|goes beyond|unfinished"):
        read_header(tmp_path / "file.onnx")


def test_a_file_of_endless_small_parts_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file.onnx").write_bytes(b"\x08\x08" * 8_000_000)  # ir_version: 8, again and again
    began = time.process_time()
    with pytest.raises(ValueError, match="more than 100,000 parts"):
        read_header(tmp_path / "file.onnx")
    assert time.process_time() - began < 5


def test_a_conversion_names_the_operators_that_it_touches(tmp_path: Path) -> None:
    nodes = [node("Relu", "x", "u"), node("Softmax", "u", "v", axis=1), node("Abs", "v", "y")]
    exported = imported(model(nodes, LINEAR, {"y": ["batch", 2]}, opset=11), tmp_path, 13, "x")
    assert exported.conversion == Conversion(source=11, target=13, operators=("Abs", "Relu", "Softmax"), keeps=True)
    assert exported.warnings == ("the ONNX file was converted from opset 11 to 13, which touches Abs, Relu, Softmax",)


def test_a_conversion_that_cannot_be_done_says_what_keeps_the_file(tmp_path: Path) -> None:
    names = ("scale", "bias", "mean", "variance")
    nodes = [node("BatchNormalization", "x scale bias mean variance", "y a b c d")]
    made = model(nodes, LINEAR, {"y": ["batch", 2]}, {name: floats(1, 1) for name in names}, opset=9)
    with pytest.raises(StageError, match="has opset 9 and cannot be converted to 20") as refused:
        imported(made, tmp_path, 20, "x")
    assert refused.value.help == "leave out `export.opset`, which keeps the file's own"
    assert "/" not in refused.value.message


def test_a_file_that_is_quantized_already_is_named(tmp_path: Path) -> None:
    nodes = [node("DynamicQuantizeLinear", "x", "q s z"), node("DequantizeLinear", "q s z", "y")]
    exported = imported(model(nodes, LINEAR, {"y": ["batch", 1]}), tmp_path, 17, "x")
    (warning,) = exported.warnings
    assert warning.startswith("the graph is quantized already (1 DequantizeLinear, 1 DynamicQuantizeLinear): every")


def test_inputs_with_a_default_become_constants_and_are_named(tmp_path: Path) -> None:
    exported = imported(scaled(defaults=("scale", "shift")), tmp_path, 17)
    assert [tensor.name for tensor in exported.inputs] == ["x"]
    assert exported.inputs_left_out == ("scale", "shift")
    assert "inputs with a default value that became constants: scale, shift" in exported.warnings[0]


def test_a_draft_names_inputs_with_a_default(tmp_path: Path) -> None:
    onnx.save(scaled(defaults=("scale",)), tmp_path / "file.onnx")
    draft = inspect_onnx(tmp_path / "file.onnx", "file.onnx", 26)
    assert list(draft.inputs) == ["x"]
    assert draft.notes["inputs"].endswith("\nConstants unless declared here: scale.")


def test_a_declared_input_with_a_default_stays_an_input(tmp_path: Path) -> None:
    exported = imported(scaled(defaults=("scale", "shift")), tmp_path, 17, "scale", "x")
    assert [tensor.name for tensor in exported.inputs] == ["scale", "x"]
    assert exported.inputs_left_out == ("shift",)
    made = onnx.load(tmp_path / "out" / "model.onnx")
    assert [value.name for value in made.graph.input] == ["scale", "x"]
    assert [tensor.name for tensor in made.graph.initializer] == ["shift"]
    x, scale = np.ones((1, 2), np.float32), floats(5, 7)
    (answer,) = onnx.reference.ReferenceEvaluator(made).run(None, {"x": x, "scale": scale})
    np.testing.assert_array_equal(answer, [[5, 8]])


def test_before_ir_4_initializers_are_no_inputs(tmp_path: Path) -> None:
    exported = imported(scaled(opset=8, ir_version=3), tmp_path, 9)
    assert ([tensor.name for tensor in exported.inputs], exported.inputs_left_out) == (["x"], ())


@pytest.mark.parametrize("declared", [[7, 9], ["batch", 2, 2], ["other", "batch"], [None, None], None])
def test_declared_output_shapes_are_not_believed(declared: Any, tmp_path: Path) -> None:
    made = scaled()
    made.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, declared))
    inner = onnx.helper.make_tensor_value_info("product", onnx.TensorProto.FLOAT, [3, 3])
    made.graph.value_info.append(inner)
    assert imported(made, tmp_path, 17).outputs[0].shape == ("batch", 2)


def test_the_rank_of_an_output_that_nothing_follows_for_is_the_declared_one(tmp_path: Path) -> None:
    made = model([node("Reshape", "x shape", "y")], LINEAR | {"shape": ["rank"]}, {"y": [1, 2, 4]})
    made.graph.input[1].type.tensor_type.elem_type = onnx.TensorProto.INT64
    made.graph.input[1].type.tensor_type.shape.dim[0].dim_value = 3
    exported = imported(made, tmp_path, 17)
    assert exported.outputs[0].shape == (None, None, None)


def without_type(graph: onnx.ModelProto) -> None:
    graph.graph.node[0].attribute[0].type = onnx.AttributeProto.UNDEFINED


def constant_without_type(graph: onnx.ModelProto) -> None:
    graph.graph.node[1].attribute[0].t.data_type = onnx.TensorProto.UNDEFINED


def initializer_without_type(graph: onnx.ModelProto) -> None:
    graph.graph.initializer[0].data_type = onnx.TensorProto.UNDEFINED


def size_below_zero(graph: onnx.ModelProto) -> None:
    graph.graph.initializer[0].dims[0] = -2


def without_outputs(graph: onnx.ModelProto) -> None:
    del graph.graph.node[1].output[:]


def without_opset(graph: onnx.ModelProto) -> None:
    del graph.opset_import[:]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without_type, "the attribute `axis` of Softmax `` has no type"),
        (constant_without_type, "a tensor of Constant `` has no type, or a size below 0"),
        (initializer_without_type, "the initializer `w` has no type, or a size below 0"),
        (size_below_zero, "the initializer `w` has no type, or a size below 0"),
        (without_outputs, "Constant `` has no outputs"),
        (without_opset, "the graph has opset 0 and cannot be converted"),
    ],
)
@pytest.mark.parametrize("opset", [17, 18])
def test_what_is_not_well_formed_is_refused_in_words(
    change: Callable[[onnx.ModelProto], None],
    said: str,
    opset: int,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Libraries raise errors of many kinds for it, and print tracebacks."""
    nodes = [
        node("Softmax", "x", "soft", axis=-1),
        node("Constant", "", "c", value=onnx.numpy_helper.from_array(floats(1, 2))),
        node("Mul", "soft c", "product"),
        node("Add", "product w", "y"),
    ]
    made = model(nodes, LINEAR, {"y": ["batch", 2]}, {"w": floats(3, 4)}, opset=17)
    change(made)
    with pytest.raises(StageError, match=re.escape(said)):
        imported(made, tmp_path, opset)
    assert "Traceback" not in capfd.readouterr().err
