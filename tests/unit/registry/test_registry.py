"""The registry: versions never change, aliases and history add up, nothing damaged comes back."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from tests.support.whole_bundles import add_measurement, manifest_of, whole_bundle

from ortc.common.errors import StageError, UsageError
from ortc.registry import store as store_module
from ortc.registry.aliases import promote, rollback
from ortc.registry.collect import collect
from ortc.registry.retrieval import retrieve
from ortc.registry.store import Registry
from ortc.registry.views import listing, view

NEVER = timedelta(0)
HIDDEN = "." + "0" * 32
"""A name that a writer gives to a file until it is whole."""
Bundles = Callable[..., Path]


@pytest.fixture(params=["directory", "memory"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Registry:
    """An empty registry, in a directory and in a store where files have neither directories nor renames."""
    return Registry(f"memory://{uuid.uuid4().hex}" if request.param == "memory" else str(tmp_path / "registry"))


@pytest.fixture
def directory(tmp_path: Path) -> Registry:
    return Registry(f"file://{tmp_path}/registry")


@pytest.fixture
def bundle(tmp_path: Path) -> Bundles:
    def make(version: str = "1.0.0", target: str = "cpu", **options: object) -> Path:
        return whole_bundle(tmp_path / uuid.uuid4().hex, version=version, target=target, **options)  # type: ignore[arg-type]

    return make


def files(place: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(place)): (path.read_bytes(), int(path.stat().st_mtime))
        for path in place.rglob("*")
        if path.is_file()
    }


def test_a_bundle_comes_back_as_it_was(registry: Registry, bundle: Bundles, tmp_path: Path) -> None:
    original = bundle()
    added = registry.add(original)
    assert added.new
    assert [path.partition("/")[0] for path in added.companions] == ["measurements", "attestations"]
    place = retrieve(registry, "linear", "1.0.0", "cpu", tmp_path / "out")
    assert place == tmp_path / "out" / "linear" / "1.0.0" / "cpu"
    assert files(place) == files(original)


def test_what_is_registered_is_told(registry: Registry, bundle: Bundles) -> None:
    original = bundle()
    registry.add(original)
    found = view(registry, "linear").bundles[0]
    manifest = manifest_of(original)
    assert found.record.model.opset == manifest["model"]["opset"]
    assert found.record.provenance.model_dump(mode="json") == {**manifest["provenance"], "licenses": {}}
    assert found.record.runtime.version == manifest["runtime"]["version"]
    (performance,) = found.performance
    assert performance.numbers is not None
    assert (performance.host.cpu, performance.threads, performance.shape) == ("A CPU", 2, "batch=1")
    assert (performance.numbers.p50_ms.value, performance.numbers.p99_ms.samples) == (1.0, 420)
    assert performance.verdicts == {"pass": 1}
    assert not found.signed


def test_the_same_again_adds_only_what_joined_it(registry: Registry, bundle: Bundles, tmp_path: Path) -> None:
    original = bundle()
    registry.add(original)
    assert registry.add(original).model_dump() == {
        "name": "linear",
        "version": "1.0.0",
        "target": "cpu",
        "new": False,
        "companions": (),
        "unsigned": (),
    }
    measured = add_measurement(original, p50=2.0, cores=8)
    assert registry.add(original).companions == (f"measurements/{measured.name}",)
    assert sorted(p.host.cores for p in view(registry, "linear").bundles[0].performance) == [2, 8]
    # On the same hardware anew: the newest counts, and comes back.
    add_measurement(original, p50=3.0, cores=8)
    registry.add(original)
    times = {p.host.cores: p.numbers.p50_ms.value for p in view(registry, "linear").bundles[0].performance if p.numbers}
    assert times == {2: 1.0, 8: 3.0}
    place = retrieve(registry, "linear", "1.0.0", "cpu", tmp_path / "out")
    assert (place / "measurements" / measured.name).read_bytes() == measured.read_bytes()


def test_a_version_never_changes(registry: Registry, bundle: Bundles, tmp_path: Path) -> None:
    original = bundle()
    registry.add(original)
    with pytest.raises(StageError, match=r"another bundle is registered as linear 1\.0\.0 for cpu") as caught:
        registry.add(bundle(seed=1))
    assert "new `version`" in str(caught.value.help)
    assert files(retrieve(registry, "linear", "1.0.0", "cpu", tmp_path / "out")) == files(original)


@pytest.mark.parametrize("name", ["model/model.onnx", "manifest.json", "SHA256SUMS", "runtime/loader.py"])
def test_a_damaged_bundle_is_not_registered(registry: Registry, bundle: Bundles, name: str) -> None:
    original = bundle()
    content = (original / name).read_bytes()
    (original / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(StageError, match="damaged"):
        registry.add(original)
    with pytest.raises(StageError, match="no registry"):
        registry.models()


def test_a_measurement_that_is_none(registry: Registry, bundle: Bundles) -> None:
    original = bundle()
    (original / "measurements" / "x.json").write_text("{}")
    with pytest.raises(StageError, match=r"x\.json is no measurement"):
        registry.add(original)


def test_a_link_beside_a_bundle(registry: Registry, bundle: Bundles, tmp_path: Path) -> None:
    original = bundle()
    (original / "measurements" / "x.json").symlink_to(tmp_path)
    with pytest.raises(StageError, match="no plain file"):
        registry.add(original)


def test_versions_are_in_order(registry: Registry, bundle: Bundles) -> None:
    for version in ("1.10.0", "1.9.0", "2.0.0rc1", "1.9.0.post1", "nightly"):
        registry.add(bundle(version))
    registry.add(bundle("1.9.0", "edge"))
    (model,) = listing(registry)
    assert [entry.version for entry in model.versions] == ["nightly", "1.9.0", "1.9.0.post1", "1.10.0", "2.0.0rc1"]
    assert model.versions[1].targets == ("cpu", "edge")
    assert model.aliases == {"latest": "2.0.0rc1"}
    assert registry.resolve("linear") == registry.resolve("linear@latest") == ("linear", "2.0.0rc1")
    assert registry.resolve("linear@1.9.0") == ("linear", "1.9.0")


def test_promotion_and_rollback(registry: Registry, bundle: Bundles) -> None:
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        registry.add(bundle(version))
        assert promote(registry, f"linear@{version}", "production") == version
    assert registry.aliases("linear") == {"latest": "1.2.0", "production": "1.2.0"}
    assert rollback(registry, "linear", "production") == ("1.2.0", "1.1.0")
    assert rollback(registry, "linear", "production") == ("1.1.0", "1.0.0")
    assert registry.resolve("linear@production") == ("linear", "1.0.0")
    with pytest.raises(StageError, match=r"has always been 1\.0\.0"):
        rollback(registry, "linear", "production")
    # What was taken back is not come back to.
    promote(registry, "linear@1.2.0", "production")
    assert rollback(registry, "linear", "production") == ("1.2.0", "1.0.0")
    said = [(line.event, line.version) for line in view(registry, "linear").history if line.event != "registered"]
    assert said == [
        ("promote", "1.0.0"),
        ("promote", "1.1.0"),
        ("promote", "1.2.0"),
        ("rollback", "1.1.0"),
        ("rollback", "1.0.0"),
        ("promote", "1.2.0"),
        ("rollback", "1.0.0"),
    ]


def test_events_of_two_writers_at_once_are_both_kept(directory: Registry, bundle: Bundles, tmp_path: Path) -> None:
    """Both took the same number: every reader sees them in one order."""
    for version in ("1.0.0", "1.1.0"):
        directory.add(bundle(version))
    promote(directory, "linear@1.0.0", "production")
    place = tmp_path / "registry" / "models" / "linear" / "aliases" / "production"
    (first,) = place.iterdir()
    promote(directory, "linear@1.1.0", "production")
    (second,) = set(place.iterdir()) - {first}
    second.rename(place / second.name.replace("00000002-", "00000001-"))
    events = directory.events("linear", "production")
    assert {event.version for event in events} == {"1.0.0", "1.1.0"}
    assert directory.aliases("linear")["production"] == events[-1].version


def test_what_should_not_be_promoted(registry: Registry, bundle: Bundles) -> None:
    registry.add(bundle("1.0.0"))
    registry.add(bundle("1.0.0", "edge"))
    registry.add(bundle("1.1.0"))
    registry.add(bundle("2.0.0", fit_to_serve=False, unfit_reason="random weights"))
    promote(registry, "linear@1.0.0", "production")
    with pytest.raises(StageError, match=r"1\.1\.0 has no bundle for edge"):
        promote(registry, "linear@1.1.0", "production")
    with pytest.raises(StageError, match=r"2\.0\.0 is not fit to serve \(cpu\)"):
        promote(registry, "linear@2.0.0", "staging")
    assert promote(registry, "linear@1.1.0", "production", fewer=True) == "1.1.0"
    assert promote(registry, "linear@2.0.0", "staging", unfit=True) == "2.0.0"
    for alias in ("latest", "1.0.0", "a/b", "", "../x"):
        with pytest.raises(UsageError, match="cannot be set"):
            promote(registry, "linear@1.0.0", alias)


@pytest.mark.parametrize(
    ("reference", "told", "way_out"),
    [
        ("absent", "has no model `absent`", "linear"),
        ("../linear", "has no model `../linear`", "linear"),
        ("linear@9.9.9", "`linear` has no version or alias `9.9.9`", "latest (1.0.0), 1.0.0"),
        ("linear@production", "no version or alias `production`", "latest (1.0.0)"),
    ],
)
def test_references_that_name_nothing(
    registry: Registry, bundle: Bundles, reference: str, told: str, way_out: str
) -> None:
    registry.add(bundle())
    with pytest.raises(UsageError) as caught:
        registry.resolve(reference)
    assert told in caught.value.message
    assert way_out in str(caught.value.help)


def test_a_target_that_is_not_there(registry: Registry, bundle: Bundles, tmp_path: Path) -> None:
    registry.add(bundle())
    with pytest.raises(UsageError, match="not registered for `edge`"):
        retrieve(registry, "linear", "1.0.0", "edge", tmp_path / "out")
    with pytest.raises(UsageError, match="no alias `production`"):
        rollback(registry, "linear", "production")


def test_latest_is_no_version(registry: Registry, bundle: Bundles) -> None:
    with pytest.raises(StageError, match="no version that can be registered"):
        registry.add(bundle("latest"))


def test_where_there_is_no_registry(registry: Registry, bundle: Bundles) -> None:
    for ask in (registry.models, lambda: registry.resolve("linear"), lambda: collect(registry)):
        with pytest.raises(StageError, match="there is no registry at"):
            ask()


def test_a_place_with_other_files_becomes_no_registry(directory: Registry, bundle: Bundles, tmp_path: Path) -> None:
    (tmp_path / "registry").mkdir()
    (tmp_path / "registry" / "thesis.txt").write_text("")
    with pytest.raises(StageError, match=r"not empty: it has thesis\.txt"):
        directory.add(bundle())
    assert [path.name for path in (tmp_path / "registry").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(("url", "told"), [("nowhere://x", "nowhere"), ("file::nowhere://x", "nowhere")])
def test_a_place_that_fsspec_does_not_know(url: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        Registry(url)


def blob_of(tmp_path: Path, name: str, original: Path) -> Path:
    import hashlib

    digest = hashlib.sha256((original / name).read_bytes()).hexdigest()
    return tmp_path / "registry" / "blobs" / digest[:2] / digest


@pytest.mark.parametrize("how", ["flipped", "cut", "missing"])
@pytest.mark.parametrize("name", ["model/model.onnx", "manifest.json"])
def test_a_damaged_file_does_not_come_back(
    directory: Registry, bundle: Bundles, tmp_path: Path, name: str, how: str
) -> None:
    original = bundle()
    directory.add(original)
    place = blob_of(tmp_path, name, original)
    content = place.read_bytes()
    place.unlink()
    if how != "missing":
        place.write_bytes(content[:-1] + (bytes([content[-1] ^ 1]) if how == "flipped" else b""))
    with pytest.raises(StageError, match=f"`{name}` is (damaged in|missing from) the registry"):
        retrieve(directory, "linear", "1.0.0", "cpu", tmp_path / "out")
    assert not (tmp_path / "out" / "linear" / "1.0.0" / "cpu").exists()
    directory.add(original, repair=True)
    assert files(retrieve(directory, "linear", "1.0.0", "cpu", tmp_path / "out")) == files(original)


def test_a_damaged_document_is_told(directory: Registry, bundle: Bundles, tmp_path: Path) -> None:
    directory.add(bundle())
    place = tmp_path / "registry" / "models" / "linear" / "bundles" / "1.0.0@cpu.json"
    document = json.loads(place.read_bytes())
    document["fit_to_serve"] = not document["fit_to_serve"]
    place.write_text(json.dumps(document))
    with pytest.raises(StageError, match=r"1\.0\.0@cpu\.json .* its own digest does not match"):
        view(directory, "linear")


def blobs(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "registry" / "blobs").rglob("*") if path.is_file()}


def test_collecting_takes_what_nothing_needs_and_nothing_else(
    directory: Registry, bundle: Bundles, tmp_path: Path
) -> None:
    kept = {version: bundle(version, seed=index) for index, version in enumerate(("1.0.0", "1.1.0", "1.2.0", "1.3.0"))}
    for original in kept.values():
        directory.add(original)
    for version in ("1.0.0", "1.1.0"):
        promote(directory, f"linear@{version}", "production")
    everything = blobs(tmp_path)
    (tmp_path / "registry" / "blobs" / "aa").mkdir(exist_ok=True)
    (tmp_path / "registry" / "blobs" / "aa" / HIDDEN).write_text("half")
    assert collect(directory, keep=1, dry_run=True).versions == ("linear@1.2.0",)
    assert blobs(tmp_path) == everything | {HIDDEN}

    # The first run forgets and marks, the next deletes after the grace period.
    first = collect(directory, keep=1)
    assert (first.versions, first.deleted, first.leftovers) == (("linear@1.2.0",), (), 0)
    assert first.marked
    assert blobs(tmp_path) == everything | {HIDDEN}
    # The version before the one that `production` names stays, so that it can be rolled back to.
    assert directory.versions("linear") == ["1.0.0", "1.1.0", "1.3.0"]
    second = collect(directory, grace=NEVER)
    assert set(second.deleted) == set(first.marked) == everything - blobs(tmp_path)
    assert (second.marked, second.leftovers) == ((), 1)
    assert second.freed_bytes > 0
    for version in ("1.0.0", "1.1.0", "1.3.0"):
        assert files(retrieve(directory, "linear", version, "cpu", tmp_path / "out")) == files(kept[version])
    assert collect(directory, grace=NEVER).deleted == ()
    # What was forgotten can be registered anew.
    assert directory.add(kept["1.2.0"]).new
    assert files(retrieve(directory, "linear", "1.2.0", "cpu", tmp_path / "out")) == files(kept["1.2.0"])


def test_a_registration_beside_a_collection_keeps_its_files(
    directory: Registry, bundle: Bundles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that lie there unneeded are written anew when a registration counts on them, so that their time is new."""
    original = bundle()
    directory.add(original)
    (tmp_path / "registry" / "models" / "linear" / "bundles" / "1.0.0@cpu.json").unlink()
    shutil.rmtree(tmp_path / "registry" / "models" / "linear" / "companions")
    collect(directory)
    monkeypatch.setattr(store_module, "FRESH", NEVER)
    place = blob_of(tmp_path, "model/model.onnx", original)
    before = place.stat().st_ino
    directory.add(original)
    assert place.stat().st_ino != before
    # Needed by now, and left as it is.
    before = place.stat().st_ino
    directory.add(bundle("1.1.0"))
    assert place.stat().st_ino == before


def test_an_alias_whose_version_is_gone(directory: Registry, bundle: Bundles, tmp_path: Path) -> None:
    directory.add(bundle("1.0.0"))
    directory.add(bundle("1.1.0"))
    promote(directory, "linear@1.0.0", "production")
    promote(directory, "linear@1.1.0", "production")
    for version in ("1.0.0", "1.1.0"):
        directory.remove("linear", version)
    directory.add(bundle("1.2.0"))
    with pytest.raises(UsageError, match=r"`production`, which names version 1\.1\.0, and that was removed"):
        directory.resolve("linear@production")
    with pytest.raises(StageError, match=r"was 1\.0\.0 before, which was removed"):
        rollback(directory, "linear", "production")
