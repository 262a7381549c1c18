"""Archives and image layouts: the same bytes for the same bundle, and what their formats ask for."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from tests.support.bundles import runtime_module
from tests.support.keys import write_keys
from tests.support.whole_bundles import add_measurement, whole_bundle

from ortc.__main__ import run
from ortc.bundle.delivery.pack import pack
from ortc.bundle.supply_chain.signing import sign
from ortc.common.errors import StageError, UsageError

DATA = Path(__file__).parents[2] / "data"
NAME = "linear-1.0.0-cpu"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return whole_bundle(tmp_path / "cpu")


def tree(place: Path) -> dict[str, bytes]:
    return {path.relative_to(place).as_posix(): path.read_bytes() for path in place.rglob("*") if path.is_file()}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_the_archive_holds_the_bundle(bundle: Path, tmp_path: Path) -> None:
    done = pack(bundle, tmp_path / "out", ["tar"])
    archive = tmp_path / "out" / f"{NAME}.tar"
    assert done.archive == str(archive)
    assert done.archive_sha256 == sha256(archive.read_bytes())
    assert done.archive_bytes == archive.stat().st_size
    assert (tmp_path / "out" / f"{NAME}.tar.sha256").read_text() == f"{done.archive_sha256}  {NAME}.tar\n"
    with tarfile.open(archive) as opened:
        opened.extractall(tmp_path / "unpacked", filter="data")
    assert tree(tmp_path / "unpacked" / NAME) == tree(bundle)
    # Times too: the loader trusts files of the right size and time.
    assert runtime_module("loading.files").read_manifest(tmp_path / "unpacked" / NAME, "fast")["name"] == "linear"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"{NAME}.tar", f"{NAME}.tar.sha256"]


def test_measurements_that_no_signature_covers_are_not_packed(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    private, public = write_keys(tmp_path / "keys")
    add_measurement(bundle)
    signed = tree(bundle).keys()
    sign(bundle, private)
    planted = bundle / "measurements" / ("f" * 12 + ".json")
    planted.write_bytes(next((bundle / "measurements").glob("*.json")).read_bytes())
    for options in ([], ["--key", str(public)]):
        assert run(["pack", str(bundle), "-o", str(tmp_path / "out"), "--format", "tar", *options]) == 0
        assert f"no signature covers measurements/{planted.name}: not used" in capsys.readouterr().err
        with tarfile.open(tmp_path / "out" / f"{NAME}.tar") as opened:
            packed = {member.name.partition("/")[2] for member in opened if member.isfile()}
        assert packed >= signed
        assert f"measurements/{planted.name}" not in packed
    other = write_keys(tmp_path / "others")[1]
    assert run(["pack", str(bundle), "-o", str(tmp_path / "none"), "--key", str(other)]) == 5
    assert not (tmp_path / "none").exists()


def test_an_unfit_bundle_is_packed_only_when_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = whole_bundle(tmp_path / "cpu", fit_to_serve=False, unfit_reason="random weights")
    arguments = ["pack", str(bundle), "-o", str(tmp_path / "out"), "--format", "tar"]
    assert run(arguments) == 4
    told = capsys.readouterr().err
    assert "is not to be packed for a release: it is not fit to serve, random weights" in told
    assert "`--allow-unfit` packs it all the same" in told
    assert not (tmp_path / "out").exists()
    assert run([*arguments, "--allow-unfit"]) == 0
    assert (tmp_path / "out" / f"{NAME}.tar").is_file()


def test_the_same_bundle_gives_the_same_bytes(bundle: Path, tmp_path: Path) -> None:
    """Wherever it lies, in whatever order its directory is listed, and whoever owns it."""
    other = tmp_path / "elsewhere" / "another-name"
    other.mkdir(parents=True)
    for path in sorted(bundle.rglob("*"), reverse=True):
        if path.is_file():
            (other / path.relative_to(bundle)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, other / path.relative_to(bundle))
            (other / path.relative_to(bundle)).chmod(0o600)
    pack(bundle, tmp_path / "one", ["tar", "oci"])
    pack(other, tmp_path / "two", ["tar", "oci"])
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def read(layout: Path, descriptor: dict[str, Any]) -> bytes:
    content = (layout / "blobs" / "sha256" / descriptor["digest"].removeprefix("sha256:")).read_bytes()
    assert sha256(content) == descriptor["digest"].removeprefix("sha256:")
    assert len(content) == descriptor["size"]
    return content


def manifests(layout: Path) -> dict[str, dict[str, Any]]:
    index = json.loads((layout / "index.json").read_bytes())
    return {
        entry["annotations"]["org.opencontainers.image.ref.name"]: json.loads(read(layout, entry))
        for entry in index["manifests"]
    }


def test_the_layout(bundle: Path, tmp_path: Path) -> None:
    done = pack(bundle, tmp_path / "out", ["oci"])
    layout = tmp_path / "out" / f"{NAME}.oci"
    assert json.loads((layout / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    found = manifests(layout)
    assert list(found) == [image.reference for image in done.images] == ["1.0.0-cpu", "1.0.0-cpu-modelcar"]
    artifact, modelcar = found.values()

    assert artifact["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    config = json.loads(read(layout, artifact["config"]))
    jsonschema.validate(config, json.loads((DATA / "modelpack-config.schema.json").read_bytes()))
    assert config["descriptor"]["name"] == "linear"
    assert config["config"] == {"format": "onnx", "precision": "fp32"}
    assert config["modelfs"]["diffIds"] == [layer["digest"] for layer in artifact["layers"]]
    assert [layer["mediaType"].split(".")[3] for layer in artifact["layers"]] == ["code", "weight"]

    config = json.loads(read(layout, modelcar["config"]))
    assert (config["os"], config["architecture"]) == ("linux", "amd64")
    assert config["rootfs"]["diff_ids"] == [layer["digest"] for layer in modelcar["layers"]]
    for index, layer in enumerate(modelcar["layers"]):
        read(layout, layer)
        place = tmp_path / "root"
        with tarfile.open(layout / "blobs" / "sha256" / layer["digest"].removeprefix("sha256:")) as opened:
            names = [name for name in opened.getnames() if name.startswith("models/model/")]
            assert bool(names) == (index == 1), "the weights are a layer of their own"
            opened.extractall(place, filter="data")
    assert tree(place / "models") == tree(bundle)
    # Nothing lies there that no manifest needs.
    needed = {d["digest"] for m in found.values() for d in (m["config"], *m["layers"])}
    needed |= {image.digest for image in done.images}
    assert {f"sha256:{path.name}" for path in (layout / "blobs" / "sha256").iterdir()} == needed


def test_several_platforms_have_a_modelcar_each(tmp_path: Path) -> None:
    bundle = whole_bundle(tmp_path / "cpu", platforms=["linux/amd64", "linux/arm64"])
    done = pack(bundle, tmp_path / "out", ["oci"])
    assert [image.reference for image in done.images] == [
        "1.0.0-cpu",
        "1.0.0-cpu-modelcar-amd64",
        "1.0.0-cpu-modelcar-arm64",
    ]


def test_a_measurement_leaves_the_weights_layer_alone(bundle: Path, tmp_path: Path) -> None:
    before = pack(bundle, tmp_path / "out", ["oci"])
    old = manifests(tmp_path / "out" / f"{NAME}.oci")["1.0.0-cpu"]["layers"]
    add_measurement(bundle, cores=8)
    after = pack(bundle, tmp_path / "out", ["oci"])
    new = manifests(tmp_path / "out" / f"{NAME}.oci")["1.0.0-cpu"]["layers"]
    assert before.images[0].digest != after.images[0].digest
    assert (old[0]["digest"] == new[0]["digest"], old[1]["digest"] == new[1]["digest"]) == (False, True)


def test_a_modelcar_upon_a_base(bundle: Path, tmp_path: Path) -> None:
    base_bundle = whole_bundle(tmp_path / "base-bundle", version="0.0.1")
    pack(base_bundle, tmp_path / "base", ["oci"])
    layout = tmp_path / "base" / "linear-0.0.1-cpu.oci"
    with pytest.raises(UsageError, match="no OCI layout of one image"):
        pack(bundle, tmp_path / "out", ["oci"], layout)
    index = json.loads((layout / "index.json").read_bytes())
    index["manifests"] = index["manifests"][1:]
    (layout / "index.json").write_text(json.dumps(index))
    pack(bundle, tmp_path / "out", ["oci"], layout)
    found = manifests(tmp_path / "out" / f"{NAME}.oci")["1.0.0-cpu-modelcar"]
    assert len(found["layers"]) == 4
    assert found["layers"][:2] == manifests(layout)["0.0.1-cpu-modelcar"]["layers"]
    config = json.loads(read(tmp_path / "out" / f"{NAME}.oci", found["config"]))
    assert config["rootfs"]["diff_ids"] == [layer["digest"] for layer in found["layers"]]
    with pytest.raises(UsageError, match="for linux/amd64, the bundle for linux/arm64"):
        pack(whole_bundle(tmp_path / "arm", platforms=["linux/arm64"]), tmp_path / "out", ["oci"], layout)


def test_a_damaged_bundle_is_not_packed(bundle: Path, tmp_path: Path) -> None:
    (bundle / "session.json").write_text("{}")
    with pytest.raises(StageError, match="damaged"):
        pack(bundle, tmp_path / "out", ["tar", "oci"])
    assert not (tmp_path / "out").exists()


def test_the_command_line(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["pack", str(bundle), "-o", str(tmp_path / "out"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["format_version"] == 1
    assert run(["pack", str(bundle), "-o", str(tmp_path / "out"), "--format", "tar"]) == 0
    assert document["archive_sha256"] in capsys.readouterr().out


@pytest.mark.parametrize("content", ["[" * 200_000, "1" * 6_000, '{"numbers": null}', "", "\x00", '"text"'])
def test_a_measurement_that_is_none_is_not_packed(
    bundle: Path, tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (bundle / "measurements" / ("f" * 12 + ".json")).write_text(content)
    key, _ = write_keys(tmp_path / "keys")
    for arguments in (["pack", "-o"], ["registry", "add", "--registry"], ["emit", "-o"], ["sign", "--key"]):
        place = key if arguments[0] == "sign" else tmp_path / "out"
        assert run([*arguments, str(place), str(bundle)]) == 4, arguments
        assert "is no measurement that this ortc reads" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
    assert not (bundle / "attestations" / "bundle.sig").exists()


@pytest.mark.parametrize(("mask", "mode"), [(0o077, 0o700), (0o022, 0o755), (0o027, 0o750)])
def test_a_bundle_from_a_registry_is_as_readable_as_the_umask_lets(
    bundle: Path, tmp_path: Path, mask: int, mode: int
) -> None:
    before = os.umask(mask)
    try:
        registry = ["--registry", str(tmp_path / "registry")]
        assert run(["registry", "add", str(bundle), *registry]) == 0
        assert run(["registry", "get", "linear", *registry, "-o", str(tmp_path / "got")]) == 0
        assert run(["emit", str(bundle), "--emit", "k8s", "-o", str(tmp_path / "emitted")]) == 0
        assert run(["pack", str(bundle), "-o", str(tmp_path / "packed")]) == 0
    finally:
        os.umask(before)
    got = tmp_path / "got" / "linear" / "1.0.0" / "cpu"
    for place in (got, got / "model", tmp_path / "emitted", tmp_path / "packed" / f"{NAME}.oci"):
        assert place.stat().st_mode & 0o777 == mode, place
    for place in (got / "manifest.json", tmp_path / "emitted" / "k8s.yaml", tmp_path / "packed" / f"{NAME}.tar"):
        assert place.stat().st_mode & 0o777 == mode & 0o666, place
