"""A model's files: the declared digest decides, wherever they come from."""

from __future__ import annotations

import hashlib
import socket
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ortc.common.errors import StageError
from ortc.execution.action_cache import Store
from ortc.frontend.fetch import Fetched, fetch
from ortc.spec.model_sources import NO_WEIGHTS_FILE, ExportedProgramSource, HuggingFaceSource, OnnxSource, PyTorchSource

REVISION = "0123456789012345678901234567890123456789"
CONTENT = {"config.json": b'{"model_type": "bert"}', "model.safetensors": b"weights", "tokenizer.json": b"{}"}


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


DIGESTS = {name: sha(content) for name, content in CONTENT.items()}


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without a network and with an empty hub cache."""

    def unknown(*_: object, **__: object) -> NoReturn:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "project").mkdir()
    return tmp_path / "project"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


def get(source: Any, root: Path, store: Store) -> Fetched:
    work = root.parent / f"work-{len(list(root.parent.glob('work-*')))}"
    work.mkdir()
    return fetch(source, root, store, work)


def put(directory: Path, **files: bytes) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in (files or CONTENT).items():
        (directory / name).write_bytes(content)
    return directory


def hub(**fields: Any) -> HuggingFaceSource:
    defaults: dict[str, Any] = {"source": "huggingface", "id": "owner/name", "revision": REVISION, "files": DIGESTS}
    return HuggingFaceSource(**(defaults | fields))


def hub_cache(tmp_path: Path, **files: bytes) -> None:
    put(tmp_path / "hub" / "models--owner--name" / "snapshots" / REVISION, **files)


def origins(fetched: Fetched) -> dict[str, str]:
    return {file.name: file.origin for file in fetched.files}


def test_a_mirror_with_the_right_bytes(root: Path, store: Store) -> None:
    put(root / "mirror")
    found = get(hub(mirrors=("path:mirror",)), root, store)
    assert found.digests() == DIGESTS
    assert set(origins(found).values()) == {"path:mirror"}
    for name, content in CONTENT.items():
        assert (found.directory / name).read_bytes() == content
    # The second time, no mirror is needed.
    again = get(hub(), root, store)
    assert set(origins(again).values()) == {"ortc's cache"}


def test_the_nearest_place_with_the_right_bytes_is_taken(root: Path, store: Store, tmp_path: Path) -> None:
    put(root / "bad", **{"config.json": b"{}"})
    put(root / "good")
    put(root / "late")
    mirrors = ("path:missing", "path:bad", "path:good", "path:late")
    assert set(origins(get(hub(mirrors=mirrors), root, store)).values()) == {"path:good"}
    hub_cache(tmp_path, **{"config.json": CONTENT["config.json"], "tokenizer.json": b"other bytes"})
    found = origins(get(hub(mirrors=mirrors), root, Store(tmp_path / "another cache")))
    assert found == {
        "config.json": "the hub cache",
        "model.safetensors": "path:good",
        "tokenizer.json": "path:good",
    }


def test_wrong_bytes_are_refused_wherever_they_are(root: Path, store: Store) -> None:
    put(root / "bad", **{"config.json": b"{}"})
    with pytest.raises(
        StageError, match=r"`config\.json` of owner/name cannot be had with the declared digest"
    ) as caught:
        get(hub(mirrors=("path:bad", "path:missing")), root, store)
    assert caught.value.details == (
        f"path:bad: refused, its sha256 is {sha(b'{}')}, declared {DIGESTS['config.json']}",
        "path:missing: has no `config.json`",
        "hub:owner/name: `config.json` cannot be downloaded from the hub ([Errno -2] Name or service not known)",
    )
    assert "model.mirrors" in str(caught.value.help)
    assert not any(store.root.rglob("*"))


def test_a_damaged_cache_is_mended(root: Path, store: Store) -> None:
    put(root / "mirror")
    source = hub(mirrors=("path:mirror",))
    get(source, root, store)
    store.blobs.place(DIGESTS["model.safetensors"]).write_bytes(b"bit rot")
    found = get(source, root, store)
    assert (found.directory / "model.safetensors").read_bytes() == CONTENT["model.safetensors"]
    assert origins(found)["model.safetensors"] == "path:mirror"
    assert origins(get(source, root, store))["model.safetensors"] == "ortc's cache"


def test_a_package_as_a_mirror(root: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "site" / "some_model" / "files")
    (tmp_path / "site" / "some_model" / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path / "site")
    mirrors = ("package:not_installed/files", "package:some_model/elsewhere", "package:some_model/files")
    found = get(hub(mirrors=mirrors), root, store)
    # Found without running the package's code.
    assert set(origins(found).values()) == {"package:some_model/files"}


def test_a_url_as_a_mirror(root: Path, store: Store, tmp_path: Path) -> None:
    put(tmp_path / "far")
    mirrors = (f"file://{tmp_path}/nowhere", f"file://{tmp_path}/far/")
    found = get(hub(mirrors=mirrors), root, store)
    assert set(origins(found).values()) == {mirrors[1]}
    assert (found.directory / "model.safetensors").read_bytes() == CONTENT["model.safetensors"]


def test_an_unknown_kind_of_url_is_one_place_less(root: Path, store: Store) -> None:
    put(root / "mirror")
    found = get(hub(mirrors=("nosuch://x/y", "path:mirror")), root, store)
    assert set(origins(found).values()) == {"path:mirror"}


def test_random_weights_need_no_weights(root: Path, store: Store) -> None:
    put(root / "mirror", **{"config.json": CONTENT["config.json"]})
    files = {name: DIGESTS[name] for name in ("config.json", "model.safetensors")}
    found = get(hub(weights="random", files=files, mirrors=("path:mirror",)), root, store)
    assert set(origins(found)) == {"config.json"}


def test_an_unpinned_file_needs_the_hub_and_says_so(root: Path, store: Store) -> None:
    with pytest.raises(StageError, match=r"the hub cannot be reached for owner/name \(.*Name or service") as caught:
        get(hub(files={}), root, store)
    assert "--set model.weights=random" in str(caught.value.help)
    with pytest.raises(StageError) as caught:
        get(hub(files={}, weights="random"), root, store)
    assert "weights=random" not in str(caught.value.help)


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_names_behind_a_proxy_are_not_looked_up(
    root: Path, store: Store, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "http://proxy.invalid:3128")
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("looked up"))
    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", lambda *_, **__: ["config.json", "evil.py", "x.pkl"])
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda _, name, **__: root / name)
    put(root)
    found = get(hub(files={}, weights="random"), root, store)
    # Never code, never pickles.
    assert origins(found) == {"config.json": f"hub:owner/name@{REVISION}"}


@pytest.fixture
def _reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [])


@pytest.mark.usefixtures("_reachable")
@pytest.mark.parametrize("name", ["../../outside.safetensors", "/tmp/outside.safetensors"])  # noqa: S108
def test_a_listing_leads_nowhere_else(root: Path, store: Store, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", lambda *_, **__: [name])
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: put(root) / "config.json")
    with pytest.raises(StageError, match="leads out of the model's directory"):
        get(hub(files={}), root, store)


@pytest.mark.usefixtures("_reachable")
def test_errors_of_the_http_library_are_stage_errors(root: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import HfHubHTTPError

    http_error = HfHubHTTPError.__bases__[0]

    def refuse(*_: object, **__: object) -> NoReturn:
        raise http_error("connection reset\nmore")

    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", refuse)
    with pytest.raises(StageError, match=r"\(connection reset\)"):
        get(hub(files={}), root, store)


@pytest.mark.usefixtures("_reachable")
def test_digests_hold_for_files_beside_unpinned_ones(root: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put(root / "remote", **{"config.json": b"{}", "model.safetensors": b"weights"})
    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", lambda *_, **__: list(CONTENT)[:2])
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda _, name, **__: root / "remote" / name)
    with pytest.raises(StageError, match=r"`config\.json` of owner/name cannot be had"):
        get(hub(files={"config.json": DIGESTS["config.json"]}), root, store)
    found = get(hub(files={"config.json": sha(b"{}")}), root, store)
    assert found.digests() == {"config.json": sha(b"{}"), "model.safetensors": DIGESTS["model.safetensors"]}


def local(**fields: Any) -> HuggingFaceSource:
    return HuggingFaceSource.model_validate({"source": "huggingface", "path": "model", **fields})


def test_a_directory(root: Path, store: Store) -> None:
    put(root / "model", **CONTENT, **{"modeling.py": b"evil", "optimizer.pkl": b"evil"})
    found = get(local(), root, store)
    assert found.digests() == DIGESTS
    assert set(origins(found).values()) == {"path:model"}
    assert set(get(local(weights="random"), root, store).digests()) == {"config.json", "tokenizer.json"}
    assert get(local(files=DIGESTS), root, store).digests() == DIGESTS


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"path": "missing"}, "`missing` is no directory"),
        ({"files": {"vocab.txt": "0" * 64}}, r"`model` has no `vocab\.txt`"),
        (
            {"files": {"config.json": "0" * 64}},
            r"`model/config\.json` was refused: its sha256 is [0-9a-f]{64}, declared 0{64}",
        ),
        ({"files": {"tokenizer.json": DIGESTS["tokenizer.json"]}}, r"`model` has no config\.json"),
        ({"files": {"weights.pkl": "0" * 64}}, r"refused `weights\.pkl`: reading a pickle runs the code"),
    ],
)
def test_a_directory_that_is_not_as_declared(root: Path, store: Store, fields: dict[str, Any], message: str) -> None:
    put(root / "model", **CONTENT, **{"weights.pkl": b"evil"})
    with pytest.raises(StageError, match=message):
        get(local(**fields), root, store)


@pytest.mark.parametrize("name", ["weights.pkl", "weights.pickle", "model.joblib"])
def test_pickles_are_refused_before_they_are_looked_for(root: Path, store: Store, name: str) -> None:
    put(root / "mirror", **{name: b"evil"})
    files = {
        "config.json": DIGESTS["config.json"],
        "model.safetensors": DIGESTS["model.safetensors"],
        name: sha(b"evil"),
    }
    put(root / "mirror", **CONTENT)
    with pytest.raises(StageError, match="reading a pickle runs the code that it carries"):
        get(hub(files=files, mirrors=("path:mirror",)), root, store)
    put(root, **{name: b"evil"})
    source = PyTorchSource(source="pytorch", entrypoint="m:f", weights=name, sha256=sha(b"evil"))
    with pytest.raises(StageError, match="reading a pickle"):
        get(source, root, store)


def test_a_module_without_weights_has_no_files(root: Path, store: Store) -> None:
    for weights in (*NO_WEIGHTS_FILE, None):
        assert get(PyTorchSource(source="pytorch", entrypoint="m:f", weights=weights), root, store).files == ()


@pytest.mark.parametrize("kind", ["pytorch", "exported_program"])
def test_one_file(root: Path, store: Store, kind: str) -> None:
    put(root / "sub", **{"net.pt2": b"program"})

    def source(**fields: Any) -> Any:
        if kind == "pytorch":
            return PyTorchSource(source="pytorch", entrypoint="m:f", weights="sub/net.pt2", **fields)
        return ExportedProgramSource(source="exported_program", path="sub/net.pt2", **fields)

    for fields in ({}, {"sha256": sha(b"program")}):
        found = get(source(**fields), root, store)
        assert found.digests() == {"net.pt2": sha(b"program")}
        assert (found.directory / "net.pt2").read_bytes() == b"program"
    with pytest.raises(StageError, match="was refused: its sha256 is"):
        get(source(sha256="0" * 64), root, store)
    (root / "sub" / "net.pt2").unlink()
    with pytest.raises(StageError, match=r"`sub/net\.pt2` does not exist"):
        get(source(), root, store)


def save_onnx(path: Path, location: str | None) -> None:
    weight = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        [weight],
    )
    model = helper.make_model(graph)
    if location is None:
        onnx.save(model, path)
    else:
        onnx.save(model, path, save_as_external_data=True, location=location, size_threshold=0)


def test_an_onnx_file_with_its_external_data(root: Path, store: Store) -> None:
    source = OnnxSource(source="onnx", path="net.onnx")
    save_onnx(root / "net.onnx", None)
    assert set(get(source, root, store).digests()) == {"net.onnx"}
    save_onnx(root / "net.onnx", "weights.bin")
    found = get(source, root, store)
    # The digest of the graph says nothing of its weights, so theirs is taken too.
    assert found.digests() == {
        "net.onnx": sha((root / "net.onnx").read_bytes()),
        "weights.bin": sha((root / "weights.bin").read_bytes()),
    }
    assert (found.directory / "weights.bin").read_bytes() == (root / "weights.bin").read_bytes()
    (root / "weights.bin").unlink()
    with pytest.raises(StageError, match=r"keeps weights in `weights\.bin`, which is not there"):
        get(source, root, store)


@pytest.mark.parametrize("location", ["../outside.bin", "/etc/hostname", "sub/../../outside.bin", "..", "", "a\\b"])
def test_external_data_is_not_outside_of_the_graphs_directory(root: Path, store: Store, location: str) -> None:
    save_onnx(root / "net.onnx", "weights.bin")
    model = onnx.load(root / "net.onnx", load_external_data=False)
    next(entry for entry in model.graph.initializer[0].external_data if entry.key == "location").value = location
    (root / "net.onnx").write_bytes(model.SerializeToString())
    put(root.parent, **{"outside.bin": b"x"})
    put(root / "sub", **{"weights.bin": b"x"})
    with pytest.raises(StageError, match="which is not below the directory of the graph"):
        get(OnnxSource(source="onnx", path="net.onnx"), root, store)


def test_no_onnx_file(root: Path, store: Store) -> None:
    (root / "net.onnx").write_bytes(b"\xff\xff not a graph")
    with pytest.raises(StageError, match=r"`net\.onnx` is no ONNX file"):
        get(OnnxSource(source="onnx", path="net.onnx"), root, store)


def test_nobodys_paths_are_in_the_origin(root: Path, store: Store, tmp_path: Path) -> None:
    put(root / "mirror")
    hub_cache(tmp_path, **{"config.json": CONTENT["config.json"]})
    for _ in range(2):
        assert str(tmp_path) not in str(origins(get(hub(mirrors=("path:mirror",)), root, store)))
