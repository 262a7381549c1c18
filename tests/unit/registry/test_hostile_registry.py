"""Registries that somebody else wrote into: documents, names and records that are not what they should be."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.support.keys import write_keys
from tests.support.whole_bundles import whole_bundle

from ortc.__main__ import run
from ortc.bundle.supply_chain.signing import SignatureError, sign
from ortc.common.digests import sha256_file
from ortc.common.errors import StageError
from ortc.common.values import digest
from ortc.registry.aliases import promote
from ortc.registry.collect import collect
from ortc.registry.retrieval import retrieve
from ortc.registry.store import Registry
from ortc.registry.views import listing, view

NEVER = timedelta(0)
Json = dict[str, Any]


class Place:
    """A registry in a directory, with what a writer can do to it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.registry = Registry(str(root))
        self.model = root / "models" / "linear"

    @property
    def record(self) -> Path:
        return self.model / "bundles" / "1.0.0@cpu.json"

    @property
    def companion(self) -> Path:
        return min((self.model / "companions" / "1.0.0@cpu").iterdir())

    @property
    def event(self) -> Path:
        return min((self.model / "aliases" / "production").iterdir())

    def blobs(self) -> set[str]:
        return {path.name for path in (self.root / "blobs").rglob("*") if path.is_file()}

    def put_blob(self, content: bytes) -> str:
        fresh = self.root / "fresh"
        fresh.write_bytes(content)
        sha256 = sha256_file(fresh)
        (self.root / "blobs" / sha256[:2]).mkdir(exist_ok=True)
        fresh.rename(self.root / "blobs" / sha256[:2] / sha256)
        return sha256


def forge(path: Path, change: Callable[[Json], object], to: Path | None = None) -> None:
    """Change a document, with a digest of itself that is right."""
    document = json.loads(path.read_bytes())
    document.pop("sha256")
    change(document)
    place = to or path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps({**document, "sha256": digest(document)}))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    found = Place(tmp_path / "registry")
    found.registry.add(whole_bundle(tmp_path / "cpu"))
    return found


@pytest.fixture
def unfit(tmp_path: Path) -> tuple[Place, Path, Json]:
    """A registry with a signed bundle that is not fit to serve, the public key, and the signed manifest."""
    private, public = write_keys(tmp_path / "keys")
    bundle = whole_bundle(tmp_path / "unfit", fit_to_serve=False, unfit_reason="random weights")
    sign(bundle, private)
    found = Place(tmp_path / "registry")
    found.registry.add(bundle, key=public)
    return found, public, json.loads((bundle / "manifest.json").read_bytes())


def refused(place: Place, key: Path, version: str = "1.0.0") -> None:
    for use in (
        lambda: promote(place.registry, f"linear@{version}", "production", key=key),
        lambda: view(place.registry, f"linear@{version}", key),
        lambda: retrieve(place.registry, "linear", version, "cpu", place.root.parent / "got", key),
    ):
        with pytest.raises((StageError, SignatureError)):
            use()


def test_with_a_key_a_signed_bundle_is_shown(unfit: tuple[Place, Path, Json]) -> None:
    place, key, manifest = unfit
    (found,) = view(place.registry, "linear", key).bundles
    assert (found.signed, found.verified, found.record.fit_to_serve) == (True, True, False)
    assert found.record.provenance.source == manifest["provenance"]["source"]
    with pytest.raises(StageError, match="not fit to serve"):
        promote(place.registry, "linear@1.0.0", "production", key=key)


@pytest.mark.parametrize("everywhere", [False, True])
def test_no_manifest_but_the_signed_one_is_believed(unfit: tuple[Place, Path, Json], everywhere: bool) -> None:
    place, key, manifest = unfit
    sha256 = place.put_blob(json.dumps({**manifest, "fit_to_serve": True, "unfit_reason": None}).encode())

    def change(document: Json) -> None:
        document |= {"manifest_sha256": sha256, "fit_to_serve": True}
        if everywhere:
            next(file for file in document["files"] if file["path"] == "manifest.json")["sha256"] = sha256

    forge(place.record, change)
    for path in (place.model / "companions" / "1.0.0@cpu").iterdir():
        forge(path, lambda document: document.update(manifest_sha256=sha256))
    refused(place, key)


FIELDS: dict[str, Callable[[Json], object]] = {
    "fit": lambda record: record.update(fit_to_serve=True),
    "provisional": lambda record: record.update(provisional=not record["provisional"]),
    "source": lambda record: record["provenance"].update(source="a-trusted/model"),
    "tools": lambda record: record["provenance"]["tools"].update(python="4.0"),
    "runtime": lambda record: record["runtime"].update(version="9.9.9"),
    "variant": lambda record: record["variant"].update(name="int8"),
    "opset": lambda record: record["model"].update(opset=21),
    "platforms": lambda record: record.update(platforms=["linux/arm64"]),
    "axes": lambda record: record["axes"][0].update(max=99),
    "promises": lambda record: record["promises"].update(latency={"p99": 1e-6}),
    "stamp": lambda record: record.update(stamp=1),
    "bytes": lambda record: record["files"][0].update(bytes=record["files"][0]["bytes"] + 1),
    "bytes of the manifest": lambda record: next(
        file for file in record["files"] if file["path"] == "manifest.json"
    ).update(bytes=1),
    "a file less": lambda record: record["files"].pop(0),
}


@pytest.mark.parametrize("change", FIELDS.values(), ids=FIELDS.keys())
def test_with_a_key_no_field_is_shown_that_is_not_signed(
    unfit: tuple[Place, Path, Json], change: Callable[[Json], object]
) -> None:
    place, key, _ = unfit
    forge(place.record, change)
    refused(place, key)


def test_a_signed_bundle_stands_for_no_other_version(unfit: tuple[Place, Path, Json]) -> None:
    place, key, _ = unfit
    forge(place.record, lambda record: record.update(version="2.0.0"), place.model / "bundles" / "2.0.0@cpu.json")
    for path in (place.model / "companions" / "1.0.0@cpu").iterdir():
        forge(
            path,
            lambda document: document.update(version="2.0.0"),
            place.model / "companions" / "2.0.0@cpu" / path.name,
        )
    refused(place, key, "2.0.0")
    with pytest.raises(StageError, match=r"its version is 1\.0\.0, expected 2\.0\.0"):
        view(place.registry, "linear@2.0.0", key)


def test_no_alias_stands_for_a_version_or_the_latest(place: Place, tmp_path: Path) -> None:
    place.registry.add(whole_bundle(tmp_path / "second", version="2.0.0"))
    promote(place.registry, "linear@1.0.0", "production")
    for alias in ("latest", "2.0.0"):
        forge(
            place.event,
            lambda event, to=alias: event.update(alias=to),
            place.model / "aliases" / alias / place.event.name,
        )
    assert place.registry.resolve("linear") == ("linear", "2.0.0")
    assert place.registry.resolve("linear@latest") == ("linear", "2.0.0")
    assert place.registry.resolve("linear@2.0.0") == ("linear", "2.0.0")


DOCUMENTS: dict[str, tuple[str, Callable[[Json], object]]] = {
    "a time without a zone in a record": ("record", lambda d: d.update(registered="2026-01-01T00:00:00")),
    "a time without a zone in a companion": ("companion", lambda d: d.update(registered="2026-01-01T00:00:00")),
    "a time without a zone in an event": ("event", lambda d: d.update(at="2026-01-01T00:00:00")),
    "the first time": ("event", lambda d: d.update(at="0001-01-01T00:00:00+14:00")),
    "the last time": ("event", lambda d: d.update(at="9999-12-31T23:59:59-14:00")),
    "a time that is a number": ("event", lambda d: d.update(at=10**300)),
    "a stamp of long ago": ("record", lambda d: d.update(stamp=-(10**30))),
    "a stamp far ahead": ("record", lambda d: d.update(stamp=10**30)),
    "a stamp of many thousand years": ("record", lambda d: d.update(stamp=10**12)),
    "a huge file": ("record", lambda d: d["files"][0].update(bytes=10**400)),
    "a huge companion": ("companion", lambda d: d["file"].update(bytes=10**400)),
    "no files": ("record", lambda d: d.update(files=[])),
    "a file twice": ("record", lambda d: d["files"].append(d["files"][0])),
    "a path of two lines": ("record", lambda d: d["files"][0].update(path="a\nb")),
    "a path of two spellings": ("record", lambda d: d["files"][0].update(path="a//b")),
    "a path that leads out": ("record", lambda d: d["files"][0].update(path="../b")),
    "a huge model": ("record", lambda d: d["model"].update(bytes=10**400)),
}


@pytest.mark.parametrize(("what", "change"), DOCUMENTS.values(), ids=DOCUMENTS.keys())
def test_documents_that_are_not_what_they_should_be(
    place: Place, tmp_path: Path, what: str, change: Callable[[Json], object]
) -> None:
    promote(place.registry, "linear@1.0.0", "production")
    forge(getattr(place, what), change)
    at = ["--registry", str(place.root)]
    codes = [
        run(["registry", *command, *at])
        for command in (["show", "linear"], ["get", "linear", "-o", str(tmp_path / "got")], ["ls"], ["gc"])
    ]
    assert set(codes) <= {0, 4}
    assert 4 in codes


@pytest.mark.parametrize("name", ["x-abc.json", "9" * 240 + "-a.json", "README.md", "00000002-a b.json"])
def test_changes_of_an_alias_have_names_of_a_form(place: Place, name: str) -> None:
    promote(place.registry, "linear@1.0.0", "production")
    shutil.copyfile(place.event, place.event.with_name(name))
    for command in (["ls"], ["promote", "linear@1.0.0", "production"], ["rollback", "linear", "production"]):
        assert run(["registry", *command, "--registry", str(place.root)]) == 4


def test_a_change_with_the_highest_number_is_told(place: Place) -> None:
    promote(place.registry, "linear@1.0.0", "production")
    shutil.copyfile(place.event, place.event.with_name("99999999-a.json"))
    with pytest.raises(StageError, match="highest number"):
        promote(place.registry, "linear@1.0.0", "production")


NAMES = [
    "a\nb",
    "zz\nlinear@9.9.9  cpu  (latest)",
    "::set-output name=x::y",
    "\u202eevil",
    "x@y",
    "a\udcff",
    "A",
    "a b",
]


def test_names_that_are_none_are_not_listed(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    for name in NAMES:
        for path in (
            place.root / "models" / name / "bundles" / "1.0.0@cpu.json",
            place.model / "bundles" / f"{name}@cpu.json",
            place.model / "bundles" / f"1.0.0@{name}.json",
            place.model / "aliases" / name / "00000001-a.json",
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}")
    shutil.copyfile(place.record, place.model / "bundles" / "latest@cpu.json")
    # `A` and `1.0.0` are versions.
    assert [entry.name for entry in listing(place.registry)] == ["linear"]
    assert place.registry.versions("linear") == ["A", "1.0.0"]
    assert run(["registry", "ls", "--registry", str(place.root)]) == 0
    assert capsys.readouterr().out == "linear@1.0.0  cpu  (latest)\nlinear@A  cpu\n"


def orphan(place: Place) -> str:
    sha256 = place.put_blob(b"nothing needs this")
    os.utime(place.root / "blobs" / sha256[:2] / sha256, (1, 1))
    return sha256


def break_text(path: Path) -> None:
    path.write_text("{}")


def break_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/nowhere/at/all")


def break_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def break_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("harm", [break_text, break_link, break_pipe, break_directory])
@pytest.mark.parametrize("what", ["record", "companion", "foreign"])
def test_a_collection_goes_on_and_deletes_nothing_that_an_unreadable_document_may_need(
    place: Place, tmp_path: Path, what: str, harm: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    for version in ("0.1.0", "0.2.0"):
        place.registry.add(whole_bundle(tmp_path / version, version=version, seed=int(version[2])))
    if what == "foreign":
        path = place.root / "models" / "a\nb" / "bundles" / "1.0.0@cpu.json"
        path.parent.mkdir(parents=True)
        path.write_text("x")
    else:
        path = getattr(place, what)
    orphan(place)
    before = place.blobs()
    harm(path)
    hidden = place.root / "blobs" / "aa" / ("." + "0" * 32)
    hidden.parent.mkdir(exist_ok=True)
    hidden.write_text("half")
    assert run(["registry", "gc", "--keep", "1", "--grace", "0d", "--registry", str(place.root)]) == 4
    told = capsys.readouterr()
    assert "nothing is deleted that it may need" in told.err
    assert told.err.count("\n") == 1
    assert "linear@0.1.0: forgotten\nlinear@0.2.0: forgotten\n" in told.out
    assert place.blobs() - {hidden.name} == before
    assert not hidden.exists()
    # Once the document is away, the rest goes.
    path.rmdir() if path.is_dir() else path.unlink()
    assert not collect(place.registry, grace=NEVER).unreadable
    assert len(place.blobs()) < len(before)


def test_a_version_with_an_unreadable_document_is_not_forgotten(place: Place, tmp_path: Path) -> None:
    place.registry.add(whole_bundle(tmp_path / "second", version="2.0.0"))
    break_text(place.record)
    assert collect(place.registry, keep=1).versions == ()
    assert place.record.exists()


def test_a_collection_keeps_its_hands_off_other_files(place: Place) -> None:
    others = [place.root / name for name in (".gitignore", "blobs/ab/README.txt", "blobs/ab/.keep", "models/x/.note")]
    misplaced = place.root / "blobs" / "ab" / ("cd" + "0" * 62)
    directory = place.root / "blobs" / "ab" / ("ab" + "0" * 62)
    for path in (*others, misplaced, directory / "x"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
        os.utime(path, (1, 1))
    needless = orphan(place)
    for _ in range(2):
        found = collect(place.registry, grace=NEVER)
        assert not found.unreadable
    assert all(path.exists() for path in (*others, misplaced, directory / "x"))
    assert needless not in place.blobs()


@pytest.mark.parametrize("content", ["{}", "[" * 100_000, "naive"])
def test_marks_that_cannot_be_read_begin_anew(place: Place, content: str) -> None:
    needless = orphan(place)
    place.root.joinpath("gc.json").write_text(content)
    if content == "naive":
        marks = {"kind": "ortc-registry-marks", "format_version": 1, "blobs": {needless: "2020-01-01T00:00:00"}}
        place.root.joinpath("gc.json").write_text(json.dumps({**marks, "sha256": digest(marks)}))
    first = collect(place.registry)
    assert (len(first.unreadable), first.deleted) == (1, ())
    second = collect(place.registry, grace=NEVER)
    assert (second.unreadable, second.deleted) == ((), (needless,))
