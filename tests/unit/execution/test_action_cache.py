"""The cache: an action is done once, whole or not at all."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ortc.common.digests import sha256_file, templates_digest
from ortc.common.errors import StageError
from ortc.common.resources import cache_root
from ortc.execution.action_cache import Entry, Store
from ortc.execution.cache_users import alone, in_use
from ortc.execution.remote_cache import RemoteCache


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


def fail(_: Path) -> dict[str, Any]:
    raise AssertionError("done again")


def record_of(store: Store, entry: Entry) -> Path:
    return store.root / "actions" / f"{entry.key}.json"


def files(root: Path) -> set[str]:
    """What is kept, without the files that locks leave."""
    found = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    return {name for name in found if not name.endswith(".lock")}


def test_an_action_is_done_once(store: Store) -> None:
    def action(directory: Path) -> dict[str, Any]:
        assert list(directory.iterdir()) == []
        (directory / "model.onnx").write_bytes(b"graph")
        return {"nodes": [1, 2.5, None]}

    first = store.run("export", {"opset": 17}, action)
    assert (first.cached, first.result) == (False, {"nodes": [1, 2.5, None]})
    again = store.run("export", {"opset": 17}, fail)
    assert (again.cached, again.result, again.key) == (True, first.result, first.key)
    assert {name: path.read_bytes() for name, path in again.files.items()} == {"model.onnx": b"graph"}
    assert store.find("export", {"opset": 17}) == again


def test_other_inputs_are_another_action(store: Store) -> None:
    made = {
        store.run(stage, inputs, lambda _: {}).key
        for stage in ("export", "shape matrix")
        for inputs in ({"opset": 17}, {"opset": 18}, {"opset": "17"}, {"opset": 17, "x": None})
    }
    assert len(made) == 8
    assert store.run("export", {"b": 1, "a": 2}, lambda _: {}).key == store.run("export", {"a": 2, "b": 1}, fail).key
    assert store.find("export", {"opset": 99}) is None


def test_several_threads_do_it_once(store: Store) -> None:
    running, done = threading.Semaphore(1), []
    started = threading.Barrier(8)

    def action(directory: Path) -> dict[str, Any]:
        assert running.acquire(blocking=False), "two at once"
        (directory / "file").write_text("x")
        threading.Event().wait(0.05)
        done.append(1)
        running.release()
        return {"count": len(done)}

    def run(_: int) -> Any:
        started.wait()
        return store.run("export", {"x": 1}, action)

    with ThreadPoolExecutor(8) as pool:
        entries = list(pool.map(run, range(8)))
    assert done == [1]
    assert [entry.result for entry in entries] == [{"count": 1}] * 8
    assert sum(not entry.cached for entry in entries) == 1


def test_other_actions_do_not_wait(store: Store) -> None:
    inside = threading.Event()

    def slow(_: Path) -> dict[str, Any]:
        inside.set()
        assert release.wait(10)
        return {}

    release = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(store.run, "export", {"x": 1}, slow)
        assert inside.wait(10)
        assert store.run("export", {"x": 2}, lambda _: {}).result == {}
        release.set()
        waiting.result(10)


def test_a_result_that_is_not_final_is_given_and_not_kept(tmp_path: Path) -> None:
    remote = tmp_path / "remote"
    store = Store(tmp_path / "cache", RemoteCache(f"file://{remote}"))

    def noisy(directory: Path) -> dict[str, Any]:
        (directory / "inputs.npz").write_bytes(b"x")
        return {"noise": True}

    def is_final(result: dict[str, Any]) -> bool:
        return not result["noise"]

    entry = store.run("measure", {"x": 1}, noisy, is_final=is_final)
    assert (entry.result, entry.cached, dict(entry.files)) == ({"noise": True}, False, {})
    assert {name.partition("/")[0] for name in files(store.root)} == {"latest"}
    assert store.records.why_missing("measure", {"x": 1}, "") == "the last measurement was noisy"
    assert store.records.why_missing("measure", {"x": 2}, "") == "never done"
    assert not remote.exists() or files(remote) == set()
    assert store.find("measure", {"x": 1}) is None
    # The next one measures again, and what is final stays, for everybody.
    quiet = store.run("measure", {"x": 1}, lambda _: {"noise": False}, is_final=is_final)
    assert store.run("measure", {"x": 1}, fail, is_final=is_final).result == {"noise": False}
    assert store.records.why_missing("measure", {"x": 2}, "") == "changed: x 1 -> 2"
    other = Store(tmp_path / "other", RemoteCache(f"file://{remote}"))
    assert other.run("measure", {"x": 1}, fail, is_final=is_final).key == quiet.key


def test_an_action_is_done_again_where_that_is_asked_for(tmp_path: Path) -> None:
    remote = f"file://{tmp_path}/remote"
    store = Store(tmp_path / "cache", RemoteCache(remote))
    store.run("measure", {"x": 1}, lambda _: {"p99": 90.0})
    store.run("measure", {"x": 2}, lambda _: {"p99": 1.0})
    again = store.run("measure", {"x": 1}, lambda _: {"p99": 2.0}, again=True)
    assert (again.cached, again.result) == (False, {"p99": 2.0})
    assert store.run("measure", {"x": 1}, fail).result == {"p99": 2.0}
    assert store.run("measure", {"x": 2}, fail).result == {"p99": 1.0}
    # Who shares the cache gets the new one.
    assert Store(tmp_path / "other", RemoteCache(remote)).run("measure", {"x": 1}, fail).result == {"p99": 2.0}
    # Also from a cache that never had it, a bad one is replaced.
    third = Store(tmp_path / "third", RemoteCache(remote))
    assert third.run("measure", {"x": 1}, lambda _: {"p99": 3.0}, again=True).result == {"p99": 3.0}


def test_what_is_measured_again_on_a_busy_machine_replaces_what_was_doubted(tmp_path: Path) -> None:
    store = Store(tmp_path / "cache")
    store.run("measure", {"x": 1}, lambda _: {"p99": 90.0})
    noisy = store.run("measure", {"x": 1}, lambda _: {"p99": 80.0}, is_final=lambda _: False, again=True)
    assert noisy.result == {"p99": 80.0}
    assert store.find("measure", {"x": 1}) is None


@pytest.mark.parametrize("error", [StageError("no"), KeyboardInterrupt()])
def test_a_failure_leaves_nothing(store: Store, error: BaseException) -> None:
    def broken(directory: Path) -> dict[str, Any]:
        (directory / "half").write_text("x")
        raise error

    with pytest.raises(type(error)):
        store.run("export", {"x": 1}, broken)
    assert files(store.root) == set()
    assert store.run("export", {"x": 1}, lambda _: {"ok": True}).result == {"ok": True}


def test_a_result_that_is_no_json_leaves_nothing(store: Store) -> None:
    with pytest.raises(TypeError):
        store.run("export", {"x": 1}, lambda _: {"path": Path()})
    assert files(store.root) == set()


@pytest.mark.parametrize("content", [b"", b'{"half', b"\x00" * 20, b"\xff\xfe", b"[]", b"{}", b"17", None])
def test_a_torn_record_is_made_again(store: Store, content: bytes | None) -> None:
    entry = store.run("export", {"x": 1}, lambda _: {"old": 1})
    record = record_of(store, entry)
    if content is None:
        record.unlink()
    else:
        record.write_bytes(content)
    assert store.find("export", {"x": 1}) is None
    again = store.run("export", {"x": 1}, lambda _: {"new": 1})
    assert (again.cached, again.result) == (False, {"new": 1})
    assert store.run("export", {"x": 1}, fail).result == {"new": 1}


def test_a_record_that_was_changed_is_made_again(store: Store) -> None:
    record = record_of(store, store.run("verify", {"x": 1}, lambda _: {"max_abs": 0.5}))
    record.write_text(record.read_text("utf-8").replace("0.5", "0.1"), "utf-8")
    assert store.find("verify", {"x": 1}) is None


def test_a_record_of_another_action_is_not_read(store: Store) -> None:
    other = store.run("verify", {"x": 1}, lambda _: {"max_abs": 0.0})
    wanted = store.run("verify", {"x": 2}, lambda _: {"max_abs": 9.0})
    record_of(store, wanted).write_bytes(record_of(store, other).read_bytes())
    assert store.find("verify", {"x": 2}) is None


def graph(directory: Path) -> dict[str, Any]:
    (directory / "model.onnx").write_bytes(b"graph")
    (directory / "data").mkdir()
    (directory / "data" / "weights").write_bytes(b"graph")
    (directory / "data" / "weights").chmod(0o755)
    return {}


@pytest.mark.parametrize("content", [b"", b"grap", b"graph and more", None])
def test_a_blob_of_another_size_is_made_again(store: Store, content: bytes | None) -> None:
    path = store.run("export", {"x": 1}, graph).files["model.onnx"]
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert store.find("export", {"x": 1}) is None
    again = store.run("export", {"x": 1}, graph)
    assert not again.cached
    assert again.files["model.onnx"].read_bytes() == b"graph"


def test_a_damaged_blob_is_never_used(store: Store, tmp_path: Path) -> None:
    path = store.run("export", {"x": 1}, graph).files["model.onnx"]
    path.chmod(0o644)
    path.write_bytes(b"GRAPH")
    entry = store.find("export", {"x": 1})
    assert entry is not None
    with pytest.raises(StageError, match="the cache was damaged") as caught:
        store.check_out(entry, tmp_path)
    assert "build again" in str(caught.value.help)
    assert list(tmp_path.iterdir()) == [store.root]
    # The next build does it again.
    assert not store.run("export", {"x": 1}, graph).cached
    assert Store(store.root).check_out(entry, tmp_path / "out").is_dir()


def test_files_are_checked_out_as_they_were(store: Store, tmp_path: Path) -> None:
    entry = store.run("export", {"x": 1}, graph)
    out = store.check_out(entry, tmp_path / "out")
    assert {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()} == {
        "model.onnx": b"graph",
        "data/weights": b"graph",
    }
    assert (out / "data" / "weights").stat().st_mode & 0o777 == 0o755
    # onnx refuses external data with several links, and what a stage does to its copy is its own affair.
    assert (out / "model.onnx").stat().st_nlink == 1
    (out / "model.onnx").write_bytes(b"changed")
    assert entry.files["model.onnx"].read_bytes() == b"graph"


def test_equal_files_are_kept_once(store: Store) -> None:
    first, second = (store.run("export", {"x": x}, graph) for x in (1, 2))
    assert len({*first.files.values(), *second.files.values()}) == 1
    assert len([name for name in files(store.root) if name.startswith("blobs/")]) == 1


def test_what_a_killed_action_left_is_not_seen_by_the_next(store: Store) -> None:
    key = store.run("export", {"x": 1}, lambda _: {}).key
    (store.root / "actions" / f"{key}.json").unlink()
    (store.root / "unfinished" / key / "deep").mkdir(parents=True)

    def action(directory: Path) -> dict[str, Any]:
        assert list(directory.iterdir()) == []
        return {}

    store.run("export", {"x": 1}, action)
    assert not (store.root / "unfinished" / key).exists()


def test_put(store: Store) -> None:
    assert store.put("bundle", {"x": 1}, {"sums": "abc"}).result == {"sums": "abc"}
    found = store.find("bundle", {"x": 1})
    assert found is not None
    assert found.result == {"sums": "abc"}


def test_why_something_has_to_be_done(store: Store) -> None:
    before = {"opset": 17, "model": {"files": {"a": "0" * 64}, "id": "x"}, "outputs": ["a"]}
    assert store.records.why_missing("export", before, "bert") == "never done"
    store.run("export", before, lambda _: {}, "bert")
    assert store.records.why_missing("export", {**before, "opset": 18}, "bert") == "changed: opset 17 -> 18"
    changed = {**before, "model": {"files": {"a": "1" * 64}, "id": "y"}, "outputs": ["b"]}
    assert store.records.why_missing("export", changed, "bert") == "changed: model.files.a, model.id x -> y, outputs"
    assert store.records.why_missing("export", {}, "bert") == "changed: model, opset 17 -> None, outputs"
    many = {**before, "a": 1, "b": 2, "c": 3, "d": 4}
    assert store.records.why_missing("export", many, "bert").endswith(", …")
    assert store.records.why_missing("export", before, "other") == "never done"
    assert store.records.why_missing("export", before, "bert") == "was pruned"


def test_blobs_are_kept_by_digest(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "weights"
    source.write_bytes(b"abc")
    sha256 = sha256_file(source)
    assert sha256 == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    kept = store.blobs.add(source, sha256)
    assert kept == store.blobs.place(sha256)
    assert kept.read_bytes() == b"abc"
    source.unlink()
    # What is kept is not copied again.
    assert store.blobs.add(source, sha256) == kept
    assert files(store.root) == {f"blobs/ba/{sha256}"}


def test_a_copy_that_fails_leaves_no_blob(store: Store, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        store.blobs.add(tmp_path / "missing", "a" * 64)
    assert files(store.root) == set()


def test_builds_share_the_cache_and_pruning_has_it_alone(store: Store) -> None:
    with (
        in_use(store.root),
        in_use(store.root),
        pytest.raises(StageError, match="a build is using the cache"),
        alone(store.root),
    ):
        pass
    with alone(store.root):
        pass


def test_place_of_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ORTC_CACHE_DIR", str(tmp_path))
    assert cache_root() == tmp_path
    monkeypatch.delenv("ORTC_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_root() == tmp_path / "ortc"


def test_digests_of_what_bundles_carry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runtime").mkdir()
    (tmp_path / "Dockerfile.j2").write_text("1")
    monkeypatch.setattr("ortc.common.resources.templates_dir", lambda: tmp_path)
    before = templates_digest()
    (tmp_path / "Dockerfile.j2").write_text("2")
    after = templates_digest()
    assert after != before
    (tmp_path / "runtime" / "__pycache__").mkdir()
    (tmp_path / "runtime" / "__pycache__" / "loader.pyc").write_text("x")
    assert templates_digest() == after


def test_entries_can_be_read_by_people(store: Store) -> None:
    entry = store.run("shape matrix", {"x": 1}, lambda _: {"a": 1}, "bert")
    document = json.loads(record_of(store, entry).read_text("utf-8"))
    assert (document["stage"], document["subject"], document["inputs"]) == ("shape matrix", "bert", {"x": 1})
    assert document["result"] == {"a": 1}
