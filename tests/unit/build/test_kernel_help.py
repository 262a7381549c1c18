"""What a build says where ONNX Runtime lacks a kernel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from tests.support.graphs import model, node

from ortc.build.original import kernel_help


def test_a_missing_kernel_is_told_from_other_failures(tmp_path: Path) -> None:
    kinds = {"x": onnx.TensorProto.DOUBLE, "y": onnx.TensorProto.DOUBLE}
    shape = {"x": [1, 1, 4, 4]}
    made = model([node("Conv", "x w", "y")], shape, {"y": [1, 1, 2, 2]}, {"w": np.ones((1, 1, 3, 3))}, dtypes=kinds)
    onnx.save(made, tmp_path / "file.onnx")
    with pytest.raises(Exception, match="Conv") as refused:
        ort.InferenceSession(tmp_path / "file.onnx", providers=["CPUExecutionProvider"])
    assert "model.float()" in str(kernel_help(str(refused.value)))
    assert kernel_help("Invalid model. Node input 'm' is not a graph input") is None
