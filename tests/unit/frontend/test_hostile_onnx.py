"""ONNX files that are not well-formed, or grow when they are read: refused, with the part that is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from tests.support.graphs import linear, linear_with_external_weight, node, with_functions
from tests.support.plans import EXPORT

from ortc.common.errors import StageError
from ortc.frontend.import_onnx import import_onnx


def calls(count: int, *, of: Callable[[int], list[onnx.NodeProto]], inputs: str = "x") -> onnx.ModelProto:
    """A graph that calls the first of so many functions."""
    made = linear()
    made.graph.node.insert(0, helper.make_node("F0", inputs.split(), ["z"], domain="d"))
    made.graph.node[1].input[0] = "z"
    return with_functions(made, *map(of, range(count)))


def twice(number: int) -> list[onnx.NodeProto]:
    if number == 39:
        return [node("Relu", "a", "b")]
    called = f"F{number + 1}"
    return [helper.make_node(called, ["a"], ["t"], domain="d"), helper.make_node(called, ["t"], ["b"], domain="d")]


def declared(size: int) -> onnx.ModelProto:
    made = linear()
    made.graph.input[0].type.tensor_type.shape.dim[1].dim_value = size
    return made


WRONG = {
    "an offset below 0": (lambda: linear_with_external_weight(offset=-8, length=48), "`w` lies at offset -8"),
    "an offset beyond the end": (lambda: linear_with_external_weight(offset=10**15, length=48), "has 256 bytes"),
    "an offset of 40 digits": (lambda: linear_with_external_weight(offset="9" * 40), "has 256 bytes"),
    "an offset in words": (lambda: linear_with_external_weight(offset="abc"), "offset abc"),
    "a length that is another": (lambda: linear_with_external_weight(offset=0, length=4), "need 48"),
    "sizes beyond all memory": (
        lambda: linear_with_external_weight((2**62, 2**62), offset=0, length=48),
        "which has 256 bytes",
    ),
    "a directory": (lambda: linear_with_external_weight(location=".", offset=0), "which has 0 bytes"),
    "a name of 5,000 letters": (lambda: linear_with_external_weight(location="a" * 5000), "which has 0 bytes"),
    "an input too large for a spec": (lambda: declared(2**62), "cannot be imported"),
    "a function that calls itself": (
        lambda: calls(1, of=lambda _: [helper.make_node("F0", ["a"], ["b"], domain="d")]),
        "`F0` of the file calls itself",
    ),
    "functions that double": (lambda: calls(40, of=twice), "more than 1000000 nodes"),
    "a call with too many inputs": (
        lambda: calls(1, of=lambda _: [node("Relu", "a", "b")], inputs="x x x"),
        "functions of the file cannot be written out",
    ),
    "a function of what nobody defines": (lambda: calls(1, of=lambda _: [node("Relu", "nope", "b")]), "cannot be"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_not_well_formed_is_refused(tmp_path: Path, wrong: str) -> None:
    make, said = WRONG[wrong]
    (tmp_path / "w.bin").write_bytes(np.ones(64, np.float32).tobytes())
    (tmp_path / "file.onnx").write_bytes(make().SerializeToString())
    (tmp_path / "out").mkdir()
    with pytest.raises(StageError) as caught:
        import_onnx(tmp_path / "file.onnx", EXPORT, tmp_path / "out")
    assert said in caught.value.message
    assert caught.value.help


def test_weights_in_another_file_are_read(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(np.arange(64, dtype=np.float32).tobytes())
    (tmp_path / "out").mkdir()
    for entries in ({"offset": 64, "length": 48}, {"offset": 64}, {"offset": 64, "length": 0}):
        (tmp_path / "file.onnx").write_bytes(linear_with_external_weight(**entries).SerializeToString())
        import_onnx(tmp_path / "file.onnx", EXPORT, tmp_path / "out")
        (weight,) = onnx.load(tmp_path / "out" / "model.onnx").graph.initializer
        assert onnx.numpy_helper.to_array(weight).ravel().tolist() == list(range(16, 28))
