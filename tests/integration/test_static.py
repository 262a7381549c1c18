"""Calibration and static quantization of exported transformers, in the processes that a build uses."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from ortc.arrays import Array, Arrays, read_arrays, write_arrays
from ortc.errors import StageError
from ortc.stages.calibrate import Ranges, calibrate
from ortc.stages.quantize import NotApplicable
from ortc.stages.rewrite import rewrite
from ortc.stages.static import quantize_static

pytestmark = pytest.mark.integration

INTERPRETER = Path(sys.executable)


def answers(path: Path, inputs: Arrays, optimized: Path | None = None) -> list[Array]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    return list(ort.InferenceSession(path, options, providers=["CPUExecutionProvider"]).run(None, inputs))


def cosine(a: Array, b: Array) -> float:
    return float((a.ravel() @ b.ravel()) / np.linalg.norm(a) / np.linalg.norm(b))


def samples(directory: Path, inputs: Arrays, count: int) -> list[Path]:
    """Files of one row each, of different lengths where there is a sequence."""
    paths = []
    for index in range(count):
        width = 8 + 4 * (index % 3)
        row = {
            name: value[index % len(value)][None] if value.ndim == 4 else value[index % len(value)][None, :width]
            for name, value in inputs.items()
        }
        paths.append(directory / f"{index}.npz")
        write_arrays(paths[-1], row)
    return paths


@pytest.mark.parametrize("name", ["bert", "roberta", "vit", "clip"])
@pytest.mark.parametrize("smooth", [None, 0.5])
def test_transformers_on_integers(encoders: Path, tmp_path: Path, name: str, smooth: float | None) -> None:
    """Every multiplication by a weight runs on integers, and the answers are close to PyTorch's."""
    source, merged, output = encoders / name / "canonical", tmp_path / "merged", tmp_path / "output"
    for directory in (merged, output):
        directory.mkdir()
    inputs, wanted = read_arrays(encoders / name / "inputs.npz"), read_arrays(encoders / name / "outputs.npz")
    operators = ("MatMul", "Gemm")
    found = calibrate(INTERPRETER, source, samples(tmp_path, inputs, 6), tmp_path / "ranges.npz", operators=operators)
    # Merged projections read the same tensors: ranges of the one graph are those of the other.
    rewrite(source, merged, ("merge-projections",))
    quantize_static(merged, output, found, operators=operators, smooth=smooth)
    before = Counter(node.op_type for node in onnx.load(merged / "model.onnx").graph.node)
    actual = answers(output / "model.onnx", inputs, tmp_path / "optimized.onnx")
    after = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    attention = 2 * 2
    assert after["MatMulIntegerToFloat"] + after["QGemm"] == before["MatMul"] + before["Gemm"] - attention
    assert after["DequantizeLinear"] == 0, "a weight is dequantized at every run"
    assert min(map(cosine, actual, wanted.values())) > 0.999


def test_ranges_are_those_of_all_samples(encoders: Path, tmp_path: Path) -> None:
    inputs = read_arrays(encoders / "bert" / "inputs.npz")
    paths = samples(tmp_path, inputs, 6)

    def ranges(chosen: list[Path], method: str = "minmax") -> Ranges:
        source, output = encoders / "bert" / "canonical", tmp_path / "ranges.npz"
        found = calibrate(INTERPRETER, source, chosen, output, operators=("MatMul",), method=method)  # type: ignore[arg-type]
        kept = Ranges.load(output)
        assert (kept.method, kept.samples, list(kept.tensors)) == (method, len(chosen), list(found.tensors))
        return kept

    whole, parts = ranges(paths), [ranges([path]) for path in paths]
    mean = ranges(paths, "moving-average")
    for name, entry in whole.tensors.items():
        lows, highs = zip(*((part.tensors[name].minimum, part.tensors[name].maximum) for part in parts), strict=True)
        np.testing.assert_array_equal(entry.minimum, np.min(lows, axis=0))
        np.testing.assert_array_equal(entry.maximum, np.max(highs, axis=0))
        np.testing.assert_allclose(mean.tensors[name].minimum, np.mean(lows, axis=0), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(mean.tensors[name].maximum, np.mean(highs, axis=0), rtol=1e-5, atol=1e-6)


def test_calibration_that_cannot_be(encoders: Path, tmp_path: Path) -> None:
    source, output = encoders / "bert" / "canonical", tmp_path / "ranges.npz"
    with pytest.raises(StageError, match="needs samples"):
        calibrate(INTERPRETER, source, [], output, operators=("MatMul",))
    write_arrays(tmp_path / "bad.npz", {"input_ids": np.zeros((1, 4), np.float32)})
    with pytest.raises(StageError, match=r"calibration fails: .*input_ids"):
        calibrate(INTERPRETER, source, [tmp_path / "bad.npz"], output, operators=("MatMul",))
    assert not output.exists()


def test_nothing_to_quantize(encoders: Path, tmp_path: Path) -> None:
    found = calibrate(
        INTERPRETER,
        encoders / "bert" / "canonical",
        samples(tmp_path, read_arrays(encoders / "bert" / "inputs.npz"), 1),
        tmp_path / "ranges.npz",
        operators=("Conv",),
    )
    assert found.tensors == {}
    with pytest.raises(NotApplicable, match="nothing to quantize: no Conv with constant weights and known ranges"):
        quantize_static(encoders / "bert" / "canonical", tmp_path, found, operators=("Conv",))
