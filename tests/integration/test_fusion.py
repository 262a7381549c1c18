"""Fused and half-precision graphs of real transformers: every layer, and the answers that the plain graph gives."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from tests.integration.conftest import ALSO_FUSED
from tests.support.passes import rewrite_files
from tests.support.stand_ins import build_stand_ins, placements

from ortc.common.arrays import Arrays
from ortc.evaluation.compare import compare
from ortc.passes.canonical import count_operators
from ortc.passes.kernel_tables import kernels, own_operators
from ortc.passes.placement import foresee
from ortc.passes.upcast import upcast

pytestmark = pytest.mark.integration
ENCODER = {"Attention": 2, "SkipLayerNormalization": 4, "BiasGelu": 2}
"""Of two layers."""
MODELS: dict[str, dict[str, int]] = {
    "bert-17": ENCODER,
    "bert-20": ENCODER,
    # Embeddings are added and normalized, too.
    "roberta-18": {**ENCODER, "SkipLayerNormalization": 5},
    "distilbert-20": ENCODER,
    "vit": ENCODER,
    # Two in each layer, and one at either end: the first has no residual. T5's attention has a bias of its own.
    "t5-18": {"SimplifiedLayerNormalization": 1, "SkipSimplifiedLayerNormalization": 4},
    "llama-20": {"MultiHeadAttention": 2, "SimplifiedLayerNormalization": 1, "SkipSimplifiedLayerNormalization": 4},
}
PROOF = pytest.mark.proof("test_the_answers_stay and the tests beside it, with BERT and DistilBERT")
NAMES = [pytest.param(name, marks=PROOF) if name in ALSO_FUSED else name for name in MODELS]
EMBEDDED = ("bert-17", "bert-20", "roberta-18", "distilbert-20")
LEFT = {"t5-18": {"Softmax": 2}}
"""What fused operators would stand for, and is still there."""
FORMS = {
    "fused": ("fuse",),
    "embedded": ("fuse", "embeddings"),
    "half": ("fuse", "half"),
    "bfloat16": ("fuse", "bfloat16"),
}
ON_SHAPES = {"Concat", "Gather", "Squeeze"}
"""Arithmetic on sizes, which ONNX Runtime puts on the CPU by design."""
CHECKED = {"checked": "half", "bf16-checked": "bfloat16"}
"""Forms that compute in float32 and round as these do."""
SHAPES = ((1, 1), (1, 7), (3, 33), (8, 64))


@pytest.fixture(scope="module")
def chosen(request: pytest.FixtureRequest) -> list[str]:
    """The models that are rewritten: in `make test` one of each kind, in `make proofs` the others."""
    return [name for name in MODELS if (name in ALSO_FUSED) == request.config.getoption("--proofs")]


@pytest.fixture(scope="module")
def rewritten(
    chosen: list[str], encoders: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, str], Path]:
    """Each model plain, fused, in both half precisions, and as those are checked on a CPU."""
    found = {}
    for name in chosen:
        found[name, "plain"] = encoders / name / "canonical"
        for form, rewrites in FORMS.items():
            found[name, form] = tmp_path_factory.mktemp(f"{name}-{form}")
            rewrite_files(found[name, "plain"], found[name, form], rewrites)
        for form, short in CHECKED.items():
            found[name, form] = tmp_path_factory.mktemp(f"{name}-{form}")
            upcast(found[name, short], found[name, form])
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


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", FORMS)
def test_every_layer_is_fused(rewritten: dict[tuple[str, str], Path], name: str, form: str) -> None:
    found, before = operators(rewritten[name, form]), operators(rewritten[name, "plain"])
    assert not set(MODELS[name]) & before.keys()
    wanted = Counter(MODELS[name])
    if form == "embedded" and name in EMBEDDED:
        wanted["EmbedLayerNormalization"] = 1
        wanted["SkipLayerNormalization"] -= name == "roberta-18"
    assert {operator: found[operator] for operator in wanted} == wanted
    assert found["EmbedLayerNormalization"] == wanted["EmbedLayerNormalization"]
    plain = {operator: found[operator] for operator in ("Softmax", "Erf", "Gelu", "ReduceMean") if found[operator]}
    assert plain == LEFT.get(name, {})


@pytest.mark.parametrize(("name", "dtype"), [("half", "FLOAT16"), ("bfloat16", "BFLOAT16")])
def test_layers_compute_in_half_precision(rewritten: dict[tuple[str, str], Path], name: str, dtype: str) -> None:
    """Between the first and the last layer of a BERT nothing is converted."""
    model = ir.load(rewritten["bert-17", name] / "model.onnx")
    kinds = {node.op_type: {value.dtype for value in node.outputs[:1]} for node in model.graph}
    for operator in (*ENCODER, "MatMul", "LayerNormalization"):
        assert kinds[operator] == {ir.DataType[dtype]}
    # What is added converts the answers.
    casts = [operators(rewritten["bert-17", form])["Cast"] for form in (name, "fused")]
    assert casts[0] == casts[1] + len(model.graph.outputs)


@pytest.mark.parametrize("name", NAMES)
def test_the_answers_stay(rewritten: dict[tuple[str, str], Path], name: str) -> None:
    sessions = {form: session(rewritten[name, form]) for form in ("plain", "fused", "embedded", *CHECKED)}
    plain = sessions["plain"]
    outputs = [entry.name for entry in plain.get_outputs()]
    for batch, length in SHAPES:
        for padded in (False, True):
            inputs = inputs_of(plain, batch, length, padded)
            found = {form: dict(zip(outputs, s.run(None, inputs), strict=True)) for form, s in sessions.items()}
            for output in outputs:
                for form in ("fused", "embedded"):
                    np.testing.assert_allclose(found[form][output], found["plain"][output], atol=1e-4, rtol=0)
                for form, least in (("checked", 0.9999), ("bf16-checked", 0.995)):
                    wanted, rounded = found["plain"][output], found[form][output]
                    difference = compare(output, wanted, rounded, inputs.get("attention_mask"))
                    assert difference.problem is None
                    assert difference.cosine is not None
                    assert difference.cosine > least
                    # It is 16 bits that were looked at.
                    assert difference.max_abs > 1e-5


@pytest.mark.parametrize("name", ["bert-17", pytest.param("roberta-18", marks=PROOF), "distilbert-20"])
@pytest.mark.parametrize("form", ["embedded", "checked"])
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
    encoders: Path, rewritten: dict[tuple[str, str], Path], tmp_path: Path
) -> None:
    assert rewrite_files(encoders / "vit" / "canonical", tmp_path, ("fuse", "half")) == {"fuse": 8, "half": 10}
    assert (tmp_path / "model.onnx").read_bytes() == (rewritten["vit", "half"] / "model.onnx").read_bytes()


@pytest.mark.parametrize("which", ["one of each kind", pytest.param("the others", marks=PROOF)])
def test_every_fused_operator_and_all_compute_is_for_cuda(
    which: str, rewritten: dict[tuple[str, str], Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Asked of ONNX Runtime's CUDA provider, over stand-ins for NVIDIA's libraries; and nothing else is foreseen."""
    table = kernels("onnxruntime-gpu", "1.31.1", "CUDAExecutionProvider")
    assert table is not None
    forms = [key for key in rewritten if key[1] in ("plain", *FORMS)]
    stand_ins = build_stand_ins(tmp_path_factory.mktemp("stand-ins"))
    found = placements([rewritten[key] / "model.onnx" for key in forms], stand_ins)
    for (name, form), placement in zip(forms, found, strict=True):
        assert placement is not None
        assert placement.get("CPUExecutionProvider", {}).keys() <= ON_SHAPES, (name, form)
        model = ir.load(rewritten[name, form] / "model.onnx")
        own = own_operators(count_operators(model))
        assert own_operators(placement["CUDAExecutionProvider"]) == own
        assert (form == "plain") == (not own)
        assert foresee(model, table).cpu_nodes == ()
