"""What a function reads is recorded, and compared before its result is used again."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ortc.build.context import Context
from ortc.build.lock import LOCK_FILE, Ingredients, LockedSpec, check_locked, read_lock, write_lock
from ortc.build.observation import opened_files
from ortc.build.reference_process import Modules
from ortc.common.errors import StageError
from ortc.execution.action_cache import Store
from ortc.execution.files_opened import INSTALLED, Opened, Recorder, latest, located, portable_name
from ortc.execution.remote_cache import RemoteCache


def read(*places: Path) -> Opened:
    with Recorder() as recorder:
        for place in places:
            if place.is_dir():
                list(place.iterdir())
            else:
                place.read_bytes()
    return recorder.opened()


def test_files_are_recorded_with_their_content(tmp_path: Path) -> None:
    file = tmp_path / "w.pt"
    file.write_bytes(b"1")
    opened = read(file)
    assert list(opened.files) == [str(file)]
    assert opened.now(tmp_path) == opened
    file.write_bytes(b"2")
    assert opened.now(Path("/")) != opened
    file.unlink()
    assert opened.now(tmp_path).files == {str(file): None}


def test_a_file_that_was_not_there_may_come(tmp_path: Path) -> None:
    with Recorder() as recorder, pytest.raises(FileNotFoundError):
        (tmp_path / "better.pt").read_bytes()
    opened = recorder.opened()
    assert opened.files == {str(tmp_path / "better.pt"): None}
    (tmp_path / "better.pt").write_bytes(b"1")
    assert opened.now(tmp_path) != opened


def test_a_directory_that_is_searched_may_get_another_file(tmp_path: Path) -> None:
    opened = read(tmp_path)
    assert list(opened.directories) == [str(tmp_path)]
    (tmp_path / "epoch-2.pt").write_bytes(b"1")
    assert opened.now(tmp_path) != opened


def test_a_link_that_is_set_to_another_file_has_changed(tmp_path: Path) -> None:
    for name in ("1", "2"):
        (tmp_path / name).write_text(name)
    link = tmp_path / "best.pt"
    link.symlink_to(tmp_path / "1")
    opened = read(link)
    link.unlink()
    link.symlink_to(tmp_path / "2")
    assert opened.now(tmp_path) != opened


def test_variables_are_recorded_as_digests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEIGHTS_OF_MINE", "secret")
    with Recorder() as recorder:
        assert os.environ["WEIGHTS_OF_MINE"] == os.getenv("WEIGHTS_OF_MINE") == os.environ.get("WEIGHTS_OF_MINE")
        assert os.environ.get("NOT_SET_BY_ANYBODY") is None
    opened = recorder.opened()
    assert {"WEIGHTS_OF_MINE", "NOT_SET_BY_ANYBODY"} <= set(opened.variables)
    assert opened.variables["NOT_SET_BY_ANYBODY"] is None
    assert "secret" not in opened.model_dump_json()
    monkeypatch.setenv("WEIGHTS_OF_MINE", "other")
    assert opened.now(Path("/")) != opened


def test_shared_memory_and_directories_that_only_look_like_ortc_s_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORTC_OF_THE_USER", "1")
    scratch = Path(tempfile.gettempdir())
    places = [scratch / "ortc-weights-of-nobody" / "w.npy", Path("/dev/shm/weights-of-nobody.npy")]  # noqa: S108
    own = scratch / "ortc-worker-a1b2c3d4" / "inputs.npz"
    with Recorder() as recorder:
        for place in (*places, own, Path("/dev/nobody")):
            with pytest.raises(FileNotFoundError):
                place.read_bytes()
        assert os.environ["ORTC_OF_THE_USER"] == "1"
    assert sorted(recorder.opened().files) == sorted(map(str, places))
    assert "ORTC_OF_THE_USER" in recorder.opened().variables


def test_what_the_function_wrote_itself_and_what_is_known_otherwise_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "known").mkdir()
    (tmp_path / "known" / "weights").write_text("1")
    (tmp_path / "elsewhere").write_text("1")
    (tmp_path / "known" / "link").symlink_to(tmp_path / "elsewhere")
    with Recorder(tmp_path / "known") as recorder:
        (tmp_path / "cache").write_text("1")
        (tmp_path / "cache").read_text()
        (tmp_path / "known" / "weights").read_text()
        (tmp_path / "known" / "link").read_text()
        list((tmp_path / "known").iterdir())
        importlib.import_module("colorsys")
    assert recorder.opened() == Opened()


def test_code_that_is_imported_is_recorded_as_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lazily_imported_module.py").write_text("a = 1")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    for _ in range(2):
        with Recorder() as recorder:
            importlib.import_module("lazily_imported_module")
        assert list(recorder.opened().files) == [str(tmp_path / "lazily_imported_module.py")]
        assert recorder.opened().directories == {}
        monkeypatch.delitem(sys.modules, "lazily_imported_module")


def test_who_asks_for_a_version_of_a_package_reads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    with Recorder() as recorder:
        with pytest.raises(importlib.metadata.PackageNotFoundError):
            importlib.metadata.version("package-that-nobody-has")
        assert not list(importlib.metadata.entry_points(group="group-that-nobody-has"))
    assert str(tmp_path) not in recorder.opened().directories


def test_the_lock_that_ortc_writes_changes_no_listing(tmp_path: Path) -> None:
    opened = read(tmp_path)
    (tmp_path / LOCK_FILE).write_text("{}")
    assert opened.now(tmp_path) == opened


def test_safetensors_opens_files_by_itself(tmp_path: Path) -> None:
    import numpy as np
    import safetensors.numpy

    file = tmp_path / "w.safetensors"
    safetensors.numpy.save_file({"a": np.zeros(1, np.float32)}, file)
    original = safetensors.safe_open
    with Recorder() as recorder, safetensors.safe_open(file, framework="numpy") as stream:
        assert list(stream.keys()) == ["a"]
    assert str(file) in recorder.opened().files
    assert safetensors.safe_open is original


def test_what_a_module_imported_meanwhile_is_the_same_in_every_process_and_holds_no_recorder() -> None:
    """The numbers that a module computes with are compared between processes, and reach what it imported."""
    import safetensors.torch

    original = safetensors.torch.safe_open
    kept = []
    for _ in range(2):
        with Recorder() as outer, Recorder() as inner:
            kept.append(safetensors.torch.safe_open)
            with pytest.raises(FileNotFoundError, match="/no/such"):
                kept[-1]("/no/such/file", framework="numpy")
        assert "/no/such/file" in {*outer._files} & {*inner._files}
        assert safetensors.torch.safe_open is original
    assert kept[0] is kept[1]
    assert (kept[0].__module__, kept[0].__qualname__) == (original.__module__, original.__qualname__)
    assert kept[0].__closure__ is None
    with pytest.raises(FileNotFoundError, match="/no/such"):
        kept[0]("/no/such/other", framework="numpy")


def test_an_entry_stands_as_long_as_what_was_read_is_the_same(tmp_path: Path) -> None:
    store, file = Store(tmp_path / "cache"), tmp_path / "labels"
    file.write_text("1")
    asked: dict[str, Any] = {"metric": "a:b"}
    assert latest(store, "metric", asked, tmp_path) == (asked, None)
    store.put("metric", asked, {"value": 1, "opened": read(file).model_dump()})
    inputs, entry = latest(store, "metric", asked, tmp_path)
    assert inputs == asked
    assert entry is not None
    file.write_text("2")
    changed, entry = latest(store, "metric", asked, tmp_path)
    assert changed != asked
    assert entry is None
    store.put("metric", changed, {"value": 2, "opened": read(file).model_dump()})
    again, entry = latest(store, "metric", asked, tmp_path)
    assert again == changed
    assert entry is not None
    assert entry.result["value"] == 2
    file.write_text("1")
    inputs, entry = latest(store, "metric", asked, tmp_path)
    assert (inputs, entry is None) == (asked, False), "as it was at first"


def test_what_one_machine_read_holds_on_another_whose_files_are_the_same(tmp_path: Path) -> None:
    """Two machines with one remote cache, and the project in another directory of each."""
    shared = f"file://{tmp_path / 'shared'}"
    here, there = (Store(tmp_path / name, RemoteCache(shared)) for name in ("here", "there"))
    one, two = (tmp_path / name for name in ("one", "two"))
    for root in (one, two):
        (root / "runs").mkdir(parents=True)
        (root / "runs" / "w.pt").write_text("1")
    asked: dict[str, Any] = {"module": "a"}
    opened = read(one / "runs" / "w.pt").portable(one)
    here.put("entrypoint", asked, {"parts": {"w": "1"}, "opened": opened.model_dump()}, offered=True)
    _, entry = latest(there, "entrypoint", asked, two)
    assert entry is not None
    assert entry.result["parts"] == {"w": "1"}
    (two / "runs" / "w.pt").write_text("2")
    changed, entry = latest(there, "entrypoint", asked, two)
    assert (changed != asked, entry) == (True, None)


def test_portable_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "site" / "package" / "w.pt"
    place.parent.mkdir(parents=True)
    place.write_text("1")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site")])
    root = tmp_path / "project"
    assert portable_name(root / "a" / "b", root) == "a/b"
    assert portable_name(place, root) == f"{INSTALLED}package/w.pt"
    assert located(f"{INSTALLED}package/w.pt", root) == place
    assert located("a/b", root) == root / "a" / "b"


def test_files_that_an_entry_point_read_are_named_alike_on_every_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, outside, site = tmp_path / "project", tmp_path / "elsewhere" / "w.pt", tmp_path / "site"
    monkeypatch.setattr(sys, "path", [str(site)])
    digests = dict(zip("abcdefg", (str(number) * 64 for number in range(7)), strict=True))
    opened = Opened(
        files={
            str(root / "runs" / "w.pt"): digests["a"],
            str(root / "net.py"): digests["b"],
            str(root / "none.pt"): None,
            str(outside): digests["c"],
            str(site / "weights_of_another" / "w.pt"): digests["d"],
            str(site / "torch" / "table.json"): digests["e"],
            str(root / "torch" / "w.pt"): digests["f"],
        }
    )
    found = opened_files(cast(Context, SimpleNamespace(modules=Modules(opened=opened.portable(root)))))
    assert {file.name: file.sha256 for file in found} == {
        "runs/w.pt": digests["a"],
        f"outside/{digests['c'][:12]}/w.pt": digests["c"],
        "installed:weights_of_another/w.pt": digests["d"],
        "torch/w.pt": digests["f"],
    }


# ortc.lock.

TOOLS = {"python": "3.11.7", "torch": "2.13.0+cpu", "numpy": "2.1.0"}


def ingredients(**changes: Any) -> Ingredients:
    return Ingredients(**{"files": {}, "samples_sha256": None, "code_sha256": "0", "tools": TOOLS, **changes})


def test_neither_python_s_patches_nor_how_torch_was_built_matter(tmp_path: Path) -> None:
    check_locked(ingredients(), ingredients(tools={**TOOLS, "python": "3.11.9", "torch": "2.13.0"}), tmp_path)
    for changed in ({"python": "3.12.1"}, {"torch": "2.13.1+cpu"}, {"numpy": "2.1.1"}):
        with pytest.raises(StageError, match="would differ"):
            check_locked(ingredients(), ingredients(tools=TOOLS | changed), tmp_path)


def test_models_and_data_that_changed_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "labels.npz").write_text("2")
    before = ingredients(states={"model": "1"}, data={"labels.npz": "0" * 64})
    with pytest.raises(StageError) as caught:
        check_locked(before, ingredients(states={"model": "2"}), tmp_path)
    assert [detail.partition(":")[0] for detail in caught.value.details] == [
        "file labels.npz, which a function of the spec reads",
        "the model that its entry point builds, such as its weights",
    ]


def test_files_beside_an_entry_point_are_refused_by_name(tmp_path: Path) -> None:
    before = ingredients(beside={"model.py beside `model:build`": "1"})
    stray = {**before.beside, "run.log beside `model:build`": "2"}
    with pytest.raises(StageError) as caught:
        check_locked(before, ingredients(code_sha256="1", beside=stray), tmp_path)
    assert caught.value.details == ("file run.log beside `model:build`: locked None, found 2",)
    # Locks from before such files were named.
    with pytest.raises(StageError) as caught:
        check_locked(ingredients(), ingredients(code_sha256="1", beside=stray), tmp_path)
    assert caught.value.details == ("code of ortc or of the spec's entry points: locked 0, found 1",)


def test_a_version_keeps_its_content(tmp_path: Path) -> None:
    def entry(**changes: Any) -> LockedSpec:
        fields = {"version": "1.0.0", "plan_sha256": "0", "revision": None, "targets": {}}
        return LockedSpec(**{**fields, "ingredients": ingredients(), **changes})

    path = tmp_path / "ortc.lock"
    write_lock(path, "a", entry())
    write_lock(path, "a", entry())
    other = entry(ingredients=ingredients(states={"model": "2"}))
    with pytest.raises(StageError, match=r"has a 1\.0\.0 with other content") as caught:
        write_lock(path, "a", other)
    assert "--replace" in str(caught.value.help)
    assert caught.value.details == ("differs: ingredients.states",)
    assert read_lock(path).specs["a"] == entry()
    write_lock(path, "a", entry(version="1.0.1"))
    write_lock(path, "a", other.model_copy(update={"version": "1.0.1"}), replace=True)
    assert read_lock(path).specs["a"].ingredients.states == {"model": "2"}
