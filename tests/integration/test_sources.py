"""Every kind of model source builds; what would run code, or is not the declared bytes, is refused."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from tests.support import bundles
from tests.support.builds import PLAIN, Build, Compiler, answer, loader
from tests.support.programs import two_faced

from ortc.common.errors import StageError
from ortc.inspection.pt2_safety import refuse_code

pytestmark = pytest.mark.integration

WriteSpec = Callable[..., Path]
LINEAR: dict[str, Any] = {
    "dynamic_axes": {"batch": {"min": 1, "typical": 1, "max": 8}},
    "inputs": {"x": {"dtype": "float32", "shape": ["batch", 4]}},
}
DIGEST = "0" * 64
RESNET = {"opset": 18, "dynamic_axes": {"batch": {"min": 1, "max": 4}}}
HEAD = {"source": "huggingface", "task": "image-classification", "weights": "random"}
HUB = {
    **HEAD,
    "id": "nobody/resnet",
    "revision": "0123456789abcdef0123456789abcdef01234567",
    "files": {"config.json": DIGEST},
}


@pytest.fixture
def project(models: Path, tmp_path: Path) -> Path:
    """A project of its own around the small models."""
    root = tmp_path / "project"
    shutil.copytree(models, root)
    return root


def manifest_of(bundle: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((bundle / "manifest.json").read_bytes())
    return document


def build(ortc: Compiler, spec: Path, tmp_path: Path) -> Build:
    return ortc.build(spec, *PLAIN, output=tmp_path / "dist", cwd=spec.parent)


@pytest.mark.proof("test_onnx_at_another_opset builds the same file")
def test_onnx(ortc: Compiler, project: Path, write_spec: WriteSpec, tmp_path: Path) -> None:
    onnx.save(bundles.linear_model(), project / "linear.onnx")
    model = {"source": "onnx", "path": "linear.onnx", "sha256": bundles.digest(project / "linear.onnx")}
    spec = write_spec(project, model, {"opset": 17, "dynamic_axes": LINEAR["dynamic_axes"]})
    result = build(ortc, spec, tmp_path).succeeded()
    manifest = manifest_of(result.bundle("small", "cpu"))
    assert manifest["model"]["exporter"] == "onnx"
    assert [tensor["name"] for tensor in manifest["outputs"]] == ["y", "label"]


def test_onnx_at_another_opset(
    ortc: Compiler, project: Path, write_spec: WriteSpec, tmp_path: Path, fresh_python: Callable[[Path], Path]
) -> None:
    onnx.save(bundles.linear_model(), project / "linear.onnx")
    export = {"opset": 20, "dynamic_axes": LINEAR["dynamic_axes"], "outputs": ["y"]}
    spec = write_spec(project, {"source": "onnx", "path": "linear.onnx"}, export)
    result = build(ortc, spec, tmp_path).succeeded()
    bundle = result.bundle("small", "cpu")
    made = onnx.load(bundle / "model" / "model.onnx")
    assert {entry.domain: entry.version for entry in made.opset_import}[""] == 20
    assert [value.name for value in made.graph.output] == ["y"]
    x = np.random.default_rng(3).standard_normal((8, 4)).astype(np.float32)
    np.savez(tmp_path / "inputs.npz", x=x)
    arguments = ("run", "--npz", tmp_path / "inputs.npz", "--output", tmp_path / "outputs.npz")
    answer(loader(fresh_python(bundle), bundle, *arguments))
    expected = onnx.reference.ReferenceEvaluator(bundles.linear_model()).run(["y"], {"x": x})
    assert isinstance(expected, list)
    with np.load(tmp_path / "outputs.npz") as outputs:
        np.testing.assert_allclose(outputs["y"], expected[0], atol=1e-5)


def test_onnx_with_an_undeclared_dimension(
    ortc: Compiler, project: Path, write_spec: WriteSpec, tmp_path: Path
) -> None:
    onnx.save(bundles.text_model(), project / "text.onnx")
    spec = write_spec(
        project,
        {"source": "onnx", "path": "text.onnx"},
        {"opset": 17, "dynamic_axes": {"batch": {"max": 4}}},
    )
    result = build(ortc, spec, tmp_path)
    assert "`sequence` that is no declared axis" in result.failed(4)
    assert result.bundles() == []


@pytest.mark.proof("test_a_file_keeps_its_own_opset builds an ONNX file without PyTorch")
def test_onnx_that_is_a_bundle(
    built: Build, ortc: Compiler, project: Path, write_spec: WriteSpec, tmp_path: Path
) -> None:
    """What one build ships, another can start from; without PyTorch there is no task metric and no speed-up."""
    shutil.copyfile(built.succeeded().bundle("digits", "cpu") / "model" / "model.onnx", project / "digits.onnx")
    axes = {"batch": {"min": 1, "typical": 1, "max": 64}}
    spec = write_spec(project, {"source": "onnx", "path": "digits.onnx"}, {"opset": 20, "dynamic_axes": axes})
    result = build(ortc, spec, tmp_path)
    manifest = manifest_of(result.succeeded().bundle("small", "cpu"))
    assert manifest["inputs"][0]["shape"] == ["batch", 1, 8, 8]
    (target,) = result.report("small")["targets"]
    assert target["numbers"]["speedup"] is None


@pytest.mark.proof("test_exported_program_of_a_drafted_spec builds the same program")
def test_exported_program(ortc: Compiler, project: Path, write_spec: WriteSpec, tmp_path: Path) -> None:
    model = {"source": "exported_program", "path": "program.pt2", "sha256": bundles.digest(project / "program.pt2")}
    spec = write_spec(project, model, {"opset": 20, "dynamic_axes": {"batch": {"min": 1, "typical": 1, "max": 16}}})
    manifest = manifest_of(build(ortc, spec, tmp_path).succeeded().bundle("small", "cpu"))
    assert manifest["inputs"] == [{"name": "x", "dtype": "float32", "shape": ["batch", 4], "range": None}]
    assert manifest["outputs"][0]["shape"] == ["batch", 3]


def test_exported_program_of_a_drafted_spec(ortc: Compiler, project: Path, tmp_path: Path) -> None:
    """What `ortc init` reads in an archive is what torch finds in it: the spec builds as it was written."""
    command = [sys.executable, "-m", "ortc", "init", "program.pt2", "-o", "drafted.yaml"]
    done = subprocess.run(command, cwd=project, env=ortc.environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    manifest = manifest_of(
        build(ortc, project / "drafted.yaml", tmp_path).succeeded().bundle("program", "cpu", "0.1.0")
    )
    assert [(axis["name"], axis["min"], axis["max"]) for axis in manifest["axes"]] == [("batch", 1, 16)]
    assert manifest["inputs"] == [{"name": "x", "dtype": "float32", "shape": ["batch", 4], "range": None}]


@pytest.mark.proof("test_weights_that_run_code reads this format; test_both_specs_build loads weights")
def test_torch_weights(
    ortc: Compiler, project: Path, write_spec: WriteSpec, tmp_path: Path, fresh_python: Callable[[Path], Path]
) -> None:
    """A state dict of plain tensors in torch's own format loads, and is what answers."""
    model = {"source": "pytorch", "entrypoint": "models:linear", "weights": "weights.pt"}
    bundle = build(ortc, write_spec(project, model, LINEAR), tmp_path).succeeded().bundle("small", "cpu")
    assert manifest_of(bundle)["provenance"]["files"] == [
        {"name": "weights.pt", "sha256": bundles.digest(project / "weights.pt")}
    ]
    answer(loader(fresh_python(bundle), bundle, "selftest"))


@pytest.mark.parametrize(
    "name",
    ["code.pt", pytest.param("module.pt", marks=pytest.mark.proof("test_weights_that_run_code with a dictionary"))],
)
def test_weights_that_run_code(
    ortc: Compiler, project: Path, write_spec: WriteSpec, tmp_path: Path, models: Path, name: str
) -> None:
    model = {"source": "pytorch", "entrypoint": "models:linear", "weights": name}
    result = build(ortc, write_spec(project, model, LINEAR), tmp_path)
    told = result.failed(4)
    assert f"refused to read `{name}`: reading it would run code that the file carries" in told
    assert "safetensors" in told
    assert result.bundles() == []
    assert not list(models.glob("ran-*")), "its code was run"


@pytest.mark.parametrize("name", ["weights.pkl", "weights.joblib"])
def test_pickles_are_refused_by_name(
    ortc: Compiler, project: Path, write_spec: WriteSpec, tmp_path: Path, name: str
) -> None:
    (project / "code.pt").rename(project / name)
    model = {"source": "pytorch", "entrypoint": "models:linear", "weights": name}
    told = build(ortc, write_spec(project, model, LINEAR), tmp_path).failed(3)
    assert "would run code when it is read" in told


LOOKED_INTO = pytest.mark.proof("test_archives_are_looked_into_first; test_programs_that_run_code with a tensor")


@pytest.mark.parametrize(
    "name",
    [pytest.param("disguised", marks=LOOKED_INTO), "tensor", pytest.param("expression", marks=LOOKED_INTO)],
)
def test_programs_that_run_code(
    ortc: Compiler, project: Path, write_spec: WriteSpec, tmp_path: Path, models: Path, name: str
) -> None:
    """Ways in which torch.export.load runs what an archive carries."""
    model = {"source": "exported_program", "path": f"{name}.pt2"}
    spec = write_spec(project, model, {"opset": 20, "dynamic_axes": LINEAR["dynamic_axes"]})
    result = build(ortc, spec, tmp_path)
    assert f"`{name}.pt2`" in result.failed(4)
    assert result.bundles() == []
    assert not list(models.glob("ran-*")), "its code was run"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("object", "it holds `data/constants/opaque_obj_0`, which is no part of a plain program"),
        ("disguised", "which is no part of a plain program"),
        ("expression", "a size is `__import__('os').system("),
        ("library", "it holds `data/aotinductor/model/a.so`, which is no part of a plain program"),
        ("twice", "it has more than one member"),
        ("text", "is no .pt2 archive"),
    ],
)
def test_archives_are_looked_into_first(models: Path, tmp_path: Path, name: str, reason: str) -> None:
    path = tmp_path / f"{name}.pt2"
    if name == "text":
        path.write_text("no archive")
    elif name == "twice":
        shutil.copyfile(models / "program.pt2", path)
        with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr(next(n for n in archive.namelist() if n.endswith("model.json")), "{}")
    else:
        shutil.copyfile(models / f"{name}.pt2", path)
    with pytest.raises(StageError, match=re.escape(reason)):
        refuse_code(path)


def test_torch_reads_the_program_that_was_checked(models: Path, tmp_path: Path) -> None:
    """A file with two directories shows one program to whoever checks it, and another one to torch."""
    with zipfile.ZipFile(models / "program.pt2") as plain, zipfile.ZipFile(models / "expression.pt2") as hostile:
        shown = {name: plain.read(name) for name in plain.namelist()}
        code = hostile.read(next(name for name in hostile.namelist() if name.endswith("/model.json")))
    hidden = {name: code if name.endswith("/model.json") else content for name, content in shown.items()}
    two_faced(tmp_path / "two.pt2", shown, hidden)
    script = (
        "import sys; from pathlib import Path; from ortc.plan.plan import ExportPlan, AxisPlan;"
        "from ortc.frontend.reference.custom import load_program;"
        "from ortc.spec.model_sources import ExportedProgramSource;"
        "axes = (AxisPlan(name='batch', min=1, typical=1, max=8, multiple_of=1),);"
        "source = ExportedProgramSource(source='exported_program', path='two.pt2');"
        "export = ExportPlan(opset=20, ir_version=10, exporter='auto', axes=axes, inputs=None, outputs=None);"
        "print(load_program(source, Path(sys.argv[1]), export).inputs[0].name)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert not list(models.glob("ran-*")), "its code was run"
    assert done.stdout == "x\n", done.stderr


def test_a_plain_program_is_let_through(models: Path) -> None:
    refuse_code(models / "program.pt2")


def test_bytes_that_are_not_the_declared_ones(
    ortc: Compiler, project: Path, write_spec: WriteSpec, tmp_path: Path
) -> None:
    """Wherever a file comes from, its digest decides."""
    onnx.save(bundles.linear_model(), project / "linear.onnx")
    entry = {"source": "pytorch", "entrypoint": "models:linear"}
    cases: list[tuple[dict[str, Any], dict[str, Any], str, str]] = [
        (
            {**entry, "weights": "weights.pt", "sha256": DIGEST},
            LINEAR,
            "`weights.pt` has another sha256 than declared",
            "weights.pt",
        ),
        (
            {"source": "onnx", "path": "linear.onnx", "sha256": DIGEST},
            LINEAR,
            "`linear.onnx` has another sha256 than declared",
            "linear.onnx",
        ),
        (
            {"source": "exported_program", "path": "program.pt2", "sha256": DIGEST},
            LINEAR,
            "`program.pt2` has another sha256 than declared",
            "program.pt2",
        ),
        (
            {**HEAD, "path": "resnet", "files": {"config.json": DIGEST}},
            RESNET,
            "`resnet/config.json` has another sha256 than declared",
            "resnet/config.json",
        ),
        ({**HUB, "mirrors": ["path:resnet"]}, RESNET, "path:resnet: refused", "resnet/config.json"),
        (
            {**HUB, "mirrors": [f"file://{project}/resnet"]},
            RESNET,
            f"file://{project}/resnet: refused",
            "resnet/config.json",
        ),
    ]
    for model, export, told, file in cases:
        result = build(ortc, write_spec(project, model, export), tmp_path)
        text = result.failed(3 if "has another" in told else 4)
        assert told in text
        assert DIGEST in text
        # A mirror that is a URL may name any file of this machine: what it holds is not told.
        assert (bundles.digest(project / file) in text) == ("file://" not in told)
        assert result.bundles() == []


@pytest.mark.proof("test_the_nearest_place_with_the_right_bytes_is_taken; test_the_report_has_every_promise")
def test_a_bad_mirror_before_a_good_one_is_noted_and_does_no_harm(
    ortc: Compiler, project: Path, write_spec: WriteSpec, tmp_path: Path
) -> None:
    config = hashlib.sha256((project / "resnet" / "config.json").read_bytes()).hexdigest()
    (project / "bad").mkdir()
    (project / "bad" / "config.json").write_text("{}")
    model = {**HUB, "files": {"config.json": config}, "mirrors": ["path:bad", "path:resnet"]}
    result = build(ortc, write_spec(project, model, RESNET), tmp_path).succeeded()
    assert "path:bad: refused" in result.stderr
    # What is left to say of a ResNet: at an opset that dynamo reaches, there is nothing to explain.
    report = result.report("small")
    assert (report["exporter"], report["exporter_reason"]) == ("dynamo", None)
