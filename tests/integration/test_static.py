"""Calibration and static quantization of exported transformers, in the processes that a build uses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper
from tests.support import plans
from tests.support.builds import ROOT
from tests.support.passes import quantize_files, rewrite_files

from ortc.common.arrays import Array, Arrays, read_arrays, write_arrays
from ortc.common.errors import NotApplicable, StageError
from ortc.passes.quantization.calibration import Range, Ranges, _write_observed, calibrate
from ortc.passes.quantization.quantizable import observed
from ortc.spec.quantization import StaticQuantization

pytestmark = pytest.mark.integration

INTERPRETER = Path(sys.executable)
OTHERS = pytest.mark.proof("test_transformers_on_integers with BERT and ViT; test_gelu_is_reordered")


def answers(path: Path, inputs: Arrays, optimized: Path | None = None) -> list[Array]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    # As the profiles do: without VNNI, products of two 8-bit integers overflow.
    options.add_session_config_entry("session.x64quantprecision", "1")
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


@pytest.mark.parametrize("name", ["bert", "vit", *(pytest.param(name, marks=OTHERS) for name in ("roberta", "clip"))])
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
    rewrite_files(source, merged, ("merge-projections",))
    quantize_files(merged, output, found, operators=operators, smooth=smooth)
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
        quantize_files(encoders / "bert" / "canonical", tmp_path, found, operators=("Conv",))


def peak(program: Path, *arguments: str, requests: Sequence[object] = ()) -> int:
    """The most memory, in bytes, that a program of the compiler held resident; a worker answers requests meanwhile."""
    command = [sys.executable, str(ROOT / "tests" / "support" / "peak.py"), str(program), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "compiler")}
    lines = "".join(f"{json.dumps(request)}\n" for request in requests)
    done = subprocess.run(command, input=lines, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    *replies, held = done.stdout.splitlines()
    assert [json.loads(reply)["ok"] for reply in replies] == [True] * len(requests), replies
    return int(held)


@pytest.mark.parametrize("method", ["minmax", "percentile"])
def test_memory_of_calibration_does_not_grow_with_samples(tmp_path: Path, method: str) -> None:
    """Every sample makes four megabytes of activations, each in another shape."""
    width = 1024
    nodes = [helper.make_node("MatMul", ["x", "v"], ["h"]), helper.make_node("MatMul", ["h", "w"], ["y"])]
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", None]) for name in "xy"]
    weights = {"v": np.ones((1, width), np.float32), "w": np.ones((width, 4), np.float32)}
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], tensors)
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    wanted = observed(model, ("MatMul",))
    _write_observed(model, wanted, tmp_path / "observed.onnx", with_values=method == "percentile")
    paths = [str(tmp_path / f"{n}.npz") for n in range(64)]
    for n, path in enumerate(paths):
        write_arrays(Path(path), {"x": np.full((width - n, 1), n, np.float32)})

    def held(count: int) -> int:
        opening = {
            "op": "open",
            "model": str(tmp_path / "observed.onnx"),
            "folder": str(tmp_path),
            "tensors": [tensor.name for tensor in wanted],
            "method": method,
            "percentile": 99.9,
            "threads": 1,
        }
        samples = [{"op": "add", "sample": path} for path in paths[:count]]
        requests = [opening, *samples, {"op": "save", "output": str(tmp_path / "found.npz")}]
        return peak(ROOT / "compiler/ortc/passes/quantization/ort_observe.py", requests=requests)

    assert held(64) - held(4) < 16 * 2**20


@pytest.mark.parametrize("smooth", [0.75, "auto"])
def test_memory_of_quantization(tmp_path: Path, smooth: float | str) -> None:
    """Weights are rounded one after the other: all of them at once are only there as integers."""
    size, count = 2048, 12
    nodes = [helper.make_node("MatMul", [f"x{n}", f"w{n}"], [f"x{n + 1}"]) for n in range(count)]
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", size]) for name in ("x0", f"x{count}")]
    weight = np.random.default_rng(0).standard_normal((size, size)).astype(np.float32)
    tensors = [numpy_helper.from_array(weight, f"w{n}") for n in range(count)]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], tensors)
    (tmp_path / "source").mkdir()
    (tmp_path / "output").mkdir()
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "source" / "model.onnx", save_as_external_data=True, location="model.onnx.data")
    ends = Range(np.full(size, -1, np.float32), np.full(size, 1, np.float32), np.full(size, 0.3, np.float32))
    Ranges({f"x{n}": ends for n in range(count)}, "minmax", 1).save(tmp_path / "ranges.npz")
    quantization = StaticQuantization(kind="static", operators=("MatMul",), smoothing=smooth)
    variant = plans.variant("int8-static", "int8", quantization=quantization)
    request = {
        "canonical": str(tmp_path / "source"),
        "output": str(tmp_path / "output"),
        "ranges": str(tmp_path / "ranges.npz"),
        "interpreter": None,
        "level": "off",
        "variant": variant.model_dump(mode="json"),
    }
    program = tmp_path / "make.py"
    program.write_text("import json, sys\nfrom ortc.passes.__main__ import make\nmake(json.loads(sys.argv[1]))\n")
    held = peak(program, json.dumps(request))
    # Pages of the file that is read count too, though they are given back when others need them.
    assert held < 2.5 * count * weight.nbytes
    quantized = onnx.load(tmp_path / "output" / "model.onnx")
    assert sum(node.op_type == "QuantizeLinear" for node in quantized.graph.node) == count
