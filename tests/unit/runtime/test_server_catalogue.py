"""What a server takes for bundles of a repository that others write to."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from tests.support import bundles

catalogue, files = bundles.runtime_module("serving.catalogue"), bundles.runtime_module("loading.files")
MANIFEST = {"kind": "ortc-bundle", "target": "cpu", "model": {"bytes": 1}}


def put(place: Path, **changes: Any) -> Path:
    place.mkdir(parents=True)
    (place / "manifest.json").write_text(json.dumps({**MANIFEST, "version": "1", **changes}))
    return place


def names(root: Path) -> list[str]:
    return sorted(name for name, _ in catalogue.find_bundles(root, "cpu"))


def test_pipes_and_devices_are_no_manifests(tmp_path: Path) -> None:
    """A pipe would wait for a writer, and a device has no end."""
    root = tmp_path / "repository"
    put(root / "good/1/cpu", name="good")
    for place in ("pipe", "zero", "folder", "circle"):
        (root / place / "1/cpu").mkdir(parents=True)
    os.mkfifo(root / "pipe/1/cpu/manifest.json")
    (root / "zero/1/cpu/manifest.json").symlink_to("/dev/zero")
    (root / "folder/1/cpu/manifest.json").mkdir()
    (root / "circle/1/cpu/manifest.json").symlink_to("manifest.json")
    (root / "circle/around").symlink_to("around")
    assert names(root) == ["good"]


def test_links_out_of_a_repository_lead_to_no_bundle(tmp_path: Path) -> None:
    """Links within it do: a volume that is replaced as a whole is made of them."""
    root = tmp_path / "repository"
    put(tmp_path / "elsewhere/other/1/cpu", name="other")
    put(root / "..data/good/1/cpu", name="good")
    (root / "good").symlink_to("..data/good")
    (root / "outside").symlink_to(tmp_path / "elsewhere")
    (root / "whole").symlink_to("/")
    (root / "file/1/cpu").mkdir(parents=True)
    (root / "file/1/cpu/manifest.json").symlink_to(tmp_path / "elsewhere/other/1/cpu/manifest.json")
    assert names(root) == ["good"]
    assert names(root / "nowhere") == []
    # The directory itself may be a link, which whoever starts the server has named.
    (tmp_path / "link").symlink_to(root)
    assert names(tmp_path / "link") == ["good"]


def test_a_manifest_beyond_measure_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "good/1/cpu", name="good")
    assert names(tmp_path) == ["good"]
    with pytest.raises(OSError, match="more than 10 bytes"):
        files.read_plain(tmp_path / "good/1/cpu/manifest.json", 10)
    monkeypatch.setattr(catalogue, "MOST_FOLDERS", 3)
    assert names(tmp_path) == []


@pytest.fixture
def unlimited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines of the log as the first of a process: what other tests logged does not hold them back."""
    logs = bundles.runtime_module("serving.logs")
    monkeypatch.setattr(logs, "_rates", logs.Rates())


@pytest.mark.parametrize(
    "changes",
    [
        {"version": "9" * 5000},
        {"version": "9" * 5000, "name": "other"},
        {"version": "2\udcff"},
        {"version": "2\n"},
        {"version": ""},
        {"version": [1]},
        {"version": True},
        {"name": None},
        {"name": 5},
        {"name": "a\ud800"},
        {"name": "n" * 1_000_000},
        {"name": "x\n<script>\x1b[31m"},
        {"name": "good\n"},
        {"name": "A"},
        {"model": {"bytes": 1e308}},
        {"model": {"bytes": -(10**300)}},
        {"model": {"bytes": 10**300}},
        {"model": {"bytes": True}},
        {"model": {"bytes": "1"}},
        {"model": {"bytes": None}},
        {"model": []},
    ],
    ids=lambda changes: repr(changes)[:40],
)
def test_one_entry_that_cannot_be_is_passed_over_and_named(
    changes: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], unlimited: None
) -> None:
    """Every request for a model reads what is known of all, so that one entry must never end the answer to another."""
    put(tmp_path / "good/1/cpu", name="good")
    put(tmp_path / "evil", **({"name": "good", "version": "2"} | changes))
    for _ in range(3):
        found = catalogue.find_bundles(tmp_path, "cpu")
    assert set(found) == {("good", "1")}
    versions = bundles.runtime_module("serving.versions").Versions()
    versions.learn(found.values(), set())
    assert versions.resolve("good", None, set()) == ("good", "1")
    assert versions.all() == [("good", "1")]
    (line,) = capsys.readouterr().err.splitlines()
    told = json.loads(line)
    assert (told["event"], told["path"]) == ("bundle-passed-over", str(tmp_path / "evil"))
    assert len(line) < 1000


def test_of_many_entries_that_cannot_be_so_many_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], unlimited: None
) -> None:
    monkeypatch.setattr(catalogue, "_told", set())
    monkeypatch.setattr(catalogue, "MOST_TOLD", 3)
    for index in range(5):
        put(tmp_path / str(index), name="A")
    assert names(tmp_path) == []
    assert len(capsys.readouterr().err.splitlines()) == 3


@pytest.mark.parametrize("name", ["manifest.json", "SHA256SUMS", "session.json"])
@pytest.mark.parametrize("verify", ["full", "none"])
def test_a_bundle_of_pipes_is_refused_at_once(name: str, verify: str, tmp_path: Path) -> None:
    loader = bundles.runtime_module("loader")
    bundle = bundles.linear().write(tmp_path / "bundle")
    (bundle / name).unlink()
    os.mkfifo(bundle / name)
    if name == "SHA256SUMS" and verify == "none":
        loader.Model.load(bundle, verify=verify).close()
        return
    with pytest.raises(loader.BundleError, match=name.replace(".", r"\.")):
        loader.Model.load(bundle, verify=verify)
