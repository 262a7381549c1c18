"""Half precision: what is converted, what is not, and that a check on the CPU sees what float16 cannot hold."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.support.half_graphs import LOWEST, SIZE, W, X, answers, make, node, run
from tests.support.passes import rewrite_files

from ortc.common.errors import NotApplicable
from ortc.passes.canonical import write
from ortc.passes.half_precision import FLOAT16, bfloat16, half, rounding, shorten
from ortc.passes.rewrite import rewritten


def test_inputs_and_outputs_stay(tmp_path: Path) -> None:
    model = make([node("MatMul", "x w", "z"), node("Relu", "z", "y")], {"w": W}, "y", "z")
    assert half(model) == 1
    assert [(value.name, value.dtype) for value in (*model.graph.inputs, *model.graph.outputs)] == [
        (name, ir.DataType.FLOAT) for name in ("x", "y", "z")
    ]
    assert {value.dtype for value in model.graph.initializers.values()} == {ir.DataType.FLOAT16}
    y, z = answers(model, tmp_path)
    np.testing.assert_allclose(z, X @ W, rtol=1e-2, atol=1e-2)
    assert y.dtype == z.dtype == np.float32
    # As float16 and no more exact than that.
    np.testing.assert_array_equal(z, z.astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(y, np.maximum(z, 0))


def test_what_leaves_the_range_stays_in_float32(tmp_path: Path) -> None:
    """The sum of squares of numbers around 300 is more than float16 holds."""
    nodes = [
        node("MatMul", "x w", "z"),
        node("Pow", "z two", "squares"),
        node("ReduceSum", "squares axes", "sum"),
        node("Sqrt", "sum", "norm"),
        node("Div", "z norm", "y"),
    ]
    model = make(nodes, {"w": W, "two": np.array(2, np.float32), "axes": np.array([1])})
    assert half(model) == 1
    kinds = {entry.op_type: entry.outputs[0].dtype for entry in model.graph}
    assert [kinds[name].name for name in ("MatMul", "Pow", "ReduceSum", "Sqrt", "Div")] == [
        "FLOAT16", "FLOAT", "FLOAT", "FLOAT", "FLOAT16"
    ]  # fmt: skip
    # In, back for the squares, the norm, and out: none between what stays.
    assert Counter(entry.op_type for entry in model.graph)["Cast"] == 4
    z = 300 * X @ W
    np.testing.assert_allclose(
        answers(model, tmp_path, 300 * X)[0], z / np.linalg.norm(z, axis=1, keepdims=True), atol=1e-2
    )


def test_an_overflow_is_seen(tmp_path: Path) -> None:
    model = make(
        [node("MatMul", "x w", "z"), node("Mul", "z small", "y")], {"w": W, "small": np.array(1e-3, np.float32)}
    )
    half(model)
    found = answers(model, tmp_path, 1e4 * X)[0]
    assert not np.isfinite(found).all()
    # The CPU provider by itself leaves the rounding out, and would let that pass.
    assert np.isfinite(run(tmp_path / "float16", 1e4 * X)[0]).all()


@pytest.mark.parametrize("as_node", [False, True])
def test_a_mask_masks(tmp_path: Path, as_node: bool) -> None:
    nodes = [
        node("Greater", "x zero", "seen"),
        node("Where", "seen zero lowest", "bias"),
        node("MatMul", "x w", "scores"),
        node("Add", "scores bias", "masked"),
        node("Softmax", "masked", "y", axis=-1),
    ]
    tensors = {"w": W, "zero": np.array(0, np.float32), "lowest": np.array(LOWEST)}
    if as_node:
        constant = numpy_helper.from_array(tensors.pop("lowest"), "lowest")
        nodes.insert(0, node("Constant", "", "lowest", value=constant))
    model = make(nodes, tensors)
    half(model)
    finite = [value.const_value.numpy() for value in model.graph.initializers.values() if value.const_value is not None]
    assert min(array.min() for array in finite) == np.float16(-FLOAT16.fill)
    x = X.copy()
    x[1] = -1  # a row without anything to see: the same everywhere, and no NaN
    found = answers(model, tmp_path, x)[0]
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-2)
    assert (found[[0, 2]][x[[0, 2]] <= 0] == 0).all()


def test_minus_infinity_stays() -> None:
    model = make(
        [node("MatMul", "x w", "z"), node("Add", "z b", "y")], {"w": W, "b": np.full(SIZE, -np.inf, np.float32)}
    )
    half(model)
    kept = [value.const_value for value in model.graph.initializers.values() if value.const_value is not None]
    assert any(np.isneginf(tensor.numpy()).all() for tensor in kept)


def test_a_weight_that_both_read_is_there_twice() -> None:
    model = make([node("MatMul", "x w", "z"), node("ReduceSum", "w", "s"), node("Add", "z s", "y")], {"w": W})
    half(model)
    assert {value.dtype for value in model.graph.initializers.values()} == {ir.DataType.FLOAT, ir.DataType.FLOAT16}


def test_statistics_of_a_normalization_keep_it_in_float32() -> None:
    weights = {"w": W, "g": np.ones(SIZE, np.float32), "b": np.zeros(SIZE, np.float32)}
    plain = make([node("MatMul", "x w", "z"), node("LayerNormalization", "z g b", "y")], weights)
    read = make([node("MatMul", "x w", "z"), node("LayerNormalization", "z g b", "y mean")], weights, "y", "mean")
    for model, kind in ((plain, ir.DataType.FLOAT16), (read, ir.DataType.FLOAT)):
        half(model)
        assert next(entry for entry in model.graph if entry.op_type == "LayerNormalization").outputs[0].dtype == kind


def test_what_is_kept_stays_in_float32_and_what_moves_its_results_with_it(tmp_path: Path) -> None:
    nodes = [
        node("MatMul", "x w", "z"),
        node("Transpose", "z", "t", perm=[1, 0]),
        node("Identity", "t", "i"),
        node("MatMul", "i v", "m"),
        node("Reshape", "m shape", "y"),
    ]
    tensors = {"w": W, "v": X.T[:3].copy(), "shape": np.array([-1])}

    def made() -> ir.Model:
        return make(nodes, tensors)

    assert [entry.name for entry in rounding(made(), FLOAT16)] == ["MatMul_z", "MatMul_m"]
    model = made()
    assert shorten(model, FLOAT16, ("MatMul_z",)) == 1
    by_name = {entry.name: entry.outputs[0].dtype for entry in model.graph}
    assert [by_name[name] for name in ("MatMul_z", "Transpose_t", "Identity_i")] == [ir.DataType.FLOAT] * 3
    assert [by_name[name] for name in ("MatMul_m", "Reshape_y")] == [ir.DataType.FLOAT16] * 2
    # Numbers that float16 cannot hold, halfway through.
    model = make(nodes, {**tensors, "w": 1e6 * W, "v": 1e-6 * tensors["v"]})
    shorten(model, FLOAT16, ("MatMul_z", "MatMul_m"))
    np.testing.assert_allclose(answers(model, tmp_path)[0], ((X @ W).T @ tensors["v"]).ravel(), rtol=1e-3, atol=1e-3)


def test_what_moves_numbers_that_no_node_has_rounded_can_be_kept(tmp_path: Path) -> None:
    """Of an input, and of an operator that stays in float32; integers round nothing, and are none of them."""
    nodes = [
        node("Reshape", "x shape", "r"),
        node("MatMul", "r w", "z"),
        node("Exp", "z", "e"),
        node("Transpose", "e", "t", perm=[1, 0]),
        node("Shape", "x", "s"),
        node("Gather", "s zero", "n"),
        node("Expand", "t n", "y"),
    ]
    tensors = {"w": 1e-6 * W, "shape": np.array([-1, SIZE]), "zero": np.array([0])}
    model = make(nodes, tensors)
    assert [entry.name for entry in rounding(model, FLOAT16)] == ["Reshape_r", "MatMul_z", "Transpose_t"]
    shorten(model, FLOAT16, ("Reshape_r", "MatMul_z"))
    x = 1e6 * np.abs(X[:1])
    found = answers(model, tmp_path, x)[0]
    np.testing.assert_allclose(found, np.exp(x @ (1e-6 * W)).T, rtol=1e-2)


def test_a_name_of_no_node_is_told() -> None:
    with pytest.raises(NotApplicable, match="no node is called `nowhere`"):
        shorten(make([node("MatMul", "x w", "y")], {"w": W}), FLOAT16, ("nowhere",))


def test_a_graph_that_gives_16_bits_is_checked_too(tmp_path: Path) -> None:
    model = make([node("MatMul", "x w", "z"), node("Cast", "z", "h", to=10), node("Neg", "h", "y")], {"w": W}, kind=10)
    half(model)
    found = answers(model, tmp_path)[0]
    assert [value.name for value in model.graph.outputs] == ["y"]
    np.testing.assert_allclose(found, -(X @ W), rtol=1e-2, atol=1e-2)


def test_types_that_a_graph_does_not_tell_are_found(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [node("MatMul", "x w", "z"), node("Relu", "z", "y")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", SIZE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", SIZE])],
        [numpy_helper.from_array(W, "w")],
    )
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    assert half(model) == 1
    np.testing.assert_allclose(answers(model, tmp_path)[0], np.maximum(X @ W, 0), rtol=1e-2, atol=1e-2)


def test_nothing_to_convert(tmp_path: Path) -> None:
    write(make([node("Relu", "x", "y")], {}), tmp_path)
    for rewriting in ("half", "bfloat16", "fuse"):
        with (
            pytest.raises(NotApplicable, match=f"`{rewriting}` finds no place"),
            rewritten(tmp_path, (rewriting,)),
        ):  # type: ignore[arg-type]
            pytest.fail("it found one")


def test_bfloat16_is_as_coarse_and_has_the_range(tmp_path: Path) -> None:
    """What overflows in float16 does not here, and every result has 8 bits."""
    nodes = [node("MatMul", "x w", "z"), node("Mul", "z small", "y"), node("Neg", "y", "n")]
    model = make(nodes, {"w": W, "small": np.array(1e-3, np.float32)}, "y", "z")
    assert bfloat16(model) == 1
    assert {value.dtype for value in model.graph.initializers.values()} == {ir.DataType.BFLOAT16}
    y, z = answers(model, tmp_path, 1e4 * X)
    wanted = 1e4 * X @ W
    assert np.abs(z).max() > FLOAT16.largest
    np.testing.assert_allclose(z, wanted, rtol=0.05, atol=np.abs(wanted).max() * 0.01)
    for found in (y, z):
        assert not (found.view(np.uint32) & 0xFFFF).any()


def test_a_mask_of_the_lowest_number_stays_finite_in_bfloat16(tmp_path: Path) -> None:
    """float32's lowest rounds to minus infinity there, too."""
    nodes = [node("MatMul", "x w", "z"), node("Add", "z b", "masked"), node("Softmax", "masked", "y", axis=-1)]
    model = make(nodes, {"w": W, "b": np.full(SIZE, LOWEST)})
    bfloat16(model)
    found = answers(model, tmp_path)[0]
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=0.05)


@pytest.mark.parametrize(("opset", "kind"), [(21, ir.DataType.FLOAT), (22, ir.DataType.BFLOAT16)])
def test_what_onnx_defines_later_for_bfloat16_waits_for_its_opset(opset: int, kind: ir.DataType) -> None:
    graph = helper.make_graph(
        [node("MatMul", "x w", "z"), node("HardSwish", "z", "y")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", SIZE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(W, "w")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True))
    assert bfloat16(model) == 1
    swish = next(entry for entry in model.graph if entry.op_type == "HardSwish")
    assert swish.inputs[0] is not None
    assert swish.inputs[0].dtype == kind


def test_files(tmp_path: Path) -> None:
    for name in ("source", "output"):
        (tmp_path / name).mkdir()
    write(make([node("MatMul", "x w", "y")], {"w": W}), tmp_path / "source")
    assert rewrite_files(tmp_path / "source", tmp_path / "output", ("half",)) == {"half": 1}
    assert [path.name for path in (tmp_path / "output").iterdir()] == ["model.onnx"]


def branch(*nodes: onnx.NodeProto) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), "b", [], [helper.make_tensor_value_info("o", TensorProto.FLOAT, None)])


@pytest.mark.parametrize("nested", [False, True])
def test_branches_stay_in_float32_and_read_what_is_converted(nested: bool, tmp_path: Path) -> None:
    """A branch reads a converted value, a weight and an input of the graph; the products around it are converted."""
    reads = branch(node("Mul", "z scale", "p"), node("Add", "p x", "o"))
    other = branch(node("Exp", "z", "o"))
    inner = branch(node("If", "is_large", "o", then_branch=reads, else_branch=other)) if nested else reads
    nodes = [
        node("MatMul", "x w", "z"),
        node("ReduceSum", "x", "s", keepdims=0),
        node("Greater", "s zero", "is_large"),
        node("If", "is_large", "h", then_branch=inner, else_branch=other),
        node("MatMul", "h v", "y"),
    ]
    scale, zero = np.full(SIZE, 0.5, np.float32), np.array(0, np.float32)
    tensors = {"w": W / SIZE, "v": W.T / SIZE, "scale": scale, "zero": zero}
    model = make(nodes, tensors, "y", "z")
    assert half(model) == 2
    kinds = {value.name: value.dtype for entry in model.graph for value in entry.outputs}
    assert kinds["h"] == ir.DataType.FLOAT
    for sign in (1, -1):
        x = sign * np.abs(X)
        z = x @ (W / SIZE)
        h = z * 0.5 + x if sign > 0 else np.exp(z)
        (tmp_path / str(sign)).mkdir()
        found, _ = answers(model.clone(), tmp_path / str(sign), x)
        np.testing.assert_allclose(found, h @ (W.T / SIZE), atol=2e-2)
