"""ONNX files are judged as they came: by ONNX Runtime on the fetched file, whatever an import makes of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from tests.support.builds import PLAIN, Compiler
from tests.support.graphs import floats, model, node

from ortc.common.arrays import read_arrays, write_arrays
from ortc.common.resources import cache_root
from ortc.evaluation.compare import compare
from ortc.execution.host import describe
from ortc.execution.runtime_environment import environment
from ortc.execution.worker import Worker
from ortc.frontend.import_onnx import import_onnx
from ortc.frontend.samples.inputs import synthetic
from ortc.plan.plan import AxisPlan, ExportPlan
from ortc.spec.runtimes import ir_version_for_opset, pins

pytestmark = pytest.mark.integration

WriteSpec = Callable[..., Path]
AXES = {"batch": {"min": 1, "max": 4}}
IMAGE = {"x": ["batch", 2, 6, 6]}
LARGER = {"y": ["batch", None, None, None]}
RANDOM = np.random.default_rng(0)


def resized(operator: str, opset: int, mode: str, scale: float) -> onnx.ModelProto:
    constants = {"scales": floats(1, 1, scale, scale)}
    return model([node(operator, "x scales", "y", mode=mode)], IMAGE, LARGER, constants, opset=opset, ir_version=4)


CHANGED = {
    "upsample-7": model(
        [node("Upsample", "x", "y", mode="linear", scales=[1.0, 1.0, 1.5, 1.5])], IMAGE, LARGER, opset=7, ir_version=3
    ),
    "upsample-9-linear": resized("Upsample", 9, "linear", 2),
    "upsample-9-fraction": resized("Upsample", 9, "nearest", 1.7),
    "resize-10-linear": resized("Resize", 10, "linear", 2),
    "resize-10-smaller": resized("Resize", 10, "linear", 0.5),
    "resize-10-fraction": resized("Resize", 10, "nearest", 1.7),
    "hardmax-11": model(
        [node("Hardmax", "x", "y", axis=1)], {"x": ["batch", 3, 4]}, {"y": ["batch", 3, 4]}, opset=11, ir_version=6
    ),
}
"""Files that ONNX's version converter turns into other functions without a word."""

_SMALL = {"x": ["batch", 4]}
KEPT = {
    "resize-10-twice": resized("Resize", 10, "nearest", 2),
    "softmax-11": model([node("Softmax", "x", "y", axis=1)], {"x": ["batch", 3, 4]}, {"y": ["batch", 3, 4]}, opset=11),
    "clip-6": model([node("Clip", "x", "y", min=-0.5, max=0.5)], _SMALL, {"y": ["batch", 4]}, opset=9),
    "pad-2": model([node("Pad", "x", "y", pads=[0, 1, 0, 1], value=0.5)], _SMALL, {"y": ["batch", 6]}, opset=10),
    "top-1": model([node("TopK", "x", "y i", k=2)], _SMALL, {"y": ["batch", 2]}, opset=9),
    "squeeze-11": model(
        [node("Unsqueeze", "x", "u", axes=[2]), node("Squeeze", "u", "y", axes=[2])],
        _SMALL,
        {"y": ["batch", 4]},
        opset=11,
    ),
    "batch-normalization-9": model(
        [node("BatchNormalization", "x scale bias mean variance", "y")],
        IMAGE,
        {"y": ["batch", 2, 6, 6]},
        {name: RANDOM.random(2, np.float32) + 0.1 for name in ("scale", "bias", "mean", "variance")},
        opset=9,
    ),
    "dropout-10": model([node("Dropout", "x", "y", ratio=0.5)], _SMALL, {"y": ["batch", 4]}, opset=11),
    "reduce-11": model([node("ReduceSum", "x", "y", axes=[1])], _SMALL, {"y": ["batch", 1]}, opset=11),
    "relu-6": model([node("Relu", "x", "y")], _SMALL, {"y": ["batch", 4]}, opset=7, ir_version=3),
}
"""Files whose conversion keeps their answers."""


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    """ONNX Runtime, without ortc's import in between."""
    requirements = pins("onnxruntime").requirements_txt((describe().platform,))
    interpreter = environment(requirements, cache_root() / "environments", on_make=lambda: None)
    with Worker.for_original("original", interpreter) as started:
        yield started


def differs(worker: Worker, source: Path, opset: int, work: Path) -> bool:
    """Whether the canonical graph of a file answers otherwise than the file."""
    axes = (AxisPlan(name="batch", min=1, typical=1, max=4),)
    plan = ExportPlan(
        opset=opset, ir_version=ir_version_for_opset(opset), exporter="auto", axes=axes, inputs=None, outputs=None
    )
    exported = import_onnx(source, plan, work)
    write_arrays(work / "inputs.npz", {tensor.name: synthetic(tensor, {"batch": 3}, "x") for tensor in exported.inputs})
    answers = []
    for path in (source, work / "model.onnx"):
        names = {"inputs": [tensor.name for tensor in exported.inputs], "outputs": ["y"]}
        worker.call("load", model=str(path), labels={}, threads=1, **names)
        worker.call("run", inputs=str(work / "inputs.npz"), outputs=str(work / "outputs.npz"))
        answers.append(read_arrays(work / "outputs.npz")["y"])
    found = compare("y", answers[0], answers[1], None)
    return found.problem is not None or found.max_abs > 1e-4


@pytest.mark.parametrize("name", CHANGED)
def test_the_file_shows_what_a_conversion_changed(name: str, worker: Worker, tmp_path: Path) -> None:
    onnx.save(CHANGED[name], tmp_path / "file.onnx")
    assert differs(worker, tmp_path / "file.onnx", 20, tmp_path)
    own = max(9, CHANGED[name].opset_import[0].version)
    assert not differs(worker, tmp_path / "file.onnx", own, tmp_path)


@pytest.mark.parametrize("name", KEPT)
def test_conversions_that_keep_the_answers_pass(name: str, worker: Worker, tmp_path: Path) -> None:
    onnx.save(KEPT[name], tmp_path / "file.onnx")
    assert not differs(worker, tmp_path / "file.onnx", 20, tmp_path)


def onnx_spec(root: Path, write_spec: WriteSpec, made: onnx.ModelProto, **export: Any) -> Path:
    onnx.save(made, root / "file.onnx")
    return write_spec(root, {"source": "onnx", "path": "file.onnx"}, {"dynamic_axes": AXES, **export})


def test_a_file_keeps_its_own_opset(ortc: Compiler, write_spec: WriteSpec, tmp_path: Path) -> None:
    spec = onnx_spec(tmp_path, write_spec, CHANGED["resize-10-linear"])
    built = ortc.build(spec, *PLAIN, output=tmp_path / "dist", cwd=tmp_path).succeeded()
    bundle = built.bundle("small", "cpu")
    assert json.loads((bundle / "manifest.json").read_bytes())["model"]["opset"] == 10
    golden = read_arrays(next((bundle / "golden").glob("*.outputs.npz")))["y"]
    assert golden.shape[2:] == (12, 12)


def test_a_conversion_that_changes_the_answers_is_refused(
    ortc: Compiler, write_spec: WriteSpec, tmp_path: Path
) -> None:
    spec = onnx_spec(tmp_path, write_spec, CHANGED["hardmax-11"], opset=20)
    built = ortc.build(spec, *PLAIN, output=tmp_path / "dist", cwd=tmp_path)
    told = built.failed(5)
    assert "the conversion from opset 11 to 20 changed the answers of the ONNX file" in told
    assert "operators that it touched: Hardmax" in told
    assert "leave out `export.opset`, which keeps the file's own, 11" in told
    assert built.bundles() == []


def test_a_file_of_a_newer_opset_than_the_runtime_reads(ortc: Compiler, write_spec: WriteSpec, tmp_path: Path) -> None:
    """Its operators are the same at both opsets, so that stamping another on the file changes nothing of it."""
    made = model([node("Relu", "x", "y")], _SMALL, {"y": ["batch", 4]}, opset=28, ir_version=14)
    spec = onnx_spec(tmp_path, write_spec, made)
    built = ortc.build(spec, *PLAIN, output=tmp_path / "dist", cwd=tmp_path)
    assert "use `opset: 26`" in built.failed(3)
    spec = onnx_spec(tmp_path, write_spec, made, opset=26)
    ortc.build(spec, *PLAIN, output=tmp_path / "dist", cwd=tmp_path).succeeded()


def test_external_data_builds(ortc: Compiler, write_spec: WriteSpec, tmp_path: Path) -> None:
    """Weights in a subdirectory, and an output shape that is not so, ship as one graph and as the shape that is."""
    weights = RANDOM.random((4, 3), np.float32)
    made = model([node("MatMul", "x w", "y")], _SMALL, {"y": [1, 7]}, {"w": weights})
    spec = onnx_spec(tmp_path, write_spec, made)
    (tmp_path / "weights").mkdir()
    path = tmp_path / "file.onnx"
    onnx.save(made, path, save_as_external_data=True, location="weights/w.bin", size_threshold=0)
    built = ortc.build(spec, *PLAIN, output=tmp_path / "dist", cwd=tmp_path).succeeded()
    bundle = built.bundle("small", "cpu")
    assert sorted(file.name for file in (bundle / "model").iterdir()) == ["model.onnx"]
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    assert manifest["outputs"][0]["shape"] == ["batch", 3]
    assert [file["name"] for file in manifest["provenance"]["files"]] == ["file.onnx", "weights/w.bin"]
    golden = bundle / "golden"
    inputs, outputs = (read_arrays(golden / f"0.{kind}.npz") for kind in ("inputs", "outputs"))
    np.testing.assert_allclose(outputs["y"], inputs["x"] @ weights, rtol=1e-5)
