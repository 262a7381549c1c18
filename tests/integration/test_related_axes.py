"""An ONNX file whose dimensions are sums of others: drafted, built, run and refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.support.builds import PLAIN, Compiler
from tests.support.serving import serve

pytestmark = pytest.mark.integration

TOTAL = "past_length + sequence_length"


def cached_step() -> onnx.ModelProto:
    """A step of a decoder: earlier positions before new ones, and a mask over both."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["new"]),
        helper.make_node("Concat", ["past", "new"], ["all"], axis=1),
        helper.make_node("Unsqueeze", ["mask", "last"], ["wide"]),
        helper.make_node("Mul", ["all", "wide"], ["masked"]),
        helper.make_node("MatMul", ["masked", "weights"], ["y"]),
    ]
    generator = np.random.default_rng(0)
    stored = [
        numpy_helper.from_array(generator.standard_normal((16, 4)).astype(np.float32), "table"),
        numpy_helper.from_array(generator.standard_normal((4, 4)).astype(np.float32), "weights"),
        numpy_helper.from_array(np.array([2]), "last"),
    ]
    inputs = [
        helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch_size", "sequence_length"]),
        helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["batch_size", TOTAL]),
        helper.make_tensor_value_info("past", TensorProto.FLOAT, ["batch_size", "past_length", 4]),
    ]
    given = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch_size", TOTAL, 4])]
    graph = helper.make_graph(nodes, "step", inputs, given, initializer=stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_sizes_that_belong_together_are_drawn_and_checked_so(ortc: Compiler, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").touch()
    onnx.save(cached_step(), tmp_path / "step.onnx")
    spec = tmp_path / "step.yaml"
    command = [sys.executable, "-m", "ortc", "init", "step.onnx", "-t", "cpu", "-o", str(spec)]
    subprocess.run(command, cwd=tmp_path, env=ortc.environment(), capture_output=True, check=True)
    assert "equals: past_length + sequence" in spec.read_text("utf-8")
    small = [f"export.dynamic_axes.{axis}.{key}={size}" for axis, key, size in SIZES]
    options = [option for setting in small for option in ("--set", setting)]
    ortc.build(spec, *PLAIN, *options, output=tmp_path / "dist", cwd=tmp_path).succeeded()
    bundle = tmp_path / "dist" / "step" / "0.1.0" / "cpu"

    def request(total: int) -> bytes:
        tensors = {
            "ids": ("INT64", [1, 2], [1, 2]),
            "mask": ("FP32", [1, total], [1.0] * total),
            "past": ("FP32", [1, 3, 4], [0.5] * 12),
        }
        return json.dumps(
            {
                "inputs": [
                    {"name": name, "datatype": datatype, "shape": shape, "data": data}
                    for name, (datatype, shape, data) in tensors.items()
                ]
            }
        ).encode()

    with serve(bundle) as server:
        status, answer = server.request("POST", "/v2/models/step/infer", request(5))
        assert (status, answer["outputs"][0]["shape"]) == (200, [1, 5, 4])
        status, answer = server.request("POST", "/v2/models/step/infer", request(4))
        assert status == 400
        assert "past_length_sequence_length is 4. Send past_length + sequence, which is 5." in answer["error"]


SIZES = (
    *(("sequence", key, size) for key, size in (("typical", 2), ("max", 4))),
    *(("past_length", key, size) for key, size in (("typical", 3), ("max", 6))),
    *(("past_length_sequence_length", key, size) for key, size in (("typical", 5), ("max", 10))),
)
