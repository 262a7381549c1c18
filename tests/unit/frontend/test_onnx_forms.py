"""Files whose form is unusual, and right: they are imported and answer what they did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.support.graphs import FLOAT, floats, model, node

from ortc.build.original import _readable
from ortc.common.errors import StageError
from ortc.frontend.import_onnx import import_onnx
from ortc.inspection.onnx_file import inspect_onnx
from ortc.passes.quantization.quantizable import find_sites
from ortc.plan.plan import AxisPlan, ExportPlan, InputPlan
from ortc.spec.runtimes import ir_version_for_opset

ROWS = ("batch", 4)
WEIGHT = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)


def imported(made: onnx.ModelProto, place: Path, opset: int = 17, **shapes: Any) -> Path:
    onnx.save(made, place / "file.onnx")
    axes = (AxisPlan(name="batch", min=1, typical=2, max=4), AxisPlan(name="other", min=1, typical=3, max=4))
    inputs = [InputPlan(name=name, dtype="float32", shape=shape) for name, shape in (shapes or {"x": ROWS}).items()]
    plan = ExportPlan(
        opset=opset,
        ir_version=ir_version_for_opset(opset),
        exporter="auto",
        axes=axes,
        inputs=tuple(inputs),
        outputs=None,
    )
    (place / "out").mkdir()
    import_onnx(place / "file.onnx", plan, place / "out")
    return place / "out" / "model.onnx"


def answers(path: Path, *shapes: tuple[int, ...]) -> list[Any]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    random = np.random.default_rng(1)
    given = shapes or ((2, 4),) * len(session.get_inputs())
    feeds = {
        tensor.name: random.standard_normal(shape).astype(np.float32)
        for tensor, shape in zip(session.get_inputs(), given, strict=True)
    }
    return list(session.run(None, feeds))


def with_functions(*functions: onnx.FunctionProto, call: str = "Product") -> onnx.ModelProto:
    made = model([node(call, "x w", "y", domain="own")], {"x": ROWS}, {"y": ROWS}, {"w": WEIGHT})
    made.functions.extend(functions)
    made.opset_import.append(helper.make_opsetid("own", 1))
    return made


def function(name: str, *nodes: onnx.NodeProto, opset: int = 17, inputs: str = "ab") -> onnx.FunctionProto:
    domains = [helper.make_opsetid("", opset), helper.make_opsetid("own", 1)]
    return helper.make_function("own", name, list(inputs), ["c"], list(nodes), domains)


@pytest.mark.parametrize("opset", [13, 17])
def test_functions_are_written_out_whatever_opset_they_are_for(opset: int, tmp_path: Path) -> None:
    inner = function("Inner", node("MatMul", "a b", "c"), opset=opset)
    outer = function("Product", node("Inner", "a b", "d", domain="own"), node("Relu", "d", "c"))
    place = imported(with_functions(inner, outer), tmp_path)
    assert np.array_equal(answers(place), answers(tmp_path / "file.onnx"))
    assert not onnx.load(place).functions


def test_a_function_whose_operators_changed_is_converted(tmp_path: Path) -> None:
    # Until opset 12, ReduceSum had its axes as an attribute.
    old = function("Product", node("MatMul", "a b", "d"), node("ReduceSum", "d", "c", axes=[1], keepdims=0), opset=11)
    place = imported(with_functions(old), tmp_path)
    random = np.random.default_rng(1).standard_normal((2, 4)).astype(np.float32)
    assert np.allclose(answers(place)[0], (random @ WEIGHT).sum(axis=1), atol=1e-5)


@pytest.mark.parametrize(
    ("called", "said"),
    [
        (function("Product", node("Product", "a b", "c", domain="own")), "`Product` of the file calls itself"),
        (function("Product", node("Relu", "a", "c"), inputs="a"), "cannot be written out: Input mismatch"),
        (function("Product", node("Sum", "", "c"), opset=5), "cannot be (converted|written out)|is not valid"),
    ],
)
def test_functions_that_cannot_be_written_out_are_refused_in_words(
    called: onnx.FunctionProto, said: str, tmp_path: Path
) -> None:
    with pytest.raises(StageError, match=said) as refused:
        imported(with_functions(called), tmp_path)
    assert refused.value.help


@pytest.mark.parametrize(("opset", "target", "scales"), [(18, 18, 2), (18, 20, 2), (21, 21, 4), (21, 20, 4)])
def test_group_normalization_of_both_definitions(opset: int, target: int, scales: int, tmp_path: Path) -> None:
    shape = ("batch", 4, 3, "other")
    made = model(
        [node("GroupNormalization", "x scale bias", "y", num_groups=2, epsilon=1e-3)],
        {"x": shape},
        {"y": shape},
        {"scale": floats(*range(1, scales + 1)), "bias": floats(*range(scales))},
        opset=opset,
    )
    place = imported(made, tmp_path, target, x=shape)
    found, wanted = answers(place, (2, 4, 3, 5)), answers(tmp_path / "file.onnx", (2, 4, 3, 5))
    assert np.allclose(found, wanted, atol=1e-5)


def test_sparse_initializers_are_written_out(tmp_path: Path) -> None:
    made = model([node("MatMul", "x w", "y")], {"x": ROWS}, {"y": ROWS})
    values, places = numpy_helper.from_array(floats(1, 2), "w"), numpy_helper.from_array(np.array([0, 6]), "places")
    made.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [4, 4]))
    place = imported(made, tmp_path)
    assert np.array_equal(answers(place), answers(tmp_path / "file.onnx"))


def test_a_sparse_initializer_of_endless_size_is_refused(tmp_path: Path) -> None:
    made = model([node("MatMul", "x w", "y")], {"x": ROWS}, {"y": ROWS})
    values, places = numpy_helper.from_array(floats(1), "w"), numpy_helper.from_array(np.array([0]), "places")
    made.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [2**40, 2**40]))
    with pytest.raises(StageError, match="does not write out"):
        imported(made, tmp_path)


def test_the_body_of_a_loop_keeps_the_shapes_of_its_counter_and_condition(tmp_path: Path) -> None:
    scalars = [helper.make_tensor_value_info("i", TensorProto.INT64, []), helper.make_tensor_value_info("c", 9, [])]
    state = helper.make_tensor_value_info("s", FLOAT, None)
    results = [helper.make_tensor_value_info("c2", 9, []), helper.make_tensor_value_info("s2", FLOAT, None)]
    body = helper.make_graph(
        [node("MatMul", "s w", "s2"), node("Identity", "c", "c2")], "b", [*scalars, state], results
    )
    constants = {"w": WEIGHT, "n": np.array(3), "true": np.array(True)}
    made = model([node("Loop", "n true x", "y", body=body)], {"x": ROWS}, {"y": ROWS}, constants)
    place = imported(made, tmp_path)
    assert np.array_equal(answers(place), answers(tmp_path / "file.onnx"))


@pytest.mark.parametrize(
    "unknown",
    [-1, 0, None, "", "?", "-1", "0", "None", "unk__7", "unknown", "DynamicDimension.0", "p2o.DynamicDimension.0"],
)
def test_dimensions_without_a_name_are_never_one_axis(unknown: Any, tmp_path: Path) -> None:
    shape = (unknown, unknown, 4)
    nodes = [node("ReduceMean", "z", "mean", axes=[1]), node("Add", "x mean", "y")]
    made = model(nodes, {"x": shape, "z": shape}, {"y": ("a", "b", 4)})
    onnx.save(made, tmp_path / "file.onnx")
    draft = inspect_onnx(tmp_path / "file.onnx", "file.onnx", 20)
    assert {name: tensor["shape"] for name, tensor in draft.inputs.items()} == {
        "x": ["batch", "x_dim1", 4],
        "z": ["batch", "z_dim1", 4],
    }
    place = imported(made, tmp_path, x=("batch", "batch", 4), z=("batch", "other", 4))
    # The reference is the file as it came; ONNX Runtime takes a size of 0 for a promise.
    original = _readable(tmp_path / "file.onnx", "onnxruntime")
    assert np.array_equal(answers(place, (2, 2, 4), (2, 3, 4)), answers(original, (2, 2, 4), (2, 3, 4)))


@pytest.mark.parametrize("moves", [["Identity"], ["Transpose"], ["Identity", "Transpose"], ["Transpose", "Identity"]])
def test_weights_behind_what_moves_them_are_weights(moves: list[str], tmp_path: Path) -> None:
    names = ["w", *(f"w{index}" for index in range(len(moves)))]
    nodes = [node(kind, names[index], names[index + 1]) for index, kind in enumerate(moves)]
    made = model([*nodes, node("MatMul", f"x {names[-1]}", "y")], {"x": ROWS}, {"y": ROWS}, {"w": WEIGHT})
    place = imported(made, tmp_path)
    import onnx_ir as ir

    assert len(list(find_sites(ir.load(place), ["MatMul"]))) == 1
    assert np.allclose(answers(place), answers(tmp_path / "file.onnx"), atol=1e-6)


@pytest.mark.parametrize("size", [1, 4])
def test_a_size_that_a_spec_fixes_need_not_fit_a_branch_for_another(size: int, tmp_path: Path) -> None:
    result = [helper.make_tensor_value_info("r", FLOAT, None)]
    branches = {
        "then_branch": helper.make_graph([node("Squeeze", "x one", "r")], "t", [], result),
        "else_branch": helper.make_graph([node("ReduceMean", "x", "r", axes=[1], keepdims=0)], "e", [], result),
    }
    nodes = [
        node("Shape", "x", "sizes"),
        node("Gather", "sizes one", "width"),
        node("Equal", "width one", "is_one"),
        node("Squeeze", "is_one", "single"),
        node("If", "single", "y", **branches),
    ]
    made = model(nodes, {"x": (None, None)}, {"y": (None,)}, {"one": np.array([1])})
    place = imported(made, tmp_path, x=("batch", size))
    assert np.array_equal(answers(place, (2, size)), answers(tmp_path / "file.onnx", (2, size)))
