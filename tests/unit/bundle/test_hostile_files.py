"""Bundles, registries, caches and mirrors that somebody else wrote."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tests.support.bundles import seal, write_json
from tests.support.whole_bundles import HOST, add_measurement, manifest_of, whole_bundle

from ortc.bundle.delivery.manifests import emit
from ortc.bundle.delivery.pack import pack
from ortc.bundle.integrity import verified
from ortc.bundle.manifest import Manifest
from ortc.bundle.publish import seal as publish_seal
from ortc.bundle.render import template_environment
from ortc.bundle.session_file import SessionFile
from ortc.common.errors import OrtcError, StageError, UsageError
from ortc.common.redaction import find_secret, mask_secrets
from ortc.execution.action_cache import Store
from ortc.execution.action_record import read_record
from ortc.execution.host import Host
from ortc.frontend.mirrors import download
from ortc.registry.aliases import promote
from ortc.registry.documents import AliasEvent, BundleRecord, CompanionRecord
from ortc.registry.retrieval import retrieve
from ortc.registry.store import Registry

PRIVATE = "hunter2-hunter2"


# --- caches ---


def test_a_cache_that_everybody_writes_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "cache"
    (place / "environments").mkdir(parents=True)
    Store(place)
    for open_to_all in (place, place / "environments"):
        open_to_all.chmod(0o777)
        with pytest.raises(StageError, match="everybody may write to"):
            Store(place)
        open_to_all.chmod(0o755)
    place.parent.chmod(0o777)
    with pytest.raises(StageError, match="everybody may replace what is in"):
        Store(place)
    place.parent.chmod(0o1777)
    Store(place)
    Store(tmp_path / "not" / "there")


@pytest.mark.parametrize("inner", ["", "environments", "blobs"])
def test_a_cache_of_another_user_is_refused(tmp_path: Path, inner: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "cache"
    (place / inner).mkdir(parents=True)
    stat = Path.stat

    def foreign(path: Path, **options: bool) -> os.stat_result:
        found = stat(path, **options)
        return os.stat_result((*found[:4], 4321, *found[5:])) if path == place / inner else found

    monkeypatch.setattr(Path, "stat", foreign)
    with pytest.raises(StageError, match="belongs to user 4321"):
        Store(place)


# --- bundles ---


@pytest.mark.parametrize(
    "name", ["measurements", "attestations", "measurements/more", "attestations/a.sig", "notes", "model/x"]
)
def test_links_in_bundles_are_published_by_nobody(tmp_path: Path, name: str) -> None:
    bundle = whole_bundle(tmp_path / "bundle")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.json").write_text(PRIVATE)
    if name in ("measurements", "attestations"):
        (bundle / name).rename(outside / name)
        (bundle / name).symlink_to(outside / name)
    else:
        (bundle / name).symlink_to(outside)
    for use in (
        lambda: pack(bundle, tmp_path / "packed", ["tar"]),
        lambda: Registry(str(tmp_path / "registry")).add(bundle),
        lambda: verified(bundle),
        lambda: emit(bundle, ["k8s"]),
    ):
        with pytest.raises(StageError, match="is no plain file"):
            use()
    assert not list(tmp_path.glob("packed/*"))


def rewritten(bundle: Path, **changes: Any) -> Path:
    write_json(bundle / "manifest.json", manifest_of(bundle) | changes)
    return seal(bundle)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "../../../etc/x"},
        {"name": "x\nkind: Secret"},
        {"version": "1.0\n---\napiVersion: v1"},
        {"target": "a/../.."},
        {"platforms": ["linux/amd64\nevil: true"]},
        {"unfit_reason": "x", "platforms": ["\x1b[2J"]},
        {"inputs": [{"name": "x\n```", "dtype": "float32", "shape": [1], "range": None}]},
        {"golden": [{"name": "a", "inputs": "../x.npz", "outputs": "/etc/passwd", "tolerance": {}, "mask": None}]},
        {"runtime": {"package": "a;b\n", "version": "1", "minimum_version": "1", "python": ["3.12"]}},
    ],
)
def test_manifests_with_other_texts_than_names_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    bundle = rewritten(whole_bundle(tmp_path / "a" / "b" / "c" / "d" / "bundle"), **changes)
    before = sorted(tmp_path.rglob("*"))
    for use in (lambda: emit(bundle, ["triton", "k8s"]), lambda: pack(bundle, tmp_path / "packed", ["tar", "oci"])):
        with pytest.raises(OrtcError) as caught:
            use()
        assert caught.value.exit_code > 1
    assert sorted(path for path in tmp_path.rglob("*") if "packed" not in path.parts) == before


def test_texts_of_machines_are_one_line(tmp_path: Path) -> None:
    document = HOST.model_dump() | {"cpu": "A\n---\nkind: Secret\x1b[2J" + "x" * 10_000}
    host = Host.model_validate(document)
    assert host.cpu.startswith("A\\n---\\nkind: Secret\\x1b[2J")
    assert host.cpu.isprintable()
    assert len(host.cpu) == 4096
    bundle = whole_bundle(tmp_path / "bundle")
    measured = add_measurement(bundle)
    stored = json.loads(measured.read_bytes())
    stored["host"] = document | {"isa": ["avx2"]}
    stored["race"]["host"] = stored["host"]
    write_json(measured, stored)
    (written,) = emit(bundle, ["k8s"])
    assert "\nkind: Secret" not in written.read_text("utf-8")
    with pytest.raises(ValidationError):
        Host.model_validate(HOST.model_dump() | {"isa": ("a\nb",)})


def test_values_begin_no_instruction_and_no_markup() -> None:
    environment = template_environment()
    text = environment.from_string('LABEL d="{{ a | dockerfile }}"\n# {{ a }}\n').render(a='x"\nRUN id\n$HOME`id`')
    assert text == 'LABEL d="x\\"\\\\nRUN id\\\\n\\$HOME\\`id\\`"\n# x"\\nRUN id\\n$HOME`id`\n'
    shown = environment.from_string("{{ a | markdown }}").render(a="[x](javascript:y) <script> `|`\n# h")
    assert not set("[]<>|`\n") & set(shown)


def test_session_files_hold_lines_alone() -> None:
    base = {
        "session_options": {"graph_optimization_level": "all"},
        "threads": {"intra_op": 1, "inter_op": 1},
        "concurrency": "one",
        "config_entries": {},
        "providers": [{"name": "CPUExecutionProvider", "options": {}}],
        "environment": {},
    }
    SessionFile.model_validate_json(json.dumps(base))
    for changes in (
        {"environment": {"A": 'x"\nRUN id'}},
        {"environment": {"A\nB": "x"}},
        {"config_entries": {"a": "b\0"}},
        {"providers": [{"name": "x\n", "options": {}}]},
        {"session_options": {"graph_optimization_level": "\x1b"}},
    ):
        with pytest.raises(ValidationError):
            SessionFile.model_validate_json(json.dumps(base | changes))


def test_emit_empties_no_directory_that_it_did_not_make(tmp_path: Path) -> None:
    bundle = whole_bundle(tmp_path / "bundle")
    mine = tmp_path / "mine"
    mine.mkdir()
    emit(bundle, ["k8s", "triton"], output=mine)
    emit(bundle, ["k8s", "kserve", "triton"], output=mine)
    for name in ("notes.txt", "triton/linear/notes.txt"):
        (mine / name).write_text("mine")
        with pytest.raises(UsageError, match="was not written by `ortc emit`"):
            emit(bundle, ["k8s"], output=mine)
        assert (mine / name).read_text() == "mine"
        (mine / name).unlink()
    for place in (bundle, tmp_path):
        with pytest.raises(UsageError, match="was not written by `ortc emit`"):
            emit(bundle, ["k8s"], output=place)
    verified(bundle)
    (tmp_path / "link").symlink_to(mine)
    with pytest.raises(UsageError, match="was not written by `ortc emit`"):
        emit(bundle, ["k8s"], output=tmp_path / "link")


@pytest.mark.parametrize("name", ["a\nb.json", "\x1b[2J.json", "\udcff.json", "a\u202eb.json"])
def test_odd_names_in_bundles_are_errors_of_the_user(tmp_path: Path, name: str) -> None:
    bundle = whole_bundle(tmp_path / "bundle")
    (bundle / "measurements" / name).write_text("{}")
    for use in (
        lambda: pack(bundle, tmp_path / "packed", ["tar", "oci"]),
        lambda: Registry(str(tmp_path / "registry")).add(bundle),
    ):
        with pytest.raises(StageError, match="is not one line of printable characters"):
            use()


def test_published_files_follow_the_umask(tmp_path: Path, registry: Registry) -> None:
    before = os.umask(0o077)
    try:
        bundle = tmp_path / "mine"
        (bundle / "model").mkdir(parents=True)
        (bundle / "model" / "x").touch()
        publish_seal(bundle, Manifest.model_validate_json((tmp_path / "1.0.0" / "manifest.json").read_bytes()))
        place = retrieve(registry, "linear", "1.0.0", "cpu", tmp_path / "out")
        emit(place, ["k8s"])
    finally:
        os.umask(before)
    written = [bundle, *bundle.rglob("*"), *place.rglob("*"), place.with_name("cpu.deploy")]
    assert not [path for path in written if path.stat().st_mode & 0o077]


# --- registries ---


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """A registry in a directory with versions 1.0.0 and 2.0.0."""
    found = Registry(str(tmp_path / "registry"))
    for version in ("1.0.0", "2.0.0"):
        found.add(whole_bundle(tmp_path / version, version=version, seed=int(version[0])))
    return found


def edit(path: Path, kind: type[Any], **changes: Any) -> bytes:
    content: bytes = kind.read(path.read_bytes()).model_copy(update=changes).content()
    return content


@pytest.mark.parametrize("relabelled", [False, True])
def test_an_old_version_is_not_served_as_a_new_one(registry: Registry, tmp_path: Path, relabelled: bool) -> None:
    bundles = tmp_path / "registry" / "models" / "linear" / "bundles"
    old, new = bundles / "1.0.0@cpu.json", bundles / "2.0.0@cpu.json"
    new.write_bytes(edit(old, BundleRecord, version="2.0.0") if relabelled else old.read_bytes())
    if relabelled:
        for path in (tmp_path / "registry" / "models" / "linear" / "companions" / "2.0.0@cpu").iterdir():
            path.unlink()
    with pytest.raises(StageError, match=r"its version is 1\.0\.0, expected 2\.0\.0|is of linear 1\.0\.0"):
        retrieve(registry, "linear", "2.0.0", "cpu", tmp_path / "out")
    assert not (tmp_path / "out" / "linear" / "2.0.0" / "cpu").exists()
    retrieve(registry, "linear", "1.0.0", "cpu", tmp_path / "out")


@pytest.mark.parametrize("changes", [{"version": "1.0.0"}, {"path": "model/model.onnx"}, {"path": "runtime/loader.py"}])
def test_companions_join_their_own_bundle_only(registry: Registry, tmp_path: Path, changes: dict[str, str]) -> None:
    place = next((tmp_path / "registry" / "models" / "linear" / "companions" / "2.0.0@cpu").iterdir())
    record = CompanionRecord.read(place.read_bytes())
    if "path" in changes:
        changes = {"file": record.file.model_copy(update=changes)}  # type: ignore[dict-item]
    place.write_bytes(edit(place, CompanionRecord, **changes))
    with pytest.raises(StageError, match=r"somebody put it there|which is no place for what joins a bundle"):
        retrieve(registry, "linear", "2.0.0", "cpu", tmp_path / "out")


def test_what_is_promoted_is_what_the_manifest_says(registry: Registry, tmp_path: Path) -> None:
    bundles = tmp_path / "registry" / "models" / "linear" / "bundles"
    old, new = bundles / "1.0.0@cpu.json", bundles / "2.0.0@cpu.json"
    kept = new.read_bytes()
    new.write_bytes(edit(old, BundleRecord, version="2.0.0"))
    with pytest.raises(StageError, match=r"its version is 1\.0\.0, expected 2\.0\.0"):
        promote(registry, "linear@2.0.0", "production")
    new.write_bytes(kept)
    registry.add(whole_bundle(tmp_path / "unfit", version="3.0.0", fit_to_serve=False, unfit_reason="random weights"))
    unfit = bundles / "3.0.0@cpu.json"
    unfit.write_bytes(edit(unfit, BundleRecord, fit_to_serve=True))
    with pytest.raises(StageError, match="does not repeat its manifest: `fit_to_serve`"):
        promote(registry, "linear@3.0.0", "production")
    assert registry.alias_names("linear") == []


def test_events_of_another_alias_are_refused(registry: Registry, tmp_path: Path) -> None:
    promote(registry, "linear@2.0.0", "production")
    event = next((tmp_path / "registry" / "models" / "linear" / "aliases" / "production").iterdir())
    event.write_bytes(edit(event, AliasEvent, alias="staging"))
    with pytest.raises(StageError, match="is of linear@staging"):
        registry.aliases("linear")


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"a": ' * 100_000, b'{"sha256": "0", "a": ' + b"[" * 5000])
def test_documents_that_are_nested_deeply_are_damaged_ones(content: bytes) -> None:
    for read in (BundleRecord.read, AliasEvent.read, CompanionRecord.read, lambda found: read_record(found, "0")):
        with pytest.raises(ValueError, match=r"nested too deeply|Expecting"):
            read(content)


# --- mirrors and credentials ---


@pytest.mark.parametrize(
    "url",
    [
        "ssh://host/x",
        "sftp://host/x",
        "git:///repo",
        "github://a:b@/x",
        "reference://x",
        "simplecache::http://x/y",
        "zip://x::file:///etc/y.zip",
        "memory://x",
        "local:///etc/passwd",
        "/etc/passwd",
        "data:,x",
        "ftp://x/y",
        "smb://x/y",
    ],
)
def test_mirrors_of_other_protocols_are_not_asked(url: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a mirror is a URL of https, http, s3"):
        download(url, tmp_path / "file")
    assert not (tmp_path / "file").exists()


def test_a_mirror_gives_no_more_than_a_file_of_its_kind_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ortc.frontend.mirrors.MOST_OTHER", 3 * 2**20)
    for name, size in (("config.json", 4 * 2**20), ("ok.json", 2**20), ("model.safetensors", 4 * 2**20)):
        (tmp_path / name).write_bytes(b"0" * size)
    with pytest.raises(ValueError, match="it is larger than 3"):
        download(f"file://{tmp_path}/config.json", tmp_path / "a")
    download(f"file://{tmp_path}/ok.json", tmp_path / "b")
    download(f"file://{tmp_path}/model.safetensors", tmp_path / "c")


@pytest.mark.parametrize(
    "make",
    [
        lambda n: "eyJ" + "-eyJ" * n,
        lambda n: "eyJaaaaaaaaaaaa." * n,
        lambda n: "://" + "a:" * n,
        lambda n: "a://b:c" * n,
        lambda n: "-----BEGIN " * n,
        lambda n: "sk-" * n,
        lambda n: "xoxb-" * n,
        lambda n: "?sig=" * n,
    ],
)
def test_looking_for_credentials_takes_linear_time(make: Callable[[int], str]) -> None:
    text = make(100_000)
    begin = time.process_time()
    find_secret(text)
    mask_secrets(text)
    assert time.process_time() - begin < 5


def test_web_tokens_are_found_as_before() -> None:
    web = "eyJhbGciOiJIUzI1.eyJzdWIiOiIxMjM0.SflKxwRJSMeKKF2QT4"
    for text in (web, f"Bearer {web}", f"x-{web}", f'"{web}"', f"a.b.{web}", f"token={web}&x=y"):
        assert find_secret(text) == "a JSON web token", text
        assert "SflK" not in mask_secrets(text)
    for text in ("eyJ.eyJ.x", "a.b.c", "eyJhbGciOiJIUzI1", "heyJhbGciOi.short.x"):
        assert find_secret(text) is None


def test_manifest_round_trip(tmp_path: Path) -> None:
    bundle = whole_bundle(tmp_path / "bundle")
    text = (bundle / "manifest.json").read_bytes()
    assert Manifest.model_validate_json(text).name == "linear"
