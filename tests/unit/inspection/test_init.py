"""`ortc init`: every spec that it writes passes `ortc check`, and says what the inspected files say."""

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from tests.support.examples import examples
from tests.support.programs import FLOAT, LONG, archive, document
from tests.support.programs import tensor as sizes_of

from ortc.__main__ import run
from ortc.inspection.draft_spec import render, scalar, spec_name
from ortc.inspection.findings import InspectionError
from ortc.inspection.inspect_model import inspect
from ortc.plan.checks import CheckedSpec, check_spec
from ortc.spec.diagnostics.errors import SpecError
from ortc.spec.diagnostics.source import SourceFile
from ortc.spec.model_sources import ExportedProgramSource, HuggingFaceSource, OnnxSource, PyTorchSource
from ortc.spec.syntax.yaml_parser import parse

ROOT = Path(__file__).parents[3]
COMMIT = "0123456789" * 4
WEIGHTS = struct.pack("<Q", 2) + b"{}"
BERT = {
    "architectures": ["BertForSequenceClassification"],
    "model_type": "bert",
    "vocab_size": 30522,
    "max_position_embeddings": 256,
}
relaxed = settings(
    max_examples=examples(60),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").touch()


def directory(path: Path, config: Any = BERT, *, weights: bool = True, tokenizer: bool = True) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(config), "utf-8")
    if weights:
        (path / "model.safetensors").write_bytes(WEIGHTS)
    if tokenizer:
        (path / "tokenizer.json").write_text("{}", "utf-8")
    return path


def graph(path: Path, inputs: list[Any], *, opset: int = 18, outputs: tuple[str, ...] = ("y",)) -> Path:
    nodes = [helper.make_node("Constant", [], [name], value_int=1) for name in outputs]
    values = [helper.make_tensor_value_info(name, TensorProto.INT64, []) for name in outputs]
    model = helper.make_model(
        helper.make_graph(nodes, "g", inputs, values), opset_imports=[helper.make_opsetid("", opset)]
    )
    onnx.save(model, str(path))
    return path


def written(*arguments: str) -> CheckedSpec:
    """The spec that `ortc init` writes for the arguments."""
    assert run(["init", *arguments, "-o", "specs/out.yaml", "--force"]) == 0
    return check_spec("specs/out.yaml")


def test_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory(tmp_path / "models" / "My Encoder")
    assert run(["init", "models/My Encoder"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "wrote specs/spec.schema.json\nwrote specs/my-encoder.yaml\n"
    assert captured.err == ""
    checked = check_spec("specs/my-encoder.yaml")
    model = checked.loaded.spec.model
    assert isinstance(model, HuggingFaceSource)
    assert (model.path, model.task, model.weights) == ("models/My Encoder", "text-classification", "pretrained")
    assert model.files["model.safetensors"] == hashlib.sha256(WEIGHTS).hexdigest()
    assert set(model.files) == {"config.json", "model.safetensors", "tokenizer.json"}
    axes = checked.loaded.spec.export.dynamic_axes
    assert (axes["batch"].max, axes["sequence"].max, axes["sequence"].typical) == (16, 256, 128)
    text = Path("specs/my-encoder.yaml").read_text("utf-8")
    assert text.startswith("# yaml-language-server: $schema=spec.schema.json\n")
    assert "# samples: data/samples.txt" in text


def test_an_existing_file_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory(tmp_path / "model")
    Path("spec.yaml").write_text("mine", "utf-8")
    assert run(["init", "model", "-o", "spec.yaml"]) == 2
    assert "spec.yaml exists; `--force` replaces it" in capsys.readouterr().err
    assert Path("spec.yaml").read_text("utf-8") == "mine"
    assert run(["init", "model", "-o", "spec.yaml", "--force"]) == 0
    assert check_spec("spec.yaml").loaded.spec.name == "model"


def test_the_schema_of_the_project_is_referred_to(tmp_path: Path) -> None:
    directory(tmp_path / "model")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "spec.schema.json").touch()
    assert run(["init", "model"]) == 0
    assert Path("specs/model.yaml").read_text("utf-8").startswith("# yaml-language-server: $schema=../docs/spec.schema")
    assert not Path("specs/spec.schema.json").exists()


def test_targets(tmp_path: Path) -> None:
    directory(tmp_path / "model")
    assert list(written("model", "-t", "edge", "-t", "server-gpu", "-t", "edge").profiles) == ["edge", "server-gpu"]
    assert run(["init", "model", "-t", "none"]) == 3


@pytest.mark.parametrize(
    ("config", "task", "axes"),
    [
        ({"architectures": ["BertModel"], "vocab_size": 9}, "feature-extraction", {"batch", "sequence"}),
        ({"architectures": ["GPT2LMHeadModel"], "vocab_size": 9}, "causal-lm", {"batch", "sequence"}),
        ({"architectures": ["LlamaForCausalLM"], "vocab_size": 9}, "causal-lm", {"batch", "sequence"}),
        ({"architectures": ["T5EncoderModel"], "vocab_size": 9}, "text-encoding", {"batch", "sequence"}),
        # What generates has no head that is exported: the model without one.
        (
            {"architectures": ["T5ForConditionalGeneration"], "vocab_size": 9},
            "feature-extraction",
            {"batch", "sequence"},
        ),
        (
            {"architectures": ["WhisperForAudioClassification"], "num_mel_bins": 80, "max_source_positions": 1500},
            "audio-classification",
            {"batch"},
        ),
        (
            {"architectures": ["Wav2Vec2BertForCTC"], "feature_projection_input_dim": 160, "conv_depthwise": 31},
            "ctc",
            {"batch", "frames"},
        ),
        ({"architectures": ["ResNetForImageClassification"], "num_channels": 3}, "image-classification", {"batch"}),
        (
            {"architectures": ["Wav2Vec2ForSequenceClassification"], "feat_extract_norm": "group", "vocab_size": 32},
            "audio-classification",
            {"batch", "samples"},
        ),
        ({"architectures": ["Wav2Vec2ForCTC"], "conv_stride": [5], "vocab_size": 32}, "ctc", {"batch", "samples"}),
    ],
)
def test_kinds_of_models(config: dict[str, Any], task: str, axes: set[str], tmp_path: Path) -> None:
    directory(tmp_path / "model", config)
    spec = written("model").loaded.spec
    assert isinstance(spec.model, HuggingFaceSource)
    assert spec.model.task == task
    assert set(spec.export.dynamic_axes) == axes


def test_positions_kept_for_padding(tmp_path: Path) -> None:
    directory(tmp_path / "model", {"model_type": "roberta", "vocab_size": 9, "max_position_embeddings": 130})
    assert written("model").loaded.spec.export.dynamic_axes["sequence"].max == 128


def test_without_weights(tmp_path: Path) -> None:
    directory(tmp_path / "model", weights=False)
    model = written("model").loaded.spec.model
    assert isinstance(model, HuggingFaceSource)
    assert model.weights == "random"
    assert "the architecture is seeded" in Path("specs/out.yaml").read_text("utf-8")


def test_outside_of_the_project(tmp_path: Path) -> None:
    directory(tmp_path / "elsewhere")
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "pyproject.toml").touch()
    assert run(["init", "elsewhere", "-o", "project/spec.yaml"]) == 0
    assert "outside of the project" in Path("project/spec.yaml").read_text("utf-8")
    assert check_spec("project/spec.yaml").warnings == ()


def test_hub_with_a_commit() -> None:
    checked = written("google-bert/bert-base-uncased", "--revision", COMMIT)
    assert checked.warnings == ()
    model = checked.loaded.spec.model
    assert isinstance(model, HuggingFaceSource)
    assert (model.id, model.revision) == ("google-bert/bert-base-uncased", COMMIT)


def test_hub_without_a_commit_advises_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["init", "google-bert/bert-base-uncased", "-o", "specs/out.yaml"]) == 0
    with pytest.raises(SpecError) as caught:
        check_spec("specs/out.yaml")
    assert [diagnostic.code for diagnostic in caught.value.diagnostics] == ["ORTC331"]
    assert "error[ORTC331]" in capsys.readouterr().err
    assert "put the 40 digits of a commit here" in Path("specs/out.yaml").read_text("utf-8")


def test_hub_takes_commit_and_digests_from_the_local_cache(tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--me--encoder"
    directory(repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT, "utf-8")
    checked = written("me/encoder")
    assert checked.warnings == ()
    model = checked.loaded.spec.model
    assert isinstance(model, HuggingFaceSource)
    assert (model.id, model.revision, model.task) == ("me/encoder", COMMIT, "text-classification")
    assert model.files["model.safetensors"] == hashlib.sha256(WEIGHTS).hexdigest()


def test_onnx(tmp_path: Path) -> None:
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch_size", "seq_len"])
    mask = helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["batch_size", "seq_len"])
    image = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [None, 3, "s 43", None])
    table = helper.make_tensor("table", TensorProto.FLOAT, [7, 1], [0.0] * 7)
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("Gather", ["table", "input_ids"], ["y"])],
            "g",
            [ids, mask, image, helper.make_tensor_value_info("table", TensorProto.FLOAT, [7, 1])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            initializer=[table],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
    )
    onnx.save(model, str(tmp_path / "model.onnx"))
    checked = written("model.onnx")
    assert checked.warnings == ()
    spec = checked.loaded.spec
    assert isinstance(spec.model, OnnxSource)
    assert spec.model.sha256 == hashlib.sha256((tmp_path / "model.onnx").read_bytes()).hexdigest()
    assert (spec.export.opset, spec.export.outputs) == (17, ("y",))
    inputs = spec.export.inputs
    assert inputs is not None
    assert {name: tensor.shape for name, tensor in inputs.items()} == {
        "input_ids": ("batch", "sequence"),
        "attention_mask": ("batch", "sequence"),
        "pixels": ("batch_2", 3, "s_43", "pixels_dim3"),
    }
    assert (inputs["input_ids"].range, inputs["attention_mask"].fill) == ((0, 6), 1)
    assert inputs["pixels"].dtype == "float32"
    assert set(spec.export.dynamic_axes) == {"batch", "sequence", "batch_2", "s_43", "pixels_dim3"}


@pytest.mark.parametrize(("opset", "shipped"), [(7, 9), (17, 17), (28, 26)])
def test_the_opset_is_one_that_the_runtime_loads(opset: int, shipped: int, tmp_path: Path) -> None:
    graph(tmp_path / "m.onnx", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])], opset=opset)
    assert written("m.onnx").loaded.spec.export.opset == shipped


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "there is no `model` here"),
        (lambda path: path.mkdir(), "has no config.json"),
        (lambda path: path.write_text("x"), "neither a directory nor an .onnx or .pt2 file"),
        (lambda path: directory(path, ["not", "a", "mapping"]), "has no config.json"),
    ],
)
def test_refuses(make: Any, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path / "model")
    assert run(["init", "model"]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not Path("specs").exists()


def test_refuses_graphs_that_a_spec_cannot_describe(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_bytes(b"not a graph")
    text = helper.make_tensor_value_info("x", TensorProto.STRING, [1])
    graph(tmp_path / "string.onnx", [text])
    graph(tmp_path / "rank.onnx", [helper.make_tensor_value_info("x", TensorProto.FLOAT, None)])
    for name in ("text", "string", "rank"):
        with pytest.raises(InspectionError):
            inspect(f"{name}.onnx", tmp_path)


def symbol(name: str) -> str:
    return f"Symbol('{name}', positive=True, integer=True)"


def test_program(tmp_path: Path) -> None:
    batch, length = symbol("s7"), symbol("s27")
    inputs = {
        "ids": sizes_of(LONG, batch, length),
        "token_mask": sizes_of(LONG, batch, length),
        "pixels": sizes_of(FLOAT, batch, 3, symbol("s1"), f"Mul(Integer(14), {symbol('s3')})"),
        "x": sizes_of(FLOAT, symbol("s4"), f"Add(Integer(1), {symbol('s4')})", 8),
    }
    ranges = {"s7": (2, 32), "s27": (4, 200), "s1": (0, None), "s3": (2, 30), "s4": (1, 2**62)}
    archive(tmp_path / "My Encoder.pt2", document(inputs, ranges, keys=("hidden", "late")))
    assert run(["init", "My Encoder.pt2"]) == 0
    checked = check_spec("specs/my-encoder.yaml")
    assert checked.warnings == ()
    spec = checked.loaded.spec
    assert isinstance(spec.model, ExportedProgramSource)
    assert spec.model.sha256 == hashlib.sha256((tmp_path / "My Encoder.pt2").read_bytes()).hexdigest()
    assert (spec.export.opset, spec.export.outputs) == (20, ("hidden", "late"))
    found = spec.export.inputs
    assert found is not None
    assert {name: tensor.shape for name, tensor in found.items()} == {
        "ids": ("batch", "sequence"),
        "token_mask": ("batch", "sequence"),
        "pixels": ("batch", 3, "height", "width"),
        "x": ("batch_2", "x_dim1", 8),
    }
    assert [tensor.dtype for tensor in found.values()] == ["int64", "int64", "float32", "float32"]
    assert (found["ids"].range, found["token_mask"].fill) == ((0, 99), 1)
    axes = {
        name: (axis.min, axis.typical, axis.max, axis.multiple_of) for name, axis in spec.export.dynamic_axes.items()
    }
    assert axes == {
        # 2 is what torch writes where nobody said more.
        "batch": (1, 1, 32, 1),
        "sequence": (4, 128, 200, 1),
        "height": (1, 224, 512, 1),
        "width": (14, 224, 420, 14),
        "batch_2": (1, 16, 64, 1),
        "x_dim1": (1, 16, 64, 1),
    }
    assert "The file sets no end to height, batch_2, x_dim1" in Path("specs/my-encoder.yaml").read_text("utf-8")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (document(keywords=("scale",)), "takes `scale` by name"),
        (document({}), "takes no tensors"),
        (document({"ids": sizes_of(13, 1)}), "`ids` is no tensor of numbers or booleans"),
        (document({"ids": sizes_of(LONG, 0)}), "`ids` has the size 0"),
        (document({"ids": sizes_of(LONG, *map(symbol, "abcdefghi"))}), "9 dynamic dimensions; a spec has at most 8"),
        (document({"ids": sizes_of(LONG, "__import__('os')")}), "refused to read"),
        ({"graph_module": {}}, "not of a form that is known"),
    ],
)
def test_refuses_programs(model: dict[str, Any], message: str, tmp_path: Path) -> None:
    archive(tmp_path / "m.pt2", model)
    with pytest.raises(InspectionError, match=message):
        inspect("m.pt2", tmp_path)


def test_refuses_programs_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "m.pt2").write_text("no archive")
    with pytest.raises(InspectionError, match=r"cannot be read as a \.pt2 archive"):
        inspect("m.pt2", tmp_path)


MODULE = """
raise SystemExit("nobody may run this")
from torch import nn

class Encoder(nn.Module):
    def __init__(self, width: int, *, scale: float, name: str = "x"): ...
    def forward(self, tokens, mask): ...

def build(depth: int, kind: str, width=3, *, fast: bool, other):
    return Encoder(width, scale=1.0)

class Small(nn.Module):
    def __init__(self): ...
    def forward(self, image): ...

def either(flag=True):
    return Encoder() if flag else Small()

made = Small
"""


@pytest.mark.parametrize(
    ("function", "arguments", "inputs"),
    [
        ("build", {"depth": 1, "kind": "", "fast": False, "other": 1}, ["tokens", "mask"]),
        ("Encoder", {"width": 1, "scale": 1.0}, ["tokens", "mask"]),
        ("Small", {}, ["image"]),
        ("either", {}, ["input"]),
        ("made", {}, ["input"]),
    ],
)
def test_entrypoint(function: str, arguments: dict[str, Any], inputs: list[str], tmp_path: Path) -> None:
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "model.py").write_text(MODULE, "utf-8")
    checked = written(f"nets.model:{function}")
    assert checked.warnings == ()
    spec = checked.loaded.spec
    assert isinstance(spec.model, PyTorchSource)
    assert (spec.name, spec.model.args, spec.model.weights) == ("nets", arguments, "entrypoint")
    assert list(spec.export.inputs or ()) == inputs
    text = Path("specs/out.yaml").read_text("utf-8")
    assert text.count("To fill in") == 4 + bool(arguments)
    assert "weights: path/model.safetensors" in text


@pytest.mark.parametrize(
    "call",
    [
        "net.load_state_dict(torch.load('w.pt'))",
        "Net.from_pretrained('here')",
        "safetensors.torch.load_file('w.safetensors')",
        "torch.jit.load('net.pt')",
        "np.load('w.npy')",
    ],
)
def test_entrypoint_that_loads_its_weights(call: str, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(f"def build():\n    return {call}\n", "utf-8")
    checked = written("net:build")
    assert isinstance(checked.loaded.spec.model, PyTorchSource)
    assert checked.loaded.spec.model.weights == "entrypoint"
    assert "# `entrypoint`: the function loads its weights itself" in Path("specs/out.yaml").read_text("utf-8")


def test_entrypoint_with_its_weights(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("def build(): ...", "utf-8")
    (tmp_path / "net.safetensors").write_bytes(WEIGHTS)
    model = written("net:build").loaded.spec.model
    assert isinstance(model, PyTorchSource)
    assert (model.weights, model.sha256) == ("net.safetensors", hashlib.sha256(WEIGHTS).hexdigest())


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("none.model:build", "there is no module `none.model`"),
        ("net:other", "the module `net` does not define `other`"),
        ("broken:build", "cannot be read as Python"),
        ("net..x:build", "there is no module `net..x`"),
    ],
)
def test_refuses_entrypoints(place: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("def build(): ...", "utf-8")
    (tmp_path / "broken.py").write_text("def build(:", "utf-8")
    with pytest.raises(InspectionError, match=message):
        inspect(place, tmp_path)
    assert run(["init", place]) == 2
    assert not Path("specs").exists()


@pytest.mark.parametrize(
    "value", ["", "1", "1.10", "true", "null", "~", ".5", "1e3", "1" * 64, "a: b", "a #b", "-x", "a b ", "é", "{a}"]
)
def test_scalars_are_read_as_written(value: str) -> None:
    assert parse(SourceFile("x", f"key: {scalar(value)}\nlist: [{scalar(value)}]")).data == {
        "key": value,
        "list": (value,),
    }


@relaxed
@given(st.text(max_size=80))
def test_names(text: str) -> None:
    name = spec_name(text)
    assert name == spec_name(name)
    assert parse(SourceFile("x", f"name: {scalar(name)}")).data == {"name": name}


junk = st.none() | st.booleans() | st.integers(-5, 10**12) | st.text(max_size=5) | st.lists(st.integers(), max_size=2)
names = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=30).filter(
    lambda name: name not in {".", ".."} and len(name.encode()) < 200
)
configs = st.dictionaries(
    st.sampled_from(
        ["vocab_size", "max_position_embeddings", "image_size", "num_channels", "conv_stride", "model_type"]
    ),
    junk,
) | st.fixed_dictionaries({"architectures": st.lists(st.text(max_size=20) | junk, max_size=2) | junk})


@relaxed
@given(name=names, config=configs, weights=st.booleans(), tokenizer=st.booleans())
def test_every_spec_of_a_directory_passes(
    name: str, config: dict[str, Any], weights: bool, tokenizer: bool, tmp_path: Path
) -> None:
    try:
        directory(tmp_path / "any" / name, config, weights=weights, tokenizer=tokenizer)
    except OSError:
        return
    try:
        draft = inspect(f"any/{name}", tmp_path)
    except InspectionError:
        assert not name.isprintable() or "${" in name
        return
    (tmp_path / "spec.yaml").write_text(render(draft, ("cpu", "edge"), "spec.schema.json"), "utf-8")
    assert check_spec(tmp_path / "spec.yaml").warnings == ()


words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)
dimensions = st.lists(st.none() | st.integers(0, 2**40) | words, max_size=4)
tensors = st.lists(
    st.tuples(words, st.sampled_from(sorted(set(TensorProto.DataType.values()) - {0})), dimensions),
    max_size=4,
    unique_by=lambda tensor: tensor[0],
)


@relaxed
@given(inputs=tensors, opset=st.integers(1, 30), outputs=st.lists(words, max_size=3).map(tuple))
def test_every_spec_of_a_graph_passes(inputs: list[Any], opset: int, outputs: tuple[str, ...], tmp_path: Path) -> None:
    values = [helper.make_tensor_value_info(name, dtype, shape) for name, dtype, shape in inputs]
    graph(tmp_path / "graph.onnx", values, opset=opset, outputs=outputs)
    try:
        draft = inspect("graph.onnx", tmp_path, max_opset=26)
    except InspectionError:
        return
    (tmp_path / "spec.yaml").write_text(render(draft, ("cpu",), "spec.schema.json"), "utf-8")
    checked = check_spec(tmp_path / "spec.yaml")
    assert checked.warnings == ()
    assert len(checked.loaded.spec.export.inputs or ()) == len(inputs)


symbols = st.sampled_from(["s0", "s1", "s2"]).map(symbol)
sizes = st.lists(
    st.integers(-1, 9) | st.integers(2**31, 2**40) | symbols | symbols.map(lambda text: f"Mul(Integer(2), {text})"),
    max_size=4,
)
bounds = st.tuples(st.none() | st.integers(-1, 2**40), st.none() | st.integers(-1, 2**40))


@relaxed
@given(
    inputs=st.dictionaries(words, st.tuples(st.integers(0, 36), sizes), max_size=3),
    ranges=st.dictionaries(st.sampled_from(["s0", "s1"]), bounds),
    keys=st.lists(words, min_size=2, max_size=2) | st.just([]),
)
def test_every_spec_of_a_program_passes(
    inputs: dict[str, Any], ranges: dict[str, Any], keys: list[str], tmp_path: Path
) -> None:
    tensors = {name: sizes_of(dtype, *shape) for name, (dtype, shape) in inputs.items()}
    archive(tmp_path / "program.pt2", document(tensors, ranges, keys=keys))
    try:
        draft = inspect("program.pt2", tmp_path)
    except InspectionError:
        return
    (tmp_path / "spec.yaml").write_text(render(draft, ("cpu",), "spec.schema.json"), "utf-8")
    assert check_spec(tmp_path / "spec.yaml").warnings == ()


@relaxed
@given(data=st.data())
def test_programs_of_any_form_are_drafted_or_refused(data: st.DataObject, tmp_path: Path) -> None:
    model = document({"ids": sizes_of(LONG, symbol("s0"), 3)}, {"s0": (1, 4)})
    node: Any = model
    while isinstance(node, (dict, list)) and node:
        keys = sorted(node) if isinstance(node, dict) else range(len(node))
        key = data.draw(st.sampled_from(list(keys)))
        if data.draw(st.integers(0, 3)) == 0 or not isinstance(node[key], (dict, list)):
            node[key] = data.draw(junk | st.just({}))
            break
        node = node[key]
    archive(tmp_path / "any.pt2", model)
    try:
        render(inspect("any.pt2", tmp_path), ("cpu",), "spec.schema.json")
    except InspectionError:
        return


def test_parts_of_a_repository_are_left_out_with_a_comment(tmp_path: Path) -> None:
    place = directory(tmp_path / "model")
    stock = "sentence_transformers.models"
    modules = [{"path": "", "type": f"{stock}.Transformer"}, {"path": "1_Pooling", "type": f"{stock}.Pooling"}]
    (place / "modules.json").write_text(json.dumps(modules), "utf-8")
    (place / "1_Pooling").mkdir()
    (place / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}', "utf-8")
    model = written("model").loaded.spec.model
    assert isinstance(model, HuggingFaceSource)
    assert model.interface == "auto"
    recipe = {"modules.json", "1_Pooling/config.json", "tokenizer.json"}
    assert set(model.files) == {"config.json", "model.safetensors", *recipe}
    (place / "modules.json").write_text(json.dumps([*modules, {"path": "2_CNN", "type": f"{stock}.CNN"}]), "utf-8")
    model = written("model").loaded.spec.model
    assert isinstance(model, HuggingFaceSource)
    assert model.interface == "tensors"
    assert set(model.files) == {"config.json", "model.safetensors", "modules.json", "tokenizer.json"}
    text = Path("specs/out.yaml").read_text("utf-8")
    assert "# - modules.json: Pooling (cls), CNN\n" in text
    (place / "adapter_config.json").write_text('{"peft_type": "LORA"}', "utf-8")
    (place / "adapter_model.safetensors").write_bytes(WEIGHTS)
    model = written("model").loaded.spec.model
    assert isinstance(model, HuggingFaceSource)
    assert not {name for name in model.files if name.startswith("adapter")}
    text = Path("specs/out.yaml").read_text("utf-8")
    assert "# - adapter_config.json: an adapter (LORA)\n" in text
    assert "merge_and_unload()" in text
    (place / "modules.json").unlink()
    for file in place.glob("adapter*"):
        file.unlink()
    assert "interface" not in written("model").loaded.document.data["model"]


def test_code_of_a_repository_is_not_drafted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory(tmp_path / "model", {**BERT, "auto_map": {"AutoModel": "modeling_x.X"}})
    assert run(["init", "model"]) == 2
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert "brings code of its own" in said
    assert "source: pytorch" in said


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"architectures": ["BertModel"], "model_type": "bert", "type_vocab_size": 2}, "position_ids, inputs_embeds"),
        (
            {"architectures": ["BertModel"], "model_type": "bert", "type_vocab_size": 1},
            "token_type_ids, position_ids, inputs_embeds",
        ),
        ({"architectures": ["LayoutLMModel"], "model_type": "layoutlm", "type_vocab_size": 2}, "position_ids"),
        (
            {"architectures": ["Wav2Vec2ForCTC"], "model_type": "wav2vec2", "feat_extract_norm": "group"},
            "attention_mask",
        ),
    ],
)
def test_inputs_that_are_left_out_are_named(tmp_path: Path, config: dict[str, Any], named: str) -> None:
    directory(tmp_path / "model", {"vocab_size": 9, **config})
    written("model")
    assert f"Left out, unless `inputs` declares them: {named}" in Path("specs/out.yaml").read_text("utf-8")


@pytest.mark.parametrize("name", ["x" * 1001, "é" * 1024, "x" * 5000, '"' * 600])
def test_names_that_no_spec_can_hold_are_refused(tmp_path: Path, name: str) -> None:
    """YAML takes no key of more than 1,024 characters, so the draft would not parse."""
    document_ = document({name: sizes_of(LONG, symbol("s0"))}, {"s0": (1, 8)})
    archive(tmp_path / "m.pt2", document_)
    with pytest.raises(InspectionError, match="one printable line of at most 1000 characters"):
        inspect("m.pt2", tmp_path)


def test_long_names_that_a_spec_can_hold(tmp_path: Path) -> None:
    archive(tmp_path / "m.pt2", document({"x" * 900: sizes_of(LONG, symbol("s0"))}, {"s0": (1, 8)}))
    text = render(inspect("m.pt2", tmp_path), ("cpu",), "spec.schema.json")
    assert "x" * 900 in text
    parse(SourceFile("spec.yaml", text))
