"""Fused and half-precision graphs of real transformers: every layer, and the answers that the plain graph gives."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from tests.support.builds import ROOT, Compiler

from ortc.arrays import Arrays
from ortc.compare import compare
from ortc.host import gpus
from ortc.stages.half import upcast
from ortc.stages.rewrite import rewrite

pytestmark = pytest.mark.integration
without_gpu = pytest.mark.skipif(bool(gpus()), reason="this host has a GPU, where the target is measured")

MakeCache = Callable[[Path], Path]
MODELS = {
    # Attentions, normalizations with a residual, activations with a bias.
    "bert-17": (12, 24, 12),
    "bert-20": (3, 6, 3),
    # Embeddings are added and normalized, too.
    "roberta-18": (3, 7, 3),
    "distilbert-20": (3, 6, 3),
    "vit-17": (3, 6, 3),
}
SHAPES = ((1, 1), (1, 7), (3, 33), (8, 64))


@pytest.fixture(scope="module")
def layered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exported models of several layers; not to be changed."""
    root = tmp_path_factory.mktemp("layered")
    program = ROOT / "tests" / "support" / "export_encoders.py"
    command = [sys.executable, str(program), str(root), "layered"]
    done = subprocess.run(command, capture_output=True, text=True, env=Compiler(root).environment(), check=False)
    assert done.returncode == 0, done.stderr
    return root


@pytest.fixture(scope="module")
def rewritten(layered: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """Each model plain, fused, in half precision, and as half precision is checked on a CPU."""
    found = {}
    for name in MODELS:
        found[name, "plain"] = layered / name / "canonical"
        for form, rewrites in {"fused": ("fuse",), "half": ("fuse", "half")}.items():
            found[name, form] = tmp_path_factory.mktemp(f"{name}-{form}")
            rewrite(found[name, "plain"], found[name, form], rewrites)  # type: ignore[arg-type]
        found[name, "checked"] = tmp_path_factory.mktemp(f"{name}-checked")
        upcast(found[name, "half"], found[name, "checked"])
    return found


def session(directory: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(directory / "model.onnx", options, providers=["CPUExecutionProvider"])


def operators(directory: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(directory / "model.onnx").graph.node)


def inputs_of(model: ort.InferenceSession, batch: int, length: int, padded: bool) -> Arrays:
    random = np.random.default_rng(batch * 100 + length)
    mask = np.ones((batch, length), np.int64)
    for row in range(batch if padded else 0):
        mask[row, max(1, length - 3 * row) :] = 0
    every: Arrays = {
        "pixel_values": random.standard_normal((batch, 3, 32, 32)).astype(np.float32),
        "input_ids": random.integers(2, 100, (batch, length)),
        "attention_mask": mask,
        "token_type_ids": np.zeros((batch, length), np.int64),
    }
    return {entry.name: every[entry.name] for entry in model.get_inputs()}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("form", ["fused", "half"])
def test_every_layer_is_fused(rewritten: dict[tuple[str, str], Path], name: str, form: str) -> None:
    found = operators(rewritten[name, form])
    assert (found["Attention"], found["SkipLayerNormalization"], found["BiasGelu"]) == MODELS[name]
    assert found["Softmax"] + found["Erf"] + found["Gelu"] == 0


@pytest.mark.parametrize("name", MODELS)
def test_the_answers_stay(rewritten: dict[tuple[str, str], Path], name: str) -> None:
    plain, fused, half = (session(rewritten[name, form]) for form in ("plain", "fused", "checked"))
    outputs = [entry.name for entry in plain.get_outputs()]
    for batch, length in SHAPES:
        for padded in (False, True):
            inputs = inputs_of(plain, batch, length, padded)
            wanted, exact, rounded = (
                dict(zip(outputs, s.run(None, inputs), strict=True)) for s in (plain, fused, half)
            )
            for output in outputs:
                np.testing.assert_allclose(exact[output], wanted[output], atol=1e-4, rtol=0)
                difference = compare(output, wanted[output], rounded[output], inputs.get("attention_mask"))
                assert difference.problem is None
                assert difference.cosine is not None
                assert difference.cosine > 0.9999
                # It is float16 that was looked at.
                assert difference.max_abs > 1e-5


@pytest.mark.parametrize("name", ["bert-17", "roberta-18", "distilbert-20"])
@pytest.mark.parametrize("form", ["fused", "checked"])
def test_a_mask_is_a_mask(rewritten: dict[tuple[str, str], Path], name: str, form: str) -> None:
    """What stands at masked positions has no part in other positions' answers."""
    model = session(rewritten[name, form])
    inputs = inputs_of(model, 4, 33, padded=True)
    hidden = inputs["attention_mask"] == 0
    others = inputs | {"input_ids": np.where(hidden, 101 - inputs["input_ids"], inputs["input_ids"])}
    one, other = (np.asarray(model.run(None, given)[0]) for given in (inputs, others))
    np.testing.assert_array_equal(one[~hidden], other[~hidden])
    assert np.abs(one[hidden] - other[hidden]).max() > 0.1


def test_a_row_without_any_token_is_finite_in_half_precision(rewritten: dict[tuple[str, str], Path]) -> None:
    model = session(rewritten["bert-17", "checked"])
    inputs = inputs_of(model, 2, 16, padded=False)
    inputs["attention_mask"][0] = 0
    assert all(np.isfinite(answer).all() for answer in model.run(None, inputs))


def test_the_same_graph_gives_the_same_bytes(
    layered: Path, rewritten: dict[tuple[str, str], Path], tmp_path: Path
) -> None:
    assert rewrite(layered / "vit-17" / "canonical", tmp_path, ("fuse", "half")) == {"fuse": 12, "half": 14}
    assert (tmp_path / "model.onnx").read_bytes() == (rewritten["vit-17", "half"] / "model.onnx").read_bytes()


@pytest.fixture(scope="module")
def project(layered: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A spec for a GPU of a model with seeded weights."""
    root = tmp_path_factory.mktemp("project")
    shutil.copytree(layered / "distilbert-20", root / "model", ignore=shutil.ignore_patterns("canonical", "*.npz"))
    document = {
        "apiVersion": "ortc/v1alpha1",
        "kind": "ModelDeployment",
        "name": "small",
        "version": "1.0.0",
        "model": {"source": "huggingface", "path": "model", "task": "feature-extraction", "weights": "random"},
        "export": {
            "opset": 18,
            "exporter": "dynamo",
            "dynamic_axes": {"batch": {"min": 1, "max": 3}, "sequence": {"min": 1, "max": 16}},
        },
        "targets": {"server-gpu": {"unmeasured": "allow"}},
    }
    (root / "small.yaml").write_text(json.dumps(document), "utf-8")
    return root


@pytest.fixture(scope="module")
def compiler(make_cache: MakeCache, tmp_path_factory: pytest.TempPathFactory) -> Compiler:
    return Compiler(make_cache(tmp_path_factory.mktemp("fusion") / "cache"))


@without_gpu
@pytest.mark.parametrize(
    ("variant", "gate"),
    [("fp32-fused", "max_abs on CPU"), ("fp16-fused", "cosine on CPU")],
)
def test_it_ships_as_what_was_checked(
    compiler: Compiler, project: Path, tmp_path: Path, variant: str, gate: str
) -> None:
    build = compiler.build(project / "small.yaml", "--variant", variant, output=tmp_path).succeeded()
    target = build.report("small")["targets"][0]
    assert (target["variant"], target["status"], target["parity"]) == (variant, "provisional", None)
    outcomes = {verdict["gate"]: verdict["outcome"] for verdict in target["verdicts"]}
    assert outcomes == {gate: "pass", "parity": "unmeasured"}
    bundle = build.bundle("small", "server-gpu")
    assert json.loads((bundle / "manifest.json").read_bytes())["model"]["domains"] == {"com.microsoft": 1}
    assert operators(bundle / "model")["Attention"] == 3


@without_gpu
def test_what_comes_first_ships_where_nothing_can_be_measured(
    compiler: Compiler, project: Path, tmp_path: Path
) -> None:
    build = compiler.build(project / "small.yaml", output=tmp_path).succeeded()
    decisions = {entry["variant"]: entry for entry in build.report("small")["targets"][0]["decisions"]}
    assert decisions["fp32"]["outcome"] == "selected"
    assert {name: entry["outcome"] for name, entry in decisions.items() if name != "fp32"} == dict.fromkeys(
        ("fp32-tf32", "fp32-fused", "fp16-fused", "fp16"), "left out"
    )
    assert "fp32 comes first" in decisions["fp16-fused"]["reason"]


@without_gpu
def test_a_wrong_fusion_never_ships(compiler: Compiler, project: Path, tmp_path: Path) -> None:
    """A compiler whose fusion loses the mask: right as long as nothing is padded."""
    root = tmp_path / "root"
    for name in ("compiler", "targets", "templates"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    code = root / "compiler" / "ortc" / "stages" / "fuse.py"
    text, call = code.read_text("utf-8"), "    _join_constants(model)\n"
    assert call in text
    spoil = '    for node in model.graph:\n        if node.op_type == "Attention":\n            node.resize_inputs(5)\n'
    code.write_text(text.replace(call, spoil + call, 1), "utf-8")
    sabotaged = Compiler(compiler.cache, root)
    build = sabotaged.build(project / "small.yaml", "--variant", "fp32-fused", output=tmp_path / "dist")
    build.failed(5)
    assert build.bundles() == []
    verdict = build.report("small")["targets"][0]["verdicts"][0]
    assert (verdict["gate"], verdict["outcome"]) == ("max_abs on CPU", "fail")
    assert verdict["where"].endswith("padded")
