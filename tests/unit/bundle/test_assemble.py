"""What a bundle is assembled from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from tests.support.bundles import runtime_module, text_model
from tests.support.plans import ROOT, accuracy, plan

from ortc.bundle.assemble import (
    UNFIT,
    Made,
    Material,
    assemble,
    tolerance,
    unfit_reason,
)
from ortc.bundle.manifest import DecisionInfo, Manifest, OutputTolerance, SourceFileInfo, Tolerance
from ortc.bundle.publish import seal
from ortc.bundle.render import runtime_files
from ortc.common.arrays import write_arrays
from ortc.evaluation.accuracy import ReferenceCase
from ortc.evaluation.compare import Difference
from ortc.evaluation.report import CaseResult, Check
from ortc.evaluation.spread import OutputError
from ortc.frontend.fetch import Fetched, FetchedFile
from ortc.passes.canonical import Exported, OutputInfo
from ortc.passes.variant_graph import VariantGraph
from ortc.plan.plan import InputPlan
from ortc.spec.model_sources import PyTorchModel

loader: Any = runtime_module("loader")
files_module = runtime_module("loading.files")
golden_module = runtime_module("loading.golden")


def test_tolerances_are_the_promises() -> None:
    promised = accuracy(max_abs=1e-3, cosine=0.97)
    assert tolerance("fp32", promised) == Tolerance(max_abs=1e-3, cosine=None)
    for precision in ("fp16", "bf16", "int8"):
        assert tolerance(precision, promised) == Tolerance(max_abs=None, cosine=0.97, relative_error=0.2)


def test_tolerances_are_of_what_was_measured_too() -> None:
    case = CaseResult(
        case="batch=2",
        differences=(
            Difference(output="score", max_abs=0.4, cosine=1.0, top1=None),
            Difference(output="label", max_abs=1.0, cosine=None, top1=0.9, labels=10),
            Difference(output="one", max_abs=0.0, cosine=None, top1=1.0, labels=1),
        ),
    )
    spread = OutputError(output="score", rows=9, values=1, scale=4.0, max_abs=0.4, nrmse=0.1, spearman=None)
    check = Check(cases=(case,), outputs=(spread,))
    found = tolerance("int8", accuracy(nrmse=0.3), check, "batch=2").outputs
    # What the spread allows, or twice what was seen, whichever is more.
    assert found["score"] == OutputTolerance(max_abs=1.2)
    assert tolerance("int8", accuracy(nrmse=0.1), check, "batch=2").outputs["score"].max_abs == 0.8
    assert found["label"] == OutputTolerance(top1_agreement=0.9)
    assert found["one"] == OutputTolerance(top1_agreement=1.0)
    assert tolerance("fp32", accuracy(), check, "batch=2").outputs == {}


def test_golden_rows_of_one_value_are_not_judged_by_their_sign() -> None:
    """The self-test of a regression refuses answers that only have the right sign."""
    expected = np.array([[0.3], [2.0], [1.0]], np.float32)
    spread = OutputError(output="score", rows=9, values=1, scale=0.7, max_abs=0.01, nrmse=0.02, spearman=1.0)
    case = CaseResult(case="a", differences=(Difference(output="score", max_abs=0.01, cosine=1.0, top1=None),))
    found = tolerance("int8", accuracy(), Check(cases=(case,), outputs=(spread,)), "a").model_dump(mode="json")
    limits = {**found, **found["outputs"]["score"]}
    assert golden_module.compare(expected, expected + np.float32(0.1), limits)[1] is None
    assert "max_abs is 0.7, allowed 0.21" in str(golden_module.compare(expected, expected[::-1], limits)[1])
    assert "max_abs" in str(golden_module.compare(expected, expected * np.float32(3), limits)[1])


def test_golden_answers_that_never_vary_are_held_to_max_abs() -> None:
    """A constant output at reduced precision: neither its direction nor its size excuses a difference."""
    expected = np.full((3, 16), 4.6, np.float32)
    fields = {"output": "scale", "rows": 9, "values": 16, "scale": 4.6, "nrmse": 0.0, "spearman": None}
    spread = OutputError(**fields, max_abs=1e-5, is_constant=True)
    case = CaseResult(case="a", differences=(Difference(output="scale", max_abs=1e-5, cosine=1.0, top1=None),))
    found = tolerance("int8", accuracy(max_abs=1e-4), Check(cases=(case,), outputs=(spread,)), "a")
    limits = {**found.model_dump(mode="json"), **found.outputs["scale"].model_dump(mode="json")}
    assert golden_module.compare(expected, expected + np.float32(5e-5), limits)[1] is None
    assert "max_abs" in str(golden_module.compare(expected, expected * np.float32(1.01), limits)[1])
    assert golden_module.compare(expected * 0, expected * 0 + np.float32(1e-5), limits)[1] is None


IDS = np.arange(6, dtype=np.int64).reshape(2, 3)


@pytest.fixture
def material(tmp_path: Path) -> Material:
    """A small text model with one case, exported."""
    shape = ("batch", "sequence")
    inputs, outputs = tmp_path / "in.npz", tmp_path / "out.npz"
    write_arrays(inputs, {"ids": IDS, "attention_mask": np.ones_like(IDS)})
    write_arrays(outputs, {"hidden": np.zeros((2, 3, 8), np.float32)})
    return Material(
        plan=plan(ROOT / "specs" / "bert.yaml", targets=("cpu",)),
        fetched=Fetched(
            directory=tmp_path, files=(FetchedFile(name="config.json", sha256="c" * 64, origin="path:model"),)
        ),
        exported=Exported(
            exporter="dynamo",
            opset=17,
            ir_version=10,
            domains={},
            inputs=(
                InputPlan(name="ids", dtype="int64", shape=shape, range=(0, 49)),
                InputPlan(name="attention_mask", dtype="int64", shape=shape),
            ),
            outputs=(OutputInfo(name="hidden", dtype="float32", shape=(*shape, 8)),),
            operators={},
            warnings=(),
        ),
        exporter_reason=None,
        cases=(
            ReferenceCase(
                name="batch=2",
                inputs=inputs,
                outputs=outputs,
                excluding=("hidden",),
                padding=InputPlan(name="attention_mask", dtype="int64", shape=shape),
            ),
        ),
        tools={"torch": "2.13.0"},
    )


@pytest.fixture
def made(tmp_path: Path, material: Material) -> Made:
    directory = tmp_path / "variant"
    directory.mkdir()
    onnx.save(text_model(), directory / "model.onnx")
    size = (directory / "model.onnx").stat().st_size
    graph = VariantGraph(bytes=size, domains={"com.microsoft": 1}, operators={})
    files = {path.name: path for path in directory.iterdir()}
    return Made(variant=material.plan.targets[0].variants[0], level="all", files=lambda: files, graph=graph)


def assembled(tmp_path: Path, material: Material, made: Made, **options: Any) -> tuple[Path, Manifest]:
    place = tmp_path / f"bundle-{len(list(tmp_path.glob('bundle-*')))}"
    place.mkdir()
    return place, assemble(place, material, material.plan.targets[0], made, **options)


def test_a_bundle_passes_its_loaders_check_of_files(tmp_path: Path, material: Material, made: Made) -> None:
    place, manifest = assembled(tmp_path, material, made, batch_invariant=True)
    seal(place, manifest)
    read = files_module.read_manifest(place, "full")
    assert (read["name"], read["version"], read["target"]) == ("bert", "1.0.0", "cpu")
    assert [(entry["mask"], entry["masked_outputs"]) for entry in read["golden"]] == [("attention_mask", ["hidden"])]
    assert (place / "golden" / "0.inputs.npz").read_bytes() == material.cases[0].inputs.read_bytes()
    assert sorted(str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()) == [
        ".dockerignore",
        "Dockerfile",
        "README.md",
        "SHA256SUMS",
        "golden/0.inputs.npz",
        "golden/0.outputs.npz",
        "manifest.json",
        "model/model.onnx",
        "requirements-grpc.txt",
        "requirements-trace.txt",
        "requirements.txt",
        *(f"runtime/{path}" for path in runtime_files()),
        "sbom.cdx.json",
        "session.json",
    ]


def test_what_the_manifest_tells(tmp_path: Path, material: Material, made: Made) -> None:
    decision = DecisionInfo(variant="fp32", outcome="selected", reason="fastest that passes")
    _, manifest = assembled(tmp_path, material, made, batch_invariant=False, provisional=True, decisions=(decision,))
    assert (manifest.variant.name, manifest.variant.batch_invariant, manifest.provisional) == ("fp32", False, True)
    assert (manifest.fit_to_serve, manifest.unfit_reason, manifest.decisions) == (True, None, (decision,))
    assert manifest.provenance.source == "huggingface:sentence-transformers/all-MiniLM-L6-v2"
    assert manifest.provenance.revision == "1110a243fdf4706b3f48f1d95db1a4f5529b4d41"
    assert manifest.warmup == ({"batch": 1, "sequence": 128},)
    assert str(tmp_path) not in manifest.model_dump_json()


def test_random_weights_are_unfit(tmp_path: Path, material: Material, made: Made) -> None:
    source = material.plan.model.model_copy(update={"weights": "random"})
    random = Material(**{**vars(material), "plan": material.plan.model_copy(update={"model": source})})
    _, manifest = assembled(tmp_path, random, made)
    module = PyTorchModel(source="pytorch", entrypoint="net:build", weights="random")
    assert unfit_reason(material.plan.model_copy(update={"model": module})) == UNFIT
    for weights in ("entrypoint", "none", "w.safetensors"):
        fit = module.model_copy(update={"weights": weights})
        assert unfit_reason(material.plan.model_copy(update={"model": fit})) is None
    assert (manifest.fit_to_serve, manifest.unfit_reason) == (False, UNFIT)


def test_files_that_the_entry_point_read_are_listed(tmp_path: Path, material: Material, made: Made) -> None:
    module = PyTorchModel(source="pytorch", entrypoint="net:build", weights="entrypoint")
    read = FetchedFile(name="runs/w.pt", sha256="d" * 64, origin="entrypoint")
    of_module = Material(
        **{
            **vars(material),
            "plan": material.plan.model_copy(update={"model": module}),
            "fetched": Fetched(directory=tmp_path, files=()),
            "opened": (read,),
        }
    )
    place, manifest = assembled(tmp_path, of_module, made)
    assert manifest.provenance.files == (SourceFileInfo(name="runs/w.pt", sha256="d" * 64),)
    named = {entry["bom-ref"] for entry in json.loads((place / "sbom.cdx.json").read_bytes())["components"]}
    assert "source:runs/w.pt" in named


def test_equal_material_gives_equal_bundles(tmp_path: Path, material: Material, made: Made) -> None:
    def contents(place: Path) -> dict[str, bytes]:
        return {str(p.relative_to(place)): p.read_bytes() for p in place.rglob("*") if p.is_file()}

    first, again = (assembled(tmp_path, material, made) for _ in range(2))
    for place, manifest in (first, again):
        seal(place, manifest)
    assert contents(first[0]) == contents(again[0])
