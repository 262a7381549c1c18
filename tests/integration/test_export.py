"""An export is what was asked for, or is refused with its cause."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from tests.support.builds import PLAIN, Build, Compiler

pytestmark = pytest.mark.integration

WriteSpec = Callable[..., Path]
RESNET = {"source": "huggingface", "path": "resnet", "task": "image-classification", "weights": "random"}
BATCH = {"batch": {"min": 1, "typical": 1, "max": 4}}
LINEAR: dict[str, Any] = {"dynamic_axes": BATCH, "inputs": {"x": {"dtype": "float32", "shape": ["batch", 4]}}}


def build(ortc: Compiler, spec: Path, tmp_path: Path, *options: str) -> Build:
    return ortc.build(spec, *options, output=tmp_path / "dist", cwd=spec.parent)


def refused(ortc: Compiler, spec: Path, tmp_path: Path, exit_code: int = 4) -> str:
    """What a build says that exports nothing."""
    result = build(ortc, spec, tmp_path)
    told = result.failed(exit_code)
    assert result.bundles() == []
    return told


@pytest.mark.proof("test_dynamo_alone_refuses_that_opset; test_right_over_the_shape_matrix falls back and says why")
def test_an_opset_that_dynamo_does_not_reach(
    ortc: Compiler, models: Path, write_spec: WriteSpec, tmp_path: Path
) -> None:
    """dynamo gives a ResNet at 18 and says nothing: TorchScript gives 17, and the reason is told everywhere."""
    spec = write_spec(models, RESNET, {"opset": 17, "dynamic_axes": BATCH}, name="resnet17")
    result = build(ortc, spec, tmp_path, *PLAIN).succeeded()
    bundle = result.bundle("resnet17", "cpu")
    model = onnx.load(bundle / "model" / "model.onnx")
    assert {entry.domain: entry.version for entry in model.opset_import}[""] == 17
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    assert manifest["model"]["opset"] == 17
    assert manifest["model"]["exporter"] == "torchscript"
    reason = manifest["model"]["exporter_reason"]
    assert "dynamo exporter gave opset 18 instead of 17" in reason
    report = result.report("resnet17")
    assert (report["exporter"], report["exporter_reason"]) == ("torchscript", reason)
    assert reason in " ".join(result.stdout.split())
    assert "trying the torchscript exporter" in result.stderr
    # Random weights are said to be so, whoever exported them.
    assert manifest["fit_to_serve"] is False


def test_dynamo_alone_refuses_that_opset(ortc: Compiler, models: Path, write_spec: WriteSpec, tmp_path: Path) -> None:
    spec = write_spec(models, RESNET, {"opset": 17, "exporter": "dynamo", "dynamic_axes": BATCH}, name="resnet17")
    told = refused(ortc, spec, tmp_path)
    assert "the dynamo exporter gave opset 18 instead of 17; these operators need it: " in told
    assert "help: set `export.opset: 18`, or `export.exporter: torchscript`" in told


ALONE = pytest.mark.proof("test_a_branch_on_a_value and test_a_shape_baked_in with `auto`, which tries both exporters")


@pytest.mark.parametrize(
    "exporter", ["auto", pytest.param("dynamo", marks=ALONE), pytest.param("torchscript", marks=ALONE)]
)
def test_a_branch_on_a_value(
    ortc: Compiler, models: Path, write_spec: WriteSpec, tmp_path: Path, exporter: str
) -> None:
    """No sample takes the other branch: what was traced agrees with PyTorch everywhere, and is still not the model."""
    model = {"source": "pytorch", "entrypoint": "models:branch", "weights": "random"}
    told = refused(ortc, write_spec(models, model, {**LINEAR, "exporter": exporter}), tmp_path)
    assert "models.py" in told, "the place in the user's code"
    assert "if y.sum() > 1000" in told
    assert "torch.where, masks" in told, "what to write instead"
    if exporter != "torchscript":
        assert "the dynamo exporter fails" in told


@pytest.mark.parametrize(
    ("entry", "exporter", "cause"),
    [
        # PyTorch itself fails at other batch sizes than the traced one.
        pytest.param("baked", "dynamo", ["the export fixed the axis `batch` of `x` to 3"], marks=ALONE),
        ("baked", "torchscript", ["the model fails in PyTorch on inputs of shape [1, 4]", "shape '[3, 3]' is invalid"]),
        # PyTorch does not; the graph does.
        pytest.param("fixed", "dynamo", ["the export fixed the axis `batch` of `x` to 3"], marks=ALONE),
        pytest.param(
            "fixed",
            "torchscript",
            ["the torchscript export does not run as PyTorch does: at batch=1", "Reshape"],
            marks=ALONE,
        ),
        ("fixed", "auto", ["dynamo: the export fixed the axis `batch`", "torchscript export does not run", "batch=1"]),
    ],
)
def test_a_shape_baked_in(
    ortc: Compiler,
    models: Path,
    write_spec: WriteSpec,
    tmp_path: Path,
    entry: str,
    exporter: str,
    cause: list[str],
) -> None:
    model = {"source": "pytorch", "entrypoint": f"models:{entry}", "weights": "random"}
    told = refused(ortc, write_spec(models, model, {**LINEAR, "exporter": exporter}), tmp_path)
    assert [text for text in cause if text not in told] == []


def test_a_size_baked_into_the_answers(ortc: Compiler, models: Path, write_spec: WriteSpec, tmp_path: Path) -> None:
    """The graph runs everywhere; it is the answers that are those of another size."""
    model = {"source": "pytorch", "entrypoint": "models:truncated", "weights": "random"}
    told = refused(ortc, write_spec(models, model, {**LINEAR, "exporter": "torchscript"}), tmp_path, 5)
    assert "output `output` at batch=" in told
