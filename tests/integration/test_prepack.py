"""Weights packed for one kind of processor: taken where they fit, and nowhere else."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.support import bundles
from tests.support.builds import PLAIN, Compiler

from ortc.bundle.session_file import Prepacked
from ortc.common.errors import NotApplicable
from ortc.execution.host import processor
from ortc.passes.canonical import DATA_FILE, MODEL_FILE, PREPACKED_FILE
from ortc.passes.prepack import prepack
from ortc.passes.variant_graph import VariantGraph

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not processor(), reason="this host does not say what processor it has"),
]
WIDTH = 256
loader = bundles.runtime_module("loader")
session_module = bundles.runtime_module("loading.session")


def layers(count: int) -> onnx.ModelProto:
    """MatMuls in a row, with a bias that is too small to lie outside of the graph."""
    random = np.random.default_rng(0)
    nodes, weights, last = [], [], "x"
    for index in range(count):
        weights.append(
            numpy_helper.from_array(random.standard_normal((WIDTH, WIDTH)).astype(np.float32) / 16, f"w{index}")
        )
        nodes.append(helper.make_node("MatMul", [last, f"w{index}"], [f"m{index}"], name=f"matmul{index}"))
        nodes.append(helper.make_node("Tanh", [f"m{index}"], [f"t{index}"], name=f"tanh{index}"))
        last = f"t{index}"
    weights.append(numpy_helper.from_array(random.standard_normal(WIDTH).astype(np.float32), "bias"))
    # Nothing packs what is only added: the second graph has it, too.
    weights.append(numpy_helper.from_array(random.standard_normal((4, WIDTH)).astype(np.float32), "table"))
    nodes.append(helper.make_node("Add", [last, "bias"], ["sum"], name="add"))
    nodes.append(helper.make_node("ReduceSum", ["table"], ["total"], name="total", keepdims=0))
    nodes.append(helper.make_node("Add", ["sum", "total"], ["y"], name="last"))
    graph = helper.make_graph(
        nodes,
        "layers",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", WIDTH])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def write(directory: Path, model: onnx.ModelProto) -> Path:
    """A graph with its weights beside it."""
    directory.mkdir()
    onnx.save(model, directory / MODEL_FILE, save_as_external_data=True, location=DATA_FILE, size_threshold=1024)
    return directory


def pack(source: Path, output: Path) -> VariantGraph:
    output.mkdir()
    unknown = VariantGraph(bytes=0, domains={}, operators={})
    session = json.dumps(bundles.session_config())
    return prepack(Path(sys.executable), source, output, session, unknown)


def test_both_graphs_compute_the_same_over_one_file(tmp_path: Path) -> None:
    import onnxruntime as ort

    source = write(tmp_path / "plain", layers(3))
    found = pack(source, tmp_path / "packed")
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "packed").iterdir()}
    assert sizes.keys() == {MODEL_FILE, DATA_FILE, PREPACKED_FILE}
    assert found.bytes == sum(sizes.values())
    # What the graphs have in common is there once: packed weights come to about as much as the plain ones.
    plain = (source / DATA_FILE).stat().st_size
    assert 1.5 * plain < sizes[DATA_FILE] < 2.6 * plain
    inputs = {"x": np.random.default_rng(1).standard_normal((5, WIDTH)).astype(np.float32)}
    answers = [
        ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, inputs)[0]
        for path in (source / MODEL_FILE, tmp_path / "packed" / MODEL_FILE, tmp_path / "packed" / PREPACKED_FILE)
    ]
    assert np.array_equal(answers[0], answers[1])
    assert np.array_equal(answers[0], answers[2])


def test_packing_again_gives_the_same_bytes(tmp_path: Path) -> None:
    source = write(tmp_path / "plain", layers(2))
    assert pack(source, tmp_path / "a").sha256 == pack(source, tmp_path / "b").sha256


def test_weights_inside_the_graph_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    onnx.save(layers(1), tmp_path / "plain" / MODEL_FILE)
    with pytest.raises(NotApplicable, match="inside the graph"):
        pack(tmp_path / "plain", tmp_path / "packed")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle with packed weights for this host."""
    import onnxruntime as ort

    pack(write(tmp_path / "plain", layers(2)), tmp_path / "packed")
    recipe = bundles.linear()
    recipe.model = layers(2)
    recipe.manifest["inputs"] = [{"name": "x", "dtype": "float32", "shape": ["batch", WIDTH], "range": None}]
    recipe.manifest["outputs"] = [{"name": "y", "dtype": "float32", "shape": ["batch", WIDTH]}]
    recipe.golden = [
        {"x": np.random.default_rng(seed).standard_normal((3, WIDTH)).astype(np.float32)} for seed in (2, 3)
    ]
    packed = Prepacked(file=f"model/{PREPACKED_FILE}", processor=processor(), runtime=ort.__version__)
    recipe.session["prepacked"] = packed.model_dump()
    place = recipe.write(tmp_path / "bundle")
    for file in (tmp_path / "packed").iterdir():
        (place / "model" / file.name).write_bytes(file.read_bytes())
    bundles.seal(place)
    return place


def test_the_packed_graph_is_taken_where_it_fits(bundle: Path) -> None:
    with loader.Model.load(bundle) as model:
        assert model.info()["prepacked"] is True
        assert [case["name"] for case in model.golden] == ["case-0", "case-1"]


@pytest.mark.parametrize(("key", "value"), [("processor", "x86_64 GenuineIntel 6 1 avx2"), ("runtime", "1.30.0")])
def test_another_processor_or_runtime_takes_the_plain_graph(bundle: Path, key: str, value: str) -> None:
    document = json.loads((bundle / "session.json").read_bytes())
    document["prepacked"][key] = value
    (bundle / "session.json").write_text(json.dumps(document), "utf-8")
    # Whatever is in it: on such a machine it is not even opened.
    (bundle / "model" / PREPACKED_FILE).write_bytes(b"nonsense")
    bundles.seal(bundle)
    with loader.Model.load(bundle) as model:
        assert model.info()["prepacked"] is False
        assert [case["name"] for case in model.golden] == ["case-0", "case-1"]


def test_a_processor_that_nobody_knows_is_never_a_match(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = json.loads((bundle / "session.json").read_bytes())
    document["prepacked"]["processor"] = ""
    (bundle / "session.json").write_text(json.dumps(document), "utf-8")
    bundles.seal(bundle)
    monkeypatch.setattr(session_module, "processor", lambda: "")
    with loader.Model.load(bundle) as model:
        assert model.info()["prepacked"] is False


def test_a_build_ships_them_where_they_pay(ortc: Compiler, write_spec: Callable[..., Path], tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    weights = random.standard_normal((2048, 9000)).astype(np.float32) / 64
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="matmul")],
        "wide",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2048])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 9000])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "wide.onnx")
    export = {
        "opset": 17,
        "dynamic_axes": {"batch": {"min": 1, "typical": 1, "max": 2}},
        "inputs": {"x": {"dtype": "float32", "shape": ["batch", 2048]}},
    }
    spec = write_spec(tmp_path, {"source": "onnx", "path": "wide.onnx"}, export)
    options = (*PLAIN, "--set", "targets.cpu.prepack=true")
    build = ortc.build(spec, *options, output=tmp_path / "dist", cwd=tmp_path).succeeded()
    (target,) = build.report("small")["targets"]
    reason = target["decisions"][0]["reason"]
    shipped = build.bundle("small", "cpu")
    declared = json.loads((shipped / "session.json").read_bytes())["prepacked"]
    # Which one it is, this host has measured.
    assert "weights packed for this processor: starts in " in reason or "weights not packed: starts in " in reason
    assert (declared is not None) == ("not packed" not in reason)
    assert (shipped / "model" / PREPACKED_FILE).exists() == (declared is not None)
    assert target["model_bytes"] == sum(file.stat().st_size for file in (shipped / "model").iterdir())
