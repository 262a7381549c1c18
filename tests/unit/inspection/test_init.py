"""`ortc init`: every spec that it writes passes `ortc check`, and says what the inspected files say."""

import hashlib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.drafts import WEIGHTS, directory, junk, relaxed, written

from ortc.__main__ import run
from ortc.inspection.draft_spec import render, scalar, spec_name
from ortc.inspection.findings import InspectionError
from ortc.inspection.inspect_model import inspect
from ortc.plan.checks import check_spec
from ortc.spec.diagnostics.errors import SpecError
from ortc.spec.diagnostics.source import SourceFile
from ortc.spec.model_sources import HuggingFaceSource, PyTorchSource
from ortc.spec.syntax.yaml_parser import parse

ROOT = Path(__file__).parents[3]
COMMIT = "0123456789" * 4


pytestmark = pytest.mark.usefixtures("project")


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
    ("name", "said"),
    [
        ("m.joblib", "a pickle.*skl2onnx"),
        ("m.PKL", "a pickle.*safetensors"),
        ("m.safetensors", "weights without the module.*ortc init module:function"),
        ("m.jit", "TorchScript.*torch.jit.load"),
        ("m.tflite", "TensorFlow.*tf2onnx"),
        ("m.pdmodel", "Paddle.*paddle2onnx"),
        ("m.txt", "neither a directory nor"),
    ],
)
def test_other_files_are_refused_with_a_way_out(name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InspectionError, match=said):
        inspect(name, tmp_path)


@pytest.mark.parametrize("name", ["m.pt", "m.pth", "m.bin", "m.jit", "m.model"])
def test_torchscript_is_told_from_weights(name: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        for member in ("m/constants.pkl", "m/data.pkl", "m/code/__torch__/net.py"):
            archive.writestr(member, b"")
    with pytest.raises(InspectionError, match=r"is TorchScript.*torch\.jit\.load"):
        inspect(name, tmp_path)


@pytest.mark.parametrize("name", ["m.onnx", "m.pt2", "m.safetensors"])
def test_a_git_lfs_pointer_of_any_kind_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(InspectionError, match=r"is a Git LFS pointer.*git lfs pull"):
        inspect(name, tmp_path)


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
