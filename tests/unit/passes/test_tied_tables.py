"""Tables of embeddings that a product reads too: stored once as integers, whatever form the graph has them in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from tests.support import plans

from ortc.passes.quantization.data_free import quantize
from ortc.spec.quantization import DynamicQuantization, WeightQuantization

WORDS, WIDTH = 96, 32
TABLE = np.random.default_rng(1).standard_normal((WORDS, WIDTH)).astype(np.float32)
SQUARE = np.random.default_rng(2).standard_normal((WIDTH, WIDTH)).astype(np.float32)
DYNAMIC = DynamicQuantization(kind="dynamic", operators=("MatMul", "Gemm", "Gather"))
WEIGHTS = WeightQuantization(kind="weight-only", bits=8, operators=("MatMul", "Gather"))
IDS = np.random.default_rng(3).integers(0, WORDS, (3, 5))
FORMS = {
    "transposed": [
        helper.make_node("Transpose", ["table"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["rows", "turned"], ["scores"]),
    ],
    "folded": [helper.make_node("MatMul", ["rows", "copy"], ["scores"])],
    "Gemm": [
        helper.make_node("Reshape", ["rows", "flat"], ["matrix"]),
        helper.make_node("Gemm", ["matrix", "table"], ["scores"], transB=1),
    ],
}


def tied(path: Path, form: str, table: np.ndarray, *, opset: int = 17) -> onnx.ModelProto:
    """A lookup of rows, and their product with the same table."""
    nodes = [helper.make_node("Gather", ["table", "ids"], ["rows"], name="lookup"), *FORMS[form]]
    arrays = {"table": table, "copy": np.ascontiguousarray(table.T), "flat": np.asarray([-1, WIDTH])}
    read = {name for node in nodes for name in node.input}
    rank = 2 if form == "Gemm" else 3
    graph = helper.make_graph(
        nodes,
        "tied",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "sequence"])],
        [
            helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["batch", "sequence", WIDTH]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, [None] * rank),
        ],
        [numpy_helper.from_array(array, name) for name, array in arrays.items() if name in read],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    onnx.save(model, path)
    return model


def answers(path: Path, ids: np.ndarray = IDS) -> list[np.ndarray]:
    """Computed exactly: processors without a sum of integers in 32 bits may saturate."""
    return [np.asarray(value) for value in ReferenceEvaluator(onnx.load(path)).run(None, {"ids": ids})]


def served(path: Path, ids: np.ndarray = IDS) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return [np.asarray(value) for value in session.run(None, {"ids": ids})]


def quantized(path: Path, how: DynamicQuantization | WeightQuantization, *exclude: str) -> dict[str, ir.Value]:
    """The initializers of the quantized model, which takes the file's place."""
    model = ir.load(path)
    quantize(model, plans.variant("int8", "int8", quantization=how, exclude=exclude))
    ir.save(model, path)
    return dict(model.graph.initializers)


def matrices(constants: dict[str, ir.Value]) -> list[ir.DataType]:
    """Types of what is as large as the table."""
    tensors = [value.const_value for value in constants.values() if value.const_value is not None]
    return [tensor.dtype for tensor in tensors if tensor.size >= WIDTH * WIDTH]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("opset", [13, 17])
def test_a_tied_table_is_stored_once(form: str, opset: int, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    tied(path, form, TABLE, opset=opset)
    rows, scores = answers(path)
    assert matrices(quantized(path, DYNAMIC)) == [ir.DataType.INT8]
    found_rows, found_scores = answers(path)
    # A rounded number is off by half a step, and a step is the greatest of its scale over 127.
    assert np.abs(found_rows - rows).max() <= np.abs(TABLE).max() / 127 / 2 * 1.001
    assert found_scores.shape == scores.shape
    assert np.linalg.norm(found_scores - scores) < 0.02 * np.linalg.norm(scores)
    np.testing.assert_array_equal(served(path)[0], found_rows)


@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (1, 1)])
def test_a_tied_table_gives_rows_of_any_number(shape: tuple[int, int], tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    tied(path, "transposed", TABLE)
    quantized(path, DYNAMIC)
    assert served(path, np.ones(shape, np.int64))[0].shape == (*shape, WIDTH)


def test_a_product_of_the_table_as_it_is_shares_its_integers(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    model = tied(path, "folded", SQUARE, opset=19)
    model.graph.node[1].input[1] = "table"
    del model.graph.initializer[1]
    onnx.save(model, path)
    wanted = answers(path, IDS % WIDTH)
    assert matrices(quantized(path, DYNAMIC)) == [ir.DataType.INT8]
    for found, value in zip(answers(path, IDS % WIDTH), wanted, strict=True):
        assert np.linalg.norm(found - value) < 0.02 * np.linalg.norm(value)


def test_another_table_of_the_same_shape_is_not_shared(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    model = tied(path, "folded", TABLE, opset=19)
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(2 * np.ascontiguousarray(TABLE.T), "copy"))
    onnx.save(model, path)
    rows, _ = answers(path)
    assert matrices(quantized(path, DYNAMIC)) == [ir.DataType.INT8, ir.DataType.INT8]
    assert np.abs(answers(path)[0] - rows).max() <= np.abs(TABLE).max() / 127 / 2 * 1.001


def test_a_table_that_stays_in_floating_point_gets_no_integers(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    tied(path, "Gemm", TABLE)
    size = path.stat().st_size
    assert matrices(quantized(path, DYNAMIC, "Gemm_ortc_2")) == [ir.DataType.FLOAT]
    assert path.stat().st_size <= size + 200


@pytest.mark.parametrize("how", [DYNAMIC, WEIGHTS])
@pytest.mark.parametrize("form", FORMS)
def test_integers_are_smaller_than_the_table(
    form: str, how: DynamicQuantization | WeightQuantization, tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    tied(path, form, TABLE)
    found = quantized(path, how) if (how is DYNAMIC or form != "Gemm") else {}
    tensors = [value.const_value for value in found.values() if value.const_value is not None]
    assert sum(tensor.nbytes for tensor in tensors) < TABLE.nbytes
