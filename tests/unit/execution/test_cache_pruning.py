"""Listing and dropping what the cache holds."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from ortc.common.digests import sha256_file
from ortc.common.errors import StageError
from ortc.execution.action_cache import Entry, Store
from ortc.execution.cache_pruning import LEFT_BEHIND, entries, prune
from ortc.execution.cache_users import in_use

NOW = time.time()
OLD = NOW - 1000


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


def run(store: Store, x: int, *contents: bytes, used: float = NOW) -> Entry:
    """An action that wrote files, last used at a time."""

    def action(directory: Path) -> dict[str, Any]:
        for index, content in enumerate(contents):
            (directory / str(index)).write_bytes(content)
        return {}

    entry = store.run("export", {"x": x}, action, f"subject {x}")
    os.utime(record(store, entry), (used, used))
    for path in entry.files.values():
        os.utime(path, (used, used))
    return entry


def record(store: Store, entry: Entry) -> Path:
    return store.root / "actions" / f"{entry.key}.json"


def source(store: Store, tmp_path: Path, content: bytes, used: float) -> Path:
    (tmp_path / "source").write_bytes(content)
    path = store.blobs.add(tmp_path / "source", sha256_file(tmp_path / "source"))
    os.utime(path, (used, OLD))
    return path


def test_the_list(store: Store, tmp_path: Path) -> None:
    one, two = run(store, 1, b"shared", b"one"), run(store, 2, b"shared", used=OLD)
    weights = source(store, tmp_path, b"weights", OLD)
    found = {(entry.kind, entry.key): entry for entry in entries(store.root)}
    assert set(found) == {
        ("action export", one.key),
        ("action export", two.key),
        ("source file", weights.name),
    }
    assert found["action export", one.key].subject == "subject 1"
    assert found["action export", two.key].used == OLD
    assert found["source file", weights.name].bytes == len(b"weights")
    # Every byte once: what two actions share, too.
    kept = sum(path.stat().st_size for path in store.root.rglob("*") if path.is_file() and "actions" in path.parts)
    assert sum(entry.bytes for entry in found.values()) == kept + len(b"shared" + b"one" + b"weights")


def test_an_empty_cache(store: Store) -> None:
    assert list(entries(store.root)) == []
    assert prune(store, before=NOW) == []


def test_old_actions_go_with_their_files(store: Store) -> None:
    old, new = run(store, 1, b"shared", b"old", used=OLD), run(store, 2, b"shared", b"new")
    assert [entry.key for entry in prune(store, before=OLD + 1)] == [old.key]
    assert not record(store, old).exists()
    assert not old.files["1"].exists()
    found = store.find("export", {"x": 2})
    assert found is not None
    assert {path.read_bytes() for path in new.files.values()} == {b"shared", b"new"}
    # What was dropped is simply done again.
    assert not store.run("export", {"x": 1}, lambda _: {}).cached


def test_use_keeps(store: Store) -> None:
    run(store, 1, b"content", used=OLD)
    assert store.find("export", {"x": 1}) is not None
    assert prune(store, before=OLD + 1) == []


def test_source_files_go_by_their_last_use(store: Store, tmp_path: Path) -> None:
    used, unused = source(store, tmp_path, b"used", NOW), source(store, tmp_path, b"unused", OLD)
    assert [entry.path for entry in prune(store, before=OLD + 1)] == [unused]
    assert used.exists()
    assert not unused.exists()


def test_everything(store: Store, tmp_path: Path) -> None:
    run(store, 1, b"content")
    source(store, tmp_path, b"weights", NOW)
    environment = store.root / "environments" / "abc"
    environment.mkdir(parents=True)
    (environment / ".complete").touch()
    assert len(prune(store, before=time.time() + 1)) == 3
    left = [path for path in store.root.rglob("*") if path.is_file() and "latest" not in path.parts]
    assert [path.name for path in left] == ["users.lock"]
    assert not environment.exists()


def test_a_dry_run_drops_nothing(store: Store) -> None:
    entry = run(store, 1, b"content", used=OLD)
    before = sorted(store.root.rglob("*"))
    assert [gone.key for gone in prune(store, before=NOW, dry_run=True)] == [entry.key]
    assert sorted(store.root.rglob("*")) == before


def test_what_was_left_behind_always_goes(store: Store) -> None:
    """By kills, and by the version of ortc that kept a directory an action: never an error, never used."""
    kept = run(store, 1, b"content")
    root = store.root
    old = root / "actions" / "export" / ("0" * 64)
    old.mkdir(parents=True)
    (old / "result.json").write_text("{}")
    (old / "model.onnx").write_bytes(b"graph")
    (root / "actions" / "export" / f"{'0' * 64}.lock").touch()
    (root / "actions" / f"{'1' * 64}.json").write_text("torn")
    (root / "actions" / ".abc-tmp").touch()
    (root / "blobs" / "aa").mkdir()
    (root / "blobs" / "aa" / ".tmp").touch()
    (root / "unfinished" / "2").mkdir()
    (root / "environments" / "half").mkdir(parents=True)
    gone = prune(store, before=0.0)
    assert {entry.kind for entry in gone} == {LEFT_BEHIND}
    assert sum(entry.bytes for entry in gone) == len(b"{}" + b"graph" + b"torn")
    left = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and "latest" not in path.parts}
    assert left == {"users.lock", f"actions/{kept.key}.json", *(str(f.relative_to(root)) for f in kept.files.values())}
    assert store.find("export", {"x": 1}) is not None


def test_not_while_a_build_runs(store: Store) -> None:
    run(store, 1, used=OLD)
    with in_use(store.root), pytest.raises(StageError, match="a build is using the cache"):
        prune(store, before=NOW)
    assert store.find("export", {"x": 1}) is not None
