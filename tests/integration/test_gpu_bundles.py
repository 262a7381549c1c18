"""Bundles for GPUs as they are published on a machine without one: every layer fused, and nothing on the CPU."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper
from tests.support.builds import PLAIN, ROOT, Compiler

from ortc.execution.host import gpus

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(bool(gpus()), reason="this host has a GPU, where the target is measured"),
]

MakeCache = Callable[[Path], Path]
Json = dict[str, Any]
TEXT: Json = {
    "hidden_size": 32,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 100,
    "max_position_embeddings": 40,
}
TEXT_AXES: Json = {"batch": {"min": 1, "max": 3}, "sequence": {"min": 1, "max": 16}}


@dataclass(frozen=True)
class Architecture:
    """A narrow model of any number of layers."""

    config: Json
    opset: int
    task: str = "feature-extraction"
    normalizations: int = 0
    """Fused besides two a layer."""
    axes: Json | None = None
    depth: str = "num_hidden_layers"
    """The configuration's word for layers."""


ARCHITECTURES = {
    "bert": Architecture({"model_type": "bert", "architectures": ["BertModel"], **TEXT}, opset=17),
    # Embeddings are added and normalized, too.
    "roberta": Architecture(
        {"model_type": "roberta", "architectures": ["RobertaModel"], "pad_token_id": 1, **TEXT},
        opset=18,
        normalizations=1,
    ),
    "distilbert": Architecture(
        {
            "model_type": "distilbert",
            "architectures": ["DistilBertModel"],
            "dim": 32,
            "n_heads": 4,
            "hidden_dim": 64,
            "vocab_size": 100,
            "max_position_embeddings": 40,
        },
        opset=20,
        depth="n_layers",
    ),
    "vit": Architecture(
        {
            "model_type": "vit",
            "architectures": ["ViTForImageClassification"],
            "image_size": 32,
            "patch_size": 8,
            "num_channels": 3,
            "num_labels": 5,
            **{name: value for name, value in TEXT.items() if name[:5] not in ("vocab", "max_p")},
        },
        opset=17,
        task="image-classification",
        axes={"batch": {"min": 1, "max": 3}},
    ),
}
SHALLOW = 2
"""Layers of the models that are built in `make test`."""
DEEP = pytest.mark.proof(
    "test_every_layer_of_what_is_served_is_fused of two layers; test_every_layer_is_fused of each model"
)
VARIANTS = [
    ("distilbert", "fp16-fused", SHALLOW),
    pytest.param("bert", "fp32-fused", 12, marks=DEEP),
    pytest.param("bert", "fp16-fused", 12, marks=DEEP),
    pytest.param("roberta", "fp16-fused", 12, marks=DEEP),
    pytest.param("distilbert", "bf16-fused", 6, marks=DEEP),
    pytest.param("vit", "fp16-fused", 12, marks=DEEP),
]
GATES = {"fp32-fused": "max_abs on CPU", "fp16-fused": "cosine on CPU", "bf16-fused": "cosine on CPU"}


def document(name: str, model: Json, opset: int, axes: Json, **target: object) -> Json:
    return {
        "apiVersion": "ortc/v1alpha1",
        "kind": "ModelDeployment",
        "name": name,
        "version": "1.0.0",
        "model": model,
        "export": {"opset": opset, "dynamic_axes": axes},
        "targets": {"server-gpu": {"unmeasured": "allow", **target}},
    }


@pytest.fixture(scope="module")
def specs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where specs for a GPU are written."""
    return tmp_path_factory.mktemp("gpu-specs")


def write_spec(root: Path, name: str, layers: int) -> Path:
    """A spec of an architecture, with seeded weights."""
    architecture, place = ARCHITECTURES[name], f"{name}-{layers}"
    (root / place).mkdir(exist_ok=True)
    config = architecture.config | {architecture.depth: layers}
    (root / place / "config.json").write_text(json.dumps(config), "utf-8")
    model = {"source": "huggingface", "path": place, "task": architecture.task, "weights": "random"}
    budgets = {"max_cpu_nodes": 0, "max_memcpy_nodes": 0}
    spec = document(name, model, architecture.opset, architecture.axes or TEXT_AXES, **budgets)
    spec["export"]["exporter"] = "dynamo"
    (root / f"{place}.yaml").write_text(json.dumps(spec), "utf-8")
    return root / f"{place}.yaml"


@pytest.fixture(scope="module")
def compiler(make_cache: MakeCache, tmp_path_factory: pytest.TempPathFactory) -> Compiler:
    return Compiler(make_cache(tmp_path_factory.mktemp("gpu") / "cache"))


def fused(architecture: Architecture, variant: str, layers: int) -> dict[str, int]:
    """What the graph that is served has to consist of."""
    wanted = Counter(Attention=layers, SkipLayerNormalization=2 * layers + architecture.normalizations, BiasGelu=layers)
    if variant == "fp32-fused":
        # Of text alone, which is what is built so.
        wanted["EmbedLayerNormalization"] = 1
        wanted["SkipLayerNormalization"] -= architecture.normalizations
    return dict(wanted)


@pytest.mark.parametrize(("name", "variant", "layers"), VARIANTS)
def test_every_layer_of_what_is_served_is_fused(
    compiler: Compiler, specs: Path, tmp_path: Path, name: str, variant: str, layers: int
) -> None:
    spec = write_spec(specs, name, layers)
    build = compiler.build(spec, "--variant", variant, *PLAIN, output=tmp_path).succeeded()
    wanted = fused(ARCHITECTURES[name], variant, layers)
    target = build.report(name)["targets"][0]
    assert (target["variant"], target["status"], target["parity"]) == (variant, "provisional", None)
    outcomes = {verdict["gate"]: verdict["outcome"] for verdict in target["verdicts"]}
    # Where nodes run is not known before there is a GPU, and which of them compute shapes is.
    # Rows of five labels are judged by their spread, those of hidden states by their relative error as well.
    few = ("nrmse on CPU",) if name == "vit" else ("nrmse on CPU", "relative_error on CPU")
    reduced = () if variant.startswith("fp32") else few
    assert outcomes == {
        **dict.fromkeys((GATES[variant], *reduced), "pass"),
        **dict.fromkeys(("parity", "cpu_nodes", "memcpy_nodes"), "unmeasured"),
    }
    bundle = build.bundle(name, "server-gpu")
    nodes = onnx.load(bundle / "model" / "model.onnx").graph.node
    served = Counter(node.op_type for node in nodes if node.domain == "com.microsoft")
    assert served == wanted
    assert not {"Softmax", "Erf", "Gelu", "ReduceMean"} & {node.op_type for node in nodes}
    # What a reader is told is what is there.
    whole = json.loads((bundle / "manifest.json").read_bytes())
    listed = {(operator, name) for operator, names in whole["placement"]["shape_nodes"].items() for name in names}
    assert {operator for operator, _ in listed} >= {"Shape"}
    assert listed < {(node.op_type, node.name) for node in nodes}
    manifest = whole["model"]
    assert manifest["domains"] == {"com.microsoft": 1}
    told = {key.removeprefix("com.microsoft::"): count for key, count in manifest["operators"].items() if "::" in key}
    assert told == wanted
    assert target["operators"] == manifest["operators"]
    assert sum(manifest["operators"].values()) == len(nodes)
    text = ", ".join(f"{count} {operator}" for operator, count in sorted(wanted.items()))
    assert f"Of the graph's {len(nodes)} nodes these are operators of ONNX Runtime's own: {text}." in (
        bundle / "README.md"
    ).read_text("utf-8")
    assert f"ONNX Runtime's own operators: {text}; {len(nodes)} nodes in all" in build.stdout
    assert target["placement"] == {
        "provider": "CUDAExecutionProvider",
        "runtime": "onnxruntime-gpu 1.31.1",
        "cpu_nodes": [],
    }
    assert (
        "foreseen: CUDAExecutionProvider of onnxruntime-gpu 1.31.1 has a kernel for every compute node" in build.stdout
    )


@pytest.fixture(scope="module")
def tangent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with two operators that CUDA has no kernels for."""
    root = tmp_path_factory.mktemp("tangent")
    nodes = [
        helper.make_node("Relu", ["x"], ["positive"], name="relu"),
        helper.make_node("Tan", ["positive"], ["tangent"], name="tan"),
        helper.make_node("Atan", ["tangent"], ["y"], name="atan"),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in "xy")
    model = helper.make_model(
        helper.make_graph(nodes, "tangent", [x], [y]), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    onnx.save(model, root / "tangent.onnx")
    return root


def write_tangent(root: Path, limit: int) -> Path:
    """The spec of that model with a limit to its nodes on the CPU."""
    model = {"source": "onnx", "path": "tangent.onnx"}
    spec = document("tangent", model, 17, {"batch": {"min": 1, "max": 3}}, max_cpu_nodes=limit)
    spec["export"]["inputs"] = {"x": {"dtype": "float32", "shape": ["batch", 4]}}
    (root / "tangent.yaml").write_text(json.dumps(spec), "utf-8")
    return root / "tangent.yaml"


@pytest.mark.parametrize(("limit", "exit_code", "outcome"), [(1, 6, "fail"), (2, 0, "unmeasured")])
def test_a_budget_that_is_sure_to_be_broken_fails_without_a_gpu(
    compiler: Compiler, tangent: Path, tmp_path: Path, limit: int, exit_code: int, outcome: str
) -> None:
    build = compiler.build(write_tangent(tangent, limit), *PLAIN, output=tmp_path)
    assert build.exit_code == exit_code, build.stderr
    assert len(build.bundles()) == (exit_code == 0)
    target = build.report("tangent")["targets"][0]
    (verdict,) = (entry for entry in target["verdicts"] if entry["gate"] == "cpu_nodes")
    assert verdict["outcome"] == outcome
    assert [(node["name"], node["operator"]) for node in target["placement"]["cpu_nodes"]] == [
        ("tan", "Tan"),
        ("atan", "Atan"),
    ]
    assert "Atan (float) atan" in build.stdout
    if outcome == "fail":
        assert (verdict["observed"], verdict["limit"]) == ("at least 2 nodes", "<= 1 node")
        assert verdict["where"] == "no kernel of CUDAExecutionProvider: 1 Atan, 1 Tan"


def test_what_comes_first_ships_where_nothing_can_be_measured(
    compiler: Compiler, tangent: Path, tmp_path: Path
) -> None:
    build = compiler.build(write_tangent(tangent, 2), output=tmp_path).succeeded()
    decisions = {entry["variant"]: entry for entry in build.report("tangent")["targets"][0]["decisions"]}
    assert decisions["fp32"]["outcome"] == "selected"
    assert {name: entry["outcome"] for name, entry in decisions.items() if name != "fp32"} == dict.fromkeys(
        ("fp32-tf32", "fp32-fused", "fp16-fused", "fp16-fused-graphs", "bf16-fused", "fp16", "bf16"), "left out"
    )
    assert "fp32 comes first" in decisions["fp16-fused"]["reason"]


def test_a_wrong_fusion_never_ships(compiler: Compiler, specs: Path, tmp_path: Path) -> None:
    """A compiler whose fusion loses the mask: right as long as nothing is padded."""
    root = tmp_path / "root"
    for name in ("compiler", "targets", "templates"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    code = root / "compiler/ortc/passes/fusion.py"
    text, call = code.read_text("utf-8"), "    _join_constants(model)\n"
    assert call in text
    spoil = '    for node in model.graph:\n        if node.op_type == "Attention":\n            node.resize_inputs(5)\n'
    code.write_text(text.replace(call, spoil + call, 1), "utf-8")
    sabotaged = Compiler(compiler.cache, root)
    spec = write_spec(specs, "distilbert", SHALLOW)
    build = sabotaged.build(spec, "--variant", "fp32-fused", *PLAIN, output=tmp_path / "dist")
    build.failed(5)
    assert build.bundles() == []
    verdict = build.report("distilbert")["targets"][0]["verdicts"][0]
    assert (verdict["gate"], verdict["outcome"]) == ("max_abs on CPU", "fail")
    assert verdict["where"].endswith("padded")
