"""What is done to an exported graph before it is canonical, and the sizes that models are traced with."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from tests.support import graphs

from ortc.common.errors import StageError
from ortc.frontend.reference.model import example_sizes
from ortc.passes import canonical
from ortc.passes.canonical import (
    EXTERNAL_DATA_THRESHOLD,
    check_file,
    count_operators,
    name_dimensions,
    output_info,
    restore_inputs,
    strip,
)
from ortc.plan.plan import AxisPlan, ExportPlan, InputPlan

FLOAT = TensorProto.FLOAT


def export(*axes: AxisPlan) -> ExportPlan:
    return ExportPlan(opset=17, ir_version=8, exporter="auto", axes=axes, inputs=None, outputs=None)


@st.composite
def axes(draw: st.DrawFn) -> tuple[AxisPlan, ...]:
    made = []
    for name in "abcde"[: draw(st.integers(1, 5))]:
        step = draw(st.sampled_from([1, 1, 1, 2, 14]))
        low = draw(st.integers(1, 6))
        high = low + draw(st.integers(0, 6))
        made.append(AxisPlan(name=name, min=low * step, typical=low * step, max=high * step, multiple_of=step))
    return tuple(made)


@given(axes())
def test_example_sizes(axes: tuple[AxisPlan, ...]) -> None:
    found = example_sizes(export(*axes))
    assert list(found) == [axis.name for axis in axes]
    for axis in axes:
        assert axis.min <= found[axis.name] <= axis.max
        assert found[axis.name] % axis.multiple_of == 0
        assert found[axis.name] >= min(2, axis.max)


@given(axes())
def test_example_sizes_differ_where_the_bounds_allow_it(axes: tuple[AxisPlan, ...]) -> None:
    found = example_sizes(export(*axes))
    choices = [
        [n for n in range(axis.min, axis.max + 1) if n % axis.multiple_of == 0 and n >= min(2, axis.max)]
        for axis in axes
    ]
    possible = any(len(set(sizes)) == len(sizes) for sizes in itertools.islice(itertools.product(*choices), 20_000))
    if possible and len({axis.multiple_of for axis in axes}) == 1:
        assert len(set(found.values())) == len(found)


def test_an_axis_makes_room_for_one_with_less() -> None:
    bounds = {"a": (2, 4), "b": (1, 3), "c": (1, 1), "d": (1, 2)}
    axes = (AxisPlan(name=name, min=low, typical=low, max=high) for name, (low, high) in bounds.items())
    assert example_sizes(export(*axes)) == {"a": 4, "b": 3, "c": 1, "d": 2}


def test_common_example_sizes() -> None:
    batch = AxisPlan(name="batch", min=1, typical=1, max=16)
    sequence = AxisPlan(name="sequence", min=1, typical=128, max=512)
    assert example_sizes(export(batch, sequence)) == {"batch": 3, "sequence": 5}
    # Two axes of the same narrow bounds, and a fixed one that takes the first choice of another.
    narrow = [AxisPlan(name=name, min=1, typical=1, max=3) for name in "ab"]
    assert sorted(example_sizes(export(*narrow)).values()) == [2, 3]
    fixed = AxisPlan(name="fixed", min=3, typical=3, max=3)
    assert example_sizes(export(batch, fixed)) == {"batch": 2, "fixed": 3}


def if_model() -> onnx.ModelProto:
    """A graph with branches, every part of which carries a path of the machine that made it."""

    def branch(name: str, operator: str) -> onnx.GraphProto:
        weight = numpy_helper.from_array(np.ones(3, np.float32), f"{name}_w")
        node = helper.make_node(operator, ["x", f"{name}_w"], [f"{name}_y"], name=f"{name}_node")
        value = helper.make_tensor_value_info(f"{name}_y", FLOAT, ["s0", 3])
        return helper.make_graph([node], name, [], [value], [weight])

    graph = helper.make_graph(
        [
            helper.make_node("ReduceSum", ["x"], ["total"], name="sum", keepdims=0),
            helper.make_node("Cast", ["total"], ["flag"], name="cast", to=TensorProto.BOOL),
            helper.make_node(
                "If", ["flag"], ["y"], name="if", then_branch=branch("then", "Add"), else_branch=branch("else", "Mul")
            ),
            helper.make_node("Twice", ["y"], ["z"], name="twice", domain="local"),
        ],
        "main",
        [helper.make_tensor_value_info("x", FLOAT, ["s0", 3])],
        [helper.make_tensor_value_info("z", FLOAT, ["s0", 3])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    twice = helper.make_function(
        "local", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"], name="add")], opsets[:1]
    )
    model = helper.make_model(graph, opset_imports=opsets, functions=[twice], ir_version=10)
    mark(model)
    return model


PATH = "/home/someone/model.py"


def mark(message: Any) -> None:
    """Put a path into every doc string and every metadata entry that a message or its parts can have."""
    fields = {field.name for field in message.DESCRIPTOR.fields}
    if "metadata_props" in fields:
        message.metadata_props.add(key="pkg.torch.onnx.stack_trace", value=PATH)
    if "doc_string" in fields and not isinstance(message, onnx.AttributeProto):
        message.doc_string = PATH
    for field, value in list(message.ListFields()):
        if field.type == field.TYPE_MESSAGE and field.name != "metadata_props":
            for part in [value] if hasattr(value, "ListFields") else value:
                mark(part)


def test_nothing_of_the_machine_is_left() -> None:
    proto = if_model()
    assert PATH.encode() in proto.SerializeToString()
    model = ir.from_proto(proto)
    strip(model)
    result = ir.to_proto(model)
    assert PATH.encode() not in result.SerializeToString()
    onnx.checker.check_model(result)


def test_operators_are_counted_in_branches_and_functions_too() -> None:
    assert count_operators(ir.from_proto(if_model())) == {
        "Add": 2,
        "Cast": 1,
        "If": 1,
        "Mul": 1,
        "ReduceSum": 1,
        "local::Twice": 1,
    }


X = InputPlan(name="x", dtype="float32", shape=("batch", 3))
BATCH = AxisPlan(name="batch", min=1, typical=1, max=8)


def test_dimensions_are_called_as_the_axes() -> None:
    model = ir.from_proto(if_model())
    name_dimensions(model, (X,), (BATCH,))
    text = str(ir.to_proto(model))
    assert 'dim_param: "batch"' in text
    assert "s0" not in text
    assert output_info(model.graph.outputs[0], (BATCH,)).shape == ("batch", 3)
    assert output_info(model.graph.outputs[0], ()).shape == (None, 3)
    assert output_info(model.graph.outputs[0], (BATCH,)).dtype == "float32"


def test_an_axis_of_one_size_is_that_size() -> None:
    model = ir.from_proto(if_model())
    name_dimensions(model, (X,), (AxisPlan(name="batch", min=4, typical=4, max=4),))
    assert list(model.graph.inputs[0].shape or ()) == [4, 3]


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (X.model_copy(update={"name": "other"}), "input is called `x` instead of `other`"),
        (X.model_copy(update={"shape": ("batch",)}), "input `x` has shape"),
        (X.model_copy(update={"shape": ("batch", "width")}), "the export fixed the axis `width` of `x` to 3"),
    ],
)
def test_a_graph_with_another_interface_is_refused(tensor: InputPlan, message: str) -> None:
    with pytest.raises(StageError, match=message):
        name_dimensions(ir.from_proto(if_model()), (tensor,), (BATCH,))


def test_an_invalid_graph_is_refused(tmp_path: Path) -> None:
    node = helper.make_node("MatMul", ["x", "x"], ["y"])
    values = [helper.make_tensor_value_info(name, FLOAT, [2, 3]) for name in "xy"]
    model = helper.make_model(helper.make_graph([node], "g", values[:1], values[1:]))
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(StageError, match="the dynamo exporter gave an invalid graph: "):
        check_file(tmp_path / "model.onnx", "dynamo")
    model.graph.node[0].op_type = "Add"
    onnx.save(model, tmp_path / "model.onnx")
    check_file(tmp_path / "model.onnx", "dynamo")


def test_inputs_that_were_left_out_come_back() -> None:
    """Exporters drop what no output depends on; the spec promised it all the same."""
    x = helper.make_tensor_value_info("x", FLOAT, ["s0", 4])
    y = helper.make_tensor_value_info("y", FLOAT, ["s0", 4])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9))
    wanted = tuple(
        InputPlan.model_validate({"name": name, "dtype": dtype, "shape": ("batch", 4)})
        for name, dtype in (("mask", "int64"), ("x", "float32"), ("ids", "bool"))
    )
    assert restore_inputs(model, wanted) == ("mask", "ids")
    assert [value.name for value in model.graph.inputs] == ["mask", "x", "ids"]
    name_dimensions(model, wanted, (AxisPlan(name="batch", min=1, typical=1, max=4),))
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    found = {entry.name: entry.type.tensor_type.elem_type for entry in ir.to_proto(model).graph.input}
    assert found == {"mask": TensorProto.INT64, "x": FLOAT, "ids": TensorProto.BOOL}
    with pytest.raises(StageError, match="has an input `ids` that the model does not declare"):
        restore_inputs(model, wanted[:2])


@pytest.mark.parametrize("threshold", [0, EXTERNAL_DATA_THRESHOLD])
def test_a_graph_beside_its_weights_holds_what_is_new_within_a_files_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threshold: int
) -> None:
    before = graphs.model(
        [graphs.node("MatMul", "x w", "z"), graphs.node("MatMul", "z v", "y")],
        {"x": ["batch", 16]},
        {"y": ["batch", 16]},
        {name: np.eye(16, dtype=np.float32) * 3 for name in "wv"},
    )
    ir.save(ir.from_proto(before), tmp_path / "base.onnx", external_data="base.data")
    model = ir.load(tmp_path / "base.onnx")
    model.graph.initializers["v"].const_value = ir.tensor(np.eye(16, dtype=np.float32) * 2, name="v")
    monkeypatch.setattr(canonical, "EXTERNAL_DATA_THRESHOLD", threshold)
    canonical.write_beside(model, tmp_path / "0.onnx")
    written = {
        tensor.name: tensor for tensor in onnx.load(tmp_path / "0.onnx", load_external_data=False).graph.initializer
    }
    places = {name: {entry.key: entry.value for entry in tensor.external_data} for name, tensor in written.items()}
    assert places["w"]["location"] == "base.data"
    assert places["v"].get("location") == (None if threshold else "0.onnx.data")
    session = onnxruntime.InferenceSession(tmp_path / "0.onnx", providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": np.ones((1, 16), np.float32)})[0].tolist() == [[6.0] * 16]
