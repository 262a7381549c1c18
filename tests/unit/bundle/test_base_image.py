"""Base images of modelcars: a layout of somebody else neither reads nor writes outside of itself, nor ends ortc."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.whole_bundles import whole_bundle

from ortc.__main__ import run
from ortc.bundle.delivery.base_image import read_base
from ortc.common.errors import UsageError

TAR = "application/vnd.oci.image.layer.v1.tar"
LAYER = b"a layer"
ZERO = "sha256:" + "0" * 64
Json = dict[str, Any]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Layout:
    """An OCI layout of one image, of which every document can be changed before it is written."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.blobs = place / "blobs" / "sha256"
        self.blobs.mkdir(parents=True)
        self.layers: Any = [self.put(LAYER, TAR)]
        self.config: Any = {
            "os": "linux",
            "architecture": "amd64",
            "config": {"Env": ["PATH=/bin"], "Entrypoint": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": [self.layers[0]["digest"]]},
        }
        self.manifest: Json = {}
        self.index: Json = {}

    def put(self, content: bytes, media_type: str = "application/octet-stream") -> Json:
        (self.blobs / sha256(content)).write_bytes(content)
        return {"mediaType": media_type, "digest": f"sha256:{sha256(content)}", "size": len(content)}

    def blob(self, number: int = 0) -> Path:
        return self.blobs / self.layers[number]["digest"].removeprefix("sha256:")

    def write(self) -> Path:
        config = self.put(json.dumps(self.config).encode())
        manifest = {"schemaVersion": 2, "config": config, "layers": self.layers, **self.manifest}
        index = {"manifests": [self.put(json.dumps(manifest).encode())], **self.index}
        (self.place / "index.json").write_text(json.dumps(index))
        return self.place


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "x" / "y" / "base")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return whole_bundle(tmp_path / "cpu")


def bring(base: Path, blobs: Path) -> None:
    image = read_base(base)
    for layer in image.layers:
        image.copy_layer(layer, blobs)


def refused(base: Path, blobs: Path) -> str:
    """The message about a base whose documents or layers cannot be used."""
    blobs.mkdir(parents=True, exist_ok=True)
    with pytest.raises(UsageError, match="is no OCI layout of one image") as caught:
        bring(base, blobs)
    return str(caught.value)


def test_a_base_is_below_the_bundle(layout: Layout, bundle: Path, tmp_path: Path) -> None:
    packed = gzip.compress(b"another layer", mtime=0)
    layout.layers.append(layout.put(packed, f"{TAR}+gzip") | {"urls": ["https://elsewhere"], "annotations": {"a": "b"}})
    layout.config["rootfs"]["diff_ids"].append(f"sha256:{sha256(b'another layer')}")
    assert run(["pack", str(bundle), "-o", str(tmp_path / "out"), "--base", str(layout.write())]) == 0
    made = tmp_path / "out" / "linear-1.0.0-cpu.oci"
    for path in (made / "blobs" / "sha256").iterdir():
        assert sha256(path.read_bytes()) == path.name
    (entry,) = (e for e in json.loads((made / "index.json").read_bytes())["manifests"] if "platform" in e)
    modelcar = json.loads((made / "blobs" / "sha256" / entry["digest"].removeprefix("sha256:")).read_bytes())
    assert modelcar["layers"][0] == layout.layers[0]
    assert modelcar["layers"][1] == {key: layout.layers[1][key] for key in ("mediaType", "digest", "size")}
    config = json.loads((made / "blobs" / "sha256" / modelcar["config"]["digest"].removeprefix("sha256:")).read_bytes())
    assert config["config"] == layout.config["config"]
    assert config["rootfs"]["diff_ids"][:2] == layout.config["rootfs"]["diff_ids"]


def test_nothing_is_packed_upon_a_base_that_is_not_as_stated(
    layout: Layout, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout.write()
    layout.blob().write_bytes(LAYER[::-1])
    assert run(["pack", str(bundle), "-o", str(tmp_path / "out"), "--base", str(layout.place)]) == 2
    assert "is no OCI layout of one image: the blob sha256:" in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())


def test_no_digest_leads_out_of_a_layout(layout: Layout, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("the user's own")
    out = tmp_path / "out" / "packed"
    source = (layout.blobs / "../../../../../victim2").resolve()
    source.write_bytes(LAYER)
    for digest in (
        "sha256:../../../../../victim",
        "sha256:../../../../../victim2",
        f"sha256:{victim}",
        "sha256:",
        "sha256:.",
        "sha256:a\0b",
        f"sha256:{'c' * 6000}",
        f"sha256:{'C' * 64}",
        f"sha256:{'c' * 64}\n",
        f"sha512:{'c' * 128}",
        "c" * 64,
        "",
        5,
        None,
        ["x"],
    ):
        layout.layers = [{"mediaType": TAR, "digest": digest, "size": len(LAYER)}]
        refused(layout.write(), out)
    assert victim.read_text() == "the user's own"


@pytest.mark.parametrize("what", ["layer", "config", "manifest"])
@pytest.mark.parametrize("how", ["changed", "longer", "shorter", "link", "directory", "pipe", "missing"])
def test_every_blob_is_a_plain_file_as_stated(layout: Layout, tmp_path: Path, what: str, how: str) -> None:
    layout.write()
    index = json.loads((layout.place / "index.json").read_bytes())
    manifest = layout.blobs / index["manifests"][0]["digest"].removeprefix("sha256:")
    config = layout.blobs / json.loads(manifest.read_bytes())["config"]["digest"].removeprefix("sha256:")
    blob = {"layer": layout.blob(), "config": config, "manifest": manifest}[what]
    content = blob.read_bytes()
    blob.unlink()
    if how == "link":
        # Of the right content: what it leads to is not the layout's.
        (tmp_path / "secret").write_bytes(content)
        blob.symlink_to(tmp_path / "secret")
    elif how == "directory":
        blob.mkdir()
    elif how == "pipe":
        os.mkfifo(blob)
    elif how != "missing":
        changed = {"changed": content[:-1] + b" ", "longer": content + b" ", "shorter": content[:-1]}[how]
        blob.write_bytes(changed)
    refused(layout.place, tmp_path / "out")


@pytest.mark.parametrize("step", ["index.json", "blobs", "blobs/sha256"])
def test_no_step_to_a_blob_is_a_link(layout: Layout, tmp_path: Path, step: str) -> None:
    layout.write()
    (layout.place / step).rename(tmp_path / "elsewhere")
    (layout.place / step).symlink_to(tmp_path / "elsewhere")
    assert "is a link" in refused(layout.place, tmp_path / "out")


CHANGES: dict[str, Callable[[Layout], object]] = {
    "layers a number": lambda layout: layout.manifest.update(layers=5),
    "layers null": lambda layout: layout.manifest.update(layers=None),
    "a layer of text": lambda layout: layout.manifest.update(layers=["x"]),
    "a layer without digest": lambda layout: layout.manifest.update(layers=[{}]),
    "no media type": lambda layout: layout.layers[0].pop("mediaType"),
    "a layer that is no tar": lambda layout: layout.layers[0].update(mediaType="text/plain"),
    "no size": lambda layout: layout.layers[0].pop("size"),
    "a size of text": lambda layout: layout.layers[0].update(size="7"),
    "a size below zero": lambda layout: layout.layers[0].update(size=-1),
    "a huge size": lambda layout: layout.layers[0].update(size=10**400),
    "a large size": lambda layout: layout.layers[0].update(size=2**62),
    "another diff ID": lambda layout: layout.config["rootfs"].update(diff_ids=[ZERO]),
    "too many diff IDs": lambda layout: layout.config["rootfs"]["diff_ids"].append(ZERO),
    "diff IDs a number": lambda layout: layout.config["rootfs"].update(diff_ids=7),
    "a diff ID that is none": lambda layout: layout.config["rootfs"].update(diff_ids=["../x"]),
    "no rootfs": lambda layout: layout.config.pop("rootfs"),
    "a config of a list": lambda layout: setattr(layout, "config", [1]),
    "a config of text": lambda layout: layout.config.update(config="x"),
    "an infinite number": lambda layout: layout.config["config"].update(x=float("inf")),
    "no number": lambda layout: layout.config["config"].update(x=float("nan")),
    "half a character": lambda layout: layout.config["config"].update(x="\ud800"),
    "a system of several lines": lambda layout: layout.config.update(os="linux\n::error::x"),
    "no config": lambda layout: layout.manifest.update(config=None),
    "no manifest": lambda layout: layout.index.update(manifests=[]),
    "two manifests": lambda layout: layout.index.update(manifests=[{}, {}]),
    "manifests a number": lambda layout: layout.index.update(manifests=3),
    "a manifest of text": lambda layout: layout.index.update(manifests=["x"]),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_documents_that_are_not_what_they_should_be(
    layout: Layout, tmp_path: Path, change: Callable[[Layout], object]
) -> None:
    change(layout)
    refused(layout.write(), tmp_path / "out")


@pytest.mark.parametrize("content", ["[" * 100_000, "1" * 6000, "", "null", "[]", '"x"', "{}", "\x00", "NaN", "\udcff"])
def test_an_index_that_is_none(layout: Layout, tmp_path: Path, content: str) -> None:
    layout.write()
    (layout.place / "index.json").write_text(content, "utf-8", "surrogateescape")
    refused(layout.place, tmp_path / "out")
