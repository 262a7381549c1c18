"""Constants that half precision does not hold: scales, floors, masks, weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto
from tests.support.half_graphs import LOWEST, RANDOM, SIZE, W, X, answers, make, node, run

from ortc.passes.canonical import write
from ortc.passes.half_precision import bfloat16, half


def exact(model: ir.Model, place: Path, x: NDArray[Any]) -> Any:
    """What a graph gives before it is converted."""
    (place / "exact").mkdir()
    write(model, place / "exact")
    return run(place / "exact", x)[0]


def both(nodes: list[NodeProto], tensors: dict[str, NDArray[Any]], place: Path, x: NDArray[Any] = X) -> tuple[Any, Any]:
    """What a graph gives in float32 and in float16."""
    wanted = exact(make(nodes, tensors), place, x)
    model = make(nodes, tensors)
    half(model)
    return wanted, answers(model, place, x)[0]


SCALES = {
    "scaled up and down": [node("Mul", "z c", "big"), node("Relu", "big", "kept"), node("Div", "kept c", "y")],
    "scaled": [node("Mul", "z c", "y")],
    "scaled and moved": [node("Mul", "z c", "big"), node("Reshape", "big shape", "y")],
    "divided": [node("Div", "z c", "y")],
    "added": [node("Add", "z c", "big"), node("Sub", "big c", "y")],
    "multiplied by weights": [node("Mul", "z c", "big"), node("MatMul", "big w", "y")],
    "sharpened": [node("Mul", "z c", "sharp"), node("Softmax", "sharp", "y", axis=-1)],
}


@pytest.mark.parametrize("constant", [1e5, 7e4, 1e-8, 1e6])
@pytest.mark.parametrize("tail", SCALES.values(), ids=SCALES)
def test_constants_that_float16_does_not_hold_keep_their_value(
    tmp_path: Path, tail: list[NodeProto], constant: float
) -> None:
    tensors = {"w": W, "c": np.array(constant, np.float32), "shape": np.array([-1])}
    used = {name for entry in tail for name in entry.input}
    tensors = {name: array for name, array in tensors.items() if name == "w" or name in used}
    wanted, found = both([node("MatMul", "x w", "z"), *tail], tensors, tmp_path)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, wanted, rtol=0.05, atol=0.02 * np.abs(wanted).max())


@pytest.mark.parametrize("epsilon", [1e-8, 1e-12, 1e-20])
@pytest.mark.parametrize("how", ["Max", "Clip", "Add", "inside", "reciprocal"])
def test_a_row_of_zeros_has_a_norm(tmp_path: Path, how: str, epsilon: float) -> None:
    """What a tiny constant keeps away from zero divides in float32."""
    nodes = [node("MatMul", "x w", "z"), node("Mul", "z z", "squares"), node("ReduceSum", "squares axes", "sum")]
    tensors = {"w": W, "axes": np.array([1]), "eps": np.array(epsilon, np.float32)}
    if how in ("inside", "reciprocal"):
        nodes += [node("Add", "sum eps", "more"), node("Sqrt", "more", "norm")]
    else:
        nodes += [node("Sqrt", "sum", "root"), node(how, "root eps", "norm")]
    if how == "reciprocal":
        nodes += [node("Reciprocal", "norm", "inverse"), node("Mul", "z inverse", "y")]
    else:
        nodes += [node("Div", "z norm", "y")]
    x = X.copy()
    x[1] = 0
    wanted, found = both(nodes, tensors, tmp_path, x)
    assert (found[1] == 0).all()
    np.testing.assert_allclose(found, wanted, atol=0.01)


@pytest.mark.parametrize("lowest", [-1e9, -1e5, LOWEST, -np.inf])
@pytest.mark.parametrize("how", ["Where", "chosen", "product", "subtracted"])
def test_masks_stay_in_half_precision(tmp_path: Path, how: str, lowest: float) -> None:
    nodes = [node("MatMul", "x w", "scores"), node("Greater", "x zero", "seen")]
    tensors = {"w": W, "zero": np.array(0, np.float32), "lowest": np.array(lowest, np.float32)}
    if how == "Where":
        nodes += [node("Where", "seen zero lowest", "bias"), node("Add", "scores bias", "masked")]
    elif how == "chosen":
        nodes += [node("Where", "seen scores lowest", "masked")]
    else:
        if np.isinf(lowest):
            pytest.skip("zero times infinity is no mask")
        nodes += [node("Cast", "seen", "one", to=TensorProto.FLOAT), node("Sub", "ones one", "none")]
        tensors["ones"] = np.array(1, np.float32)
        sign = "Sub" if how == "subtracted" else "Add"
        if how == "subtracted":
            tensors["lowest"] = -tensors["lowest"]
        nodes += [node("Mul", "none lowest", "bias"), node(sign, "scores bias", "masked")]
    nodes += [node("Softmax", "masked", "y", axis=-1)]
    x = np.abs(X) * np.where(RANDOM.random(X.shape) < 0.5, 1, -1).astype(np.float32)
    x[:, 0] = np.abs(x[:, 0])
    wanted, found = both(nodes, tensors, tmp_path, x)
    np.testing.assert_allclose(found, wanted, atol=0.02)
    model = make(nodes, tensors)
    half(model)
    kinds = {entry.op_type: entry.outputs[0].dtype for entry in model.graph if entry.op_type != "Cast"}
    assert kinds["Softmax"] == ir.DataType.FLOAT16


def test_a_fill_that_is_no_mask_of_a_softmax_keeps_its_value(tmp_path: Path) -> None:
    """The greatest of what is seen: as large as any number may be."""
    nodes = [
        node("MatMul", "x w", "z"),
        node("Greater", "x zero", "seen"),
        node("Where", "seen z lowest", "chosen"),
        node("ReduceMax", "chosen", "y", axes=[1], keepdims=0),
    ]
    tensors = {"w": W, "zero": np.array(0, np.float32), "lowest": np.array(-1e9, np.float32)}
    x = X.copy()
    x[1] = -1
    wanted, found = both(nodes, tensors, tmp_path, x)
    assert found[1] == np.float32(-1e9)
    np.testing.assert_allclose(found, wanted, rtol=0.01)


def test_a_constant_of_a_mask_and_of_a_scale_is_both(tmp_path: Path) -> None:
    nodes = [
        node("MatMul", "x w", "z"),
        node("Greater", "x zero", "seen"),
        node("Where", "seen z c", "masked"),
        node("Softmax", "masked", "p", axis=-1),
        node("Mul", "p c", "y"),
    ]
    wanted, found = both(nodes, {"w": W, "zero": np.array(0, np.float32), "c": np.array(-1e6, np.float32)}, tmp_path)
    np.testing.assert_allclose(found, wanted, rtol=0.02, atol=1e4)


def test_tiny_numbers_among_others_keep_no_product_in_float32() -> None:
    weight = W.copy()
    weight[3] = 1e-9
    model = make([node("MatMul", "x w", "y")], {"w": weight})
    assert half(model) == 1


def test_bfloat16_has_the_range_of_constants() -> None:
    nodes = [node("MatMul", "x w", "z"), node("Mul", "z c", "y")]
    model = make(nodes, {"w": W, "c": np.array(1e5, np.float32)})
    bfloat16(model)
    kinds = {entry.op_type: entry.outputs[0].dtype for entry in model.graph if entry.op_type != "Cast"}
    assert kinds["Mul"] == ir.DataType.BFLOAT16


def test_weights_beyond_the_range_are_infinite_and_seen(tmp_path: Path) -> None:
    """They were 32752: wrong by a factor, and finite."""
    weight = W.copy()
    weight[2, 3] = 1e6
    model = make([node("MatMul", "x w", "y")], {"w": weight})
    half(model)
    found = answers(model, tmp_path)[0]
    assert not np.isfinite(found[:, 3]).any()


def test_a_divisor_with_tiny_numbers_divides_in_float32(tmp_path: Path) -> None:
    divisor = np.ones(SIZE, np.float32)
    divisor[5] = 1e-9
    wanted, found = both([node("MatMul", "x w", "z"), node("Div", "z c", "y")], {"w": W, "c": divisor}, tmp_path)
    np.testing.assert_allclose(found, wanted, rtol=0.05, atol=0.02)
