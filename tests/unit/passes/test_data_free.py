"""What quantization prepares: smoothing that changes no answer, and which MatMuls stay in floating point."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.reference
import onnx_ir as ir
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tests.support import plans

from ortc.common.errors import NotApplicable
from ortc.passes.quantization.data_free import expect_narrowing, name_nodes, quantize
from ortc.passes.quantization.data_free import smooth as smooth_in_place
from ortc.passes.quantization.weight_only import BLOCK
from ortc.spec.quantization import DynamicQuantization, WeightQuantization

HIDDEN, WIDE = 8, 32
Array = NDArray[np.float32]


def spread(size: int, seed: int) -> Array:
    """Values whose channels differ by orders of magnitude, as those of a trained normalization do."""
    return (10 ** np.random.default_rng(seed).uniform(-2, 1, size)).astype(np.float32)


def feed_forward(
    *, bias: bool = True, shared: bool = False, widens: bool = True, weights: int = 1, axis: int = -1, **replaced: Array
) -> onnx.ModelProto:
    """LayerNormalization -> `weights` MatMuls, whose outputs are the graph's."""
    columns = WIDE if widens else HIDDEN // 2
    random = np.random.default_rng(5)
    tensors = {"gamma": spread(HIDDEN, 1), "beta": spread(HIDDEN, 2) - 1}
    tensors |= {f"w{n}": random.standard_normal((HIDDEN, columns)).astype(np.float32) for n in range(weights)}
    tensors |= replaced
    inputs = ["x", "gamma", "beta"] if bias else ["x", "gamma"]
    nodes = [helper.make_node("LayerNormalization", inputs, ["normal"], name="norm", axis=axis)]
    nodes += [helper.make_node("MatMul", ["normal", f"w{n}"], [f"y{n}"], name=f"up{n}") for n in range(weights)]
    outputs = [f"y{n}" for n in range(weights)]
    if shared:
        nodes.append(helper.make_node("MatMul", ["x", "w0"], ["other"], name="tied"))
        outputs.append("other")
    graph = helper.make_graph(
        nodes,
        "feed forward",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", HIDDEN])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", columns]) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in tensors.items() if bias or name != "beta"],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def run(model: onnx.ModelProto, x: Array) -> list[Any]:
    onnx.checker.check_model(model, full_check=True)
    return list(onnx.reference.ReferenceEvaluator(model).run(None, {"x": x}))


def smooth(model: onnx.ModelProto) -> int:
    """Smooth a model, and put what came of it in its place."""
    graph = ir.from_proto(model)
    count = smooth_in_place(graph)
    if count:
        model.CopyFrom(ir.to_proto(graph))
    return count


def initializers(model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


X = np.random.default_rng(0).standard_normal((16, HIDDEN)).astype(np.float32)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("weights", [1, 3])
def test_smoothing_changes_no_answer(bias: bool, weights: int) -> None:
    model = feed_forward(bias=bias, weights=weights)
    before, old = run(model, X), initializers(model)
    assert smooth(model) == weights
    for expected, actual in zip(before, run(model, X), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
    new = initializers(model)
    assert [node.op_type for node in model.graph.node] == ["LayerNormalization", *["Mul", "MatMul"] * weights]
    for n in range(weights):
        assert not np.allclose(new[f"w{n}"], old[f"w{n}"])
        assert new[f"w{n}"].dtype == np.float32
    # The normalization stays as it is: others may read it.
    np.testing.assert_array_equal(new["gamma"], old["gamma"])


def test_smoothing_brings_channels_closer() -> None:
    model = feed_forward()
    reference = onnx.reference.ReferenceEvaluator(model)
    before = np.abs(reference.run(["normal"], {"x": X})[0]).max(axis=0)  # type: ignore[call-overload]
    smooth(model)
    factors = initializers(model)["up0_smoothed_factors"]
    after = before * factors
    assert after.max() / after.min() < 0.25 * before.max() / before.min()
    # Moved, and neither grown nor shrunk as a whole.
    assert float(np.median(1 / factors)) == pytest.approx(1.0, rel=0.5)


def test_channels_of_nothing_stay_finite() -> None:
    gamma, beta = spread(HIDDEN, 1), np.zeros(HIDDEN, np.float32)
    gamma[2] = 0
    weight = np.random.default_rng(1).standard_normal((HIDDEN, WIDE)).astype(np.float32)
    weight[3] = 0
    model = feed_forward(gamma=gamma, beta=beta, w0=weight)
    before = run(model, X)
    assert smooth(model) == 1
    assert all(np.isfinite(array).all() for array in initializers(model).values())
    np.testing.assert_allclose(run(model, X)[0], before[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "model",
    [
        feed_forward(shared=True),
        feed_forward(widens=False),
        feed_forward(gamma=np.ones((1, HIDDEN), np.float32), beta=np.ones((1, HIDDEN), np.float32)),
    ],
    ids=["the weight is shared", "it narrows", "normalized over more than channels"],
)
def test_what_cannot_be_smoothed_is_left_alone(model: onnx.ModelProto) -> None:
    before = model.SerializeToString()
    assert smooth(model) == 0
    assert model.SerializeToString() == before


def test_parameters_that_are_computed_are_left_alone() -> None:
    model = feed_forward()
    model.graph.input.append(helper.make_tensor_value_info("gamma", TensorProto.FLOAT, [HIDDEN]))
    kept = [tensor for tensor in model.graph.initializer if tensor.name != "gamma"]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    assert smooth(model) == 0


def test_only_a_normalization_is_smoothed() -> None:
    model = feed_forward()
    model.graph.node[0].CopyFrom(helper.make_node("Relu", ["x"], ["normal"]))
    assert smooth(model) == 0


def multiplications(*shapes: tuple[int, ...], operator: str = "MatMul") -> onnx.ModelProto:
    nodes = [helper.make_node(operator, ["x", f"w{n}"], [f"y{n}"], name=f"m{n}") for n in range(len(shapes))]
    weights = [numpy_helper.from_array(np.ones(shape, np.float32), f"w{n}") for n, shape in enumerate(shapes)]
    return helper.make_model(helper.make_graph(nodes, "g", [], [], weights))


def test_narrowing() -> None:
    model = multiplications((128, 32), (32, 128), (64, 64), (2, 64, 32), (BLOCK + 1, 8), (BLOCK, 8))
    assert expect_narrowing(ir.from_proto(model)) == ("m0", "m5")
    activations = multiplications((128, 32))
    activations.graph.node[0].input[1] = "computed"
    activations.graph.input.append(helper.make_tensor_value_info("computed", TensorProto.FLOAT, [128, 32]))
    for other in (multiplications((128, 32), operator="Gemm"), activations):
        with pytest.raises(NotApplicable, match="no MatMul narrows"):
            expect_narrowing(ir.from_proto(other))


def test_every_node_gets_a_name_of_its_own() -> None:
    model = multiplications((4, 2), (4, 2), (4, 2), (4, 2))
    for node, name in zip(model.graph.node, ["", "kept", "kept", ""], strict=True):
        node.name = name
    graph = ir.from_proto(model)
    name_nodes(graph)
    names = [node.name for node in graph.graph]
    assert names[1] == "kept"
    assert len(set(names)) == 4
    assert all(names)


def block(tmp_path: Path) -> onnx.ModelProto:
    """LayerNormalization -> MatMul that widens -> Relu -> MatMul that narrows, on disk; nodes without names."""
    size, wide = 2 * BLOCK, 4 * BLOCK
    random = np.random.default_rng(3)
    tensors = {"gamma": spread(size, 1), "beta": spread(size, 2)}
    tensors |= {"up": random.standard_normal((size, wide)).astype(np.float32)}
    tensors |= {"down": random.standard_normal((wide, size)).astype(np.float32)}
    nodes = [
        helper.make_node("LayerNormalization", ["x", "gamma", "beta"], ["normal"]),
        helper.make_node("MatMul", ["normal", "up"], ["wide"]),
        helper.make_node("Relu", ["wide"], ["active"]),
        helper.make_node("MatMul", ["active", "down"], ["y"]),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size]) for name in "xy"]
    weights = [numpy_helper.from_array(array, name) for name, array in tensors.items()]
    graph = helper.make_graph(nodes, "block", values[:1], values[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.save(model, tmp_path / "source.onnx")
    return model


def quantized(
    tmp_path: Path, *operators: str, smooth_first: bool = False, weight_only: bool = False, bits: int = 0
) -> list[str]:
    how: DynamicQuantization | WeightQuantization
    if bits:
        how = WeightQuantization(kind="weight-only", operators=operators, bits=bits)  # type: ignore[arg-type]
    else:
        how = DynamicQuantization(
            kind="dynamic",
            operators=operators,
            smoothing="layer-norm" if smooth_first else None,
            narrowing="weight-only" if weight_only else "integer",
        )
    model = ir.load(tmp_path / "source.onnx")
    quantize(model, plans.variant("int8", "int8", quantization=how))
    ir.save(model, tmp_path / "output.onnx")
    return [node.op_type for node in model.graph]


def test_weights_become_signed_integers_with_a_scale_a_column(tmp_path: Path) -> None:
    block(tmp_path)
    operators = quantized(tmp_path, "MatMul", "Gemm")
    assert operators.count("MatMulInteger") == 2
    assert "MatMul" not in operators
    found = initializers(onnx.load(tmp_path / "output.onnx"))
    assert found["up_quantized"].dtype == np.int8
    assert found["up_scale"].shape == (4 * BLOCK,)
    assert not any(name in found for name in ("up", "down"))


def test_smoothing_comes_before_rounding(tmp_path: Path) -> None:
    block(tmp_path)
    assert quantized(tmp_path, "MatMul", smooth_first=True).count("Mul") > quantized(tmp_path, "MatMul").count("Mul")


def test_narrowing_weights_alone_become_integers(tmp_path: Path) -> None:
    block(tmp_path)
    operators = quantized(tmp_path, "MatMul", weight_only=True)
    assert (operators.count("MatMulInteger"), operators.count("MatMulNBits")) == (1, 1)
    nodes = onnx.load(tmp_path / "output.onnx").graph.node
    attributes = {a.name: a.i for node in nodes if node.op_type == "MatMulNBits" for a in node.attribute}
    assert (attributes["bits"], attributes["block_size"], attributes["accuracy_level"]) == (8, BLOCK, 4)


@pytest.mark.parametrize(("bits", "error"), [(8, 0.02), (4, 0.2)])
def test_weights_alone_become_integers(tmp_path: Path, bits: int, error: float) -> None:
    model = block(tmp_path)
    assert sorted(set(quantized(tmp_path, "MatMul", bits=bits))) == ["LayerNormalization", "MatMulNBits", "Relu"]
    nodes = onnx.load(tmp_path / "output.onnx").graph.node
    attributes = [{a.name: a.i for a in node.attribute} for node in nodes if node.op_type == "MatMulNBits"]
    assert [entry["bits"] for entry in attributes] == [bits, bits]
    x = np.random.default_rng(0).standard_normal((16, 2 * BLOCK)).astype(np.float32)
    (wanted,) = run(model, x)
    session = onnxruntime.InferenceSession(tmp_path / "output.onnx", providers=["CPUExecutionProvider"])
    (actual,) = session.run(None, {"x": x})
    assert 0 < np.abs(actual - wanted).mean() < error * np.abs(wanted).mean()


@pytest.mark.parametrize(
    ("operators", "options", "reason"),
    [
        (["Gemm", "Gather"], {}, "nothing to quantize: no Gemm or Gather with constant weights"),
        (["MatMul"], {"smooth_first": True}, "nothing to smooth"),
        (["MatMul"], {"weight_only": True}, "nothing to keep in floating point"),
        (["MatMul"], {"bits": 4}, "nothing to quantize: no MatMul with constant weights"),
    ],
)
def test_a_model_without_anything_of_the_kind(
    tmp_path: Path, operators: list[str], options: dict[str, Any], reason: str
) -> None:
    onnx.save(multiplied() if options else block(tmp_path), tmp_path / "source.onnx")
    with pytest.raises(NotApplicable, match=reason):
        quantized(tmp_path, *operators, **options)


def multiplied() -> onnx.ModelProto:
    """One square MatMul: nothing widens, nothing narrows."""
    weight = numpy_helper.from_array(np.ones((8, 8), np.float32), "w")
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 8]) for name in "xy"]
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "g", values[:1], values[1:], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
