"""TensorRT's engines between starts: kept when answers were right, taken again, never another's or a broken one."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support import bundles
from tests.support.machines import MACHINE, engines, no_home, providers

from ortc.spec import runtimes
from ortc.spec.load import load_profile

NAME = "0123456789abcdef_NVIDIA-L4-sm89"


def start(base: Path, name: str | None = NAME) -> Any:
    """As a first start does: an engine is written where the options say."""
    found = engines.Engines(base, name)
    if not found.kept:
        (found.directory / "graph.engine").write_text("engine")
    return found


def left(base: Path) -> list[str]:
    return sorted(path.name for path in base.iterdir())


def test_a_second_start_takes_what_the_first_has_built(tmp_path: Path) -> None:
    base = tmp_path / "made" / "for it"
    first = start(base)
    assert not first.kept
    assert first.keep()
    assert left(base) == [NAME]
    first.close()
    second = start(base)
    assert (second.kept, second.directory) == (True, base / NAME)
    assert (second.directory / "graph.engine").read_text() == "engine"
    assert not second.keep()
    second.close()
    assert left(base) == [NAME]
    assert base.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("end", ["close", "forget"])
def test_what_was_not_right_is_kept_by_nobody(tmp_path: Path, end: str) -> None:
    found = start(tmp_path)
    assert len(left(tmp_path)) == 1
    if end == "forget":
        del found
    else:
        found.close()
    assert left(tmp_path) == []


def test_of_two_first_starts_one_is_kept_and_both_go_on(tmp_path: Path) -> None:
    one, other = start(tmp_path), start(tmp_path)
    assert one.directory != other.directory
    assert other.keep()
    assert not one.keep()
    assert one.obstacle == ""
    assert (one.directory / "graph.engine").exists()
    one.close()
    assert left(tmp_path) == [NAME]


def test_new_engines_replace_kept_ones_when_they_are_right_and_not_before(tmp_path: Path) -> None:
    start(tmp_path).keep()
    for right in (False, True):
        anew = engines.Engines(tmp_path, NAME, anew=True)
        assert not anew.kept
        (anew.directory / "graph.engine").write_text("another")
        if right:
            assert anew.keep()
        anew.close()
        assert left(tmp_path) == [NAME]
        assert (start(tmp_path).directory / "graph.engine").read_text() == ("another" if right else "engine")


def test_new_engines_that_replace_none_are_kept_too(tmp_path: Path) -> None:
    anew = engines.Engines(tmp_path, NAME, anew=True)
    assert anew.keep()
    assert left(tmp_path) == [NAME]


def test_what_was_left_by_a_killed_start_is_never_taken_and_goes_after_a_day(tmp_path: Path) -> None:
    old, fresh = (tmp_path / f"{engines.UNFINISHED}{name}" for name in ("old", "fresh"))
    for place in (old, fresh):
        place.mkdir()
        (place / "graph.engine").write_text("half an eng")
    day_before = time.time() - engines.ABANDONED_SECONDS - 60
    os.utime(old, (day_before, day_before))
    found = start(tmp_path)
    assert not found.kept
    assert left(tmp_path) == sorted([fresh.name, found.directory.name])


@pytest.mark.parametrize("how", ["others may write", "a link", "a file"])
def test_engines_that_others_may_have_written_are_not_loaded(tmp_path: Path, how: str) -> None:
    start(tmp_path).keep()
    place = tmp_path / NAME
    if how == "others may write":
        place.chmod(0o777)
    else:
        place.rename(tmp_path / "elsewhere")
        place.symlink_to(tmp_path / "elsewhere") if how == "a link" else place.write_text("")
    found = start(tmp_path)
    assert not found.kept
    assert not found.keep()
    assert str(place) in found.obstacle


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory that every user can reach, as a volume is."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to another user")
class TestUsers:
    OTHER, MINE = 65533, 65532

    @pytest.mark.parametrize("how", ["its own", "a link"])
    def test_a_base_of_another_user_is_not_used(self, shared: Path, how: str) -> None:
        base = shared / "engines"
        if how == "a link":
            (shared / "there").mkdir()
            base.symlink_to(shared / "there")
        else:
            base.mkdir()
        os.chown(base, self.OTHER, self.OTHER, follow_symlinks=False)
        with pytest.raises(OSError, match=r"belongs to user 65533, not to this one \(0\) or root"):
            start(base)

    def test_a_base_that_a_group_may_write_is_used(self, shared: Path) -> None:
        """As Kubernetes hands a volume to a pod with fsGroup."""
        base = shared / "engines"
        base.mkdir()
        os.chown(base, 0, self.MINE)
        base.chmod(0o2775)
        os.setegid(self.MINE)
        os.seteuid(self.MINE)
        try:
            assert start(base).keep()
            assert start(base).kept
        finally:
            os.seteuid(0)
            os.setegid(0)

    def test_engines_of_root_that_cannot_be_read_are_not_taken(self, shared: Path) -> None:
        base = shared / "engines"
        start(base).keep()
        base.chmod(0o777)
        os.seteuid(self.MINE)
        try:
            found = start(base)
            assert (found.kept, found.keep()) == (False, False)
            assert "cannot be read" in found.obstacle
            found.close()
        finally:
            os.seteuid(0)
        assert left(base) == [NAME]

    def test_engines_of_root_that_are_of_no_use_stay_and_that_is_said(self, shared: Path) -> None:
        base = shared / "engines"
        start(base).keep()
        (base / NAME).chmod(0o755)
        base.chmod(0o1777)
        os.seteuid(self.MINE)
        try:
            assert start(base).kept
            anew = engines.Engines(base, NAME, anew=True)
            assert (anew.kept, anew.keep()) == (False, False)
            assert f"{NAME} cannot be written" in anew.obstacle
            anew.close()
        finally:
            os.seteuid(0)
        assert left(base) == [NAME]


def test_a_machine_that_cannot_be_told_keeps_nothing(tmp_path: Path) -> None:
    found = start(tmp_path, None)
    assert not found.keep()
    assert "cannot be told" in found.obstacle
    found.close()
    assert left(tmp_path) == []


def test_where_engines_are_kept() -> None:
    options = {"trt_engine_cache_path": "/var/engines", "trt_timing_cache_path": "/var/timings"}
    assert engines.base_of(options, {"ORTC_ENGINE_CACHE": "/mnt/engines"}) == Path("/mnt/engines")
    assert engines.base_of(options, {"ORTC_ENGINE_CACHE": ""}) == Path("/var/engines")
    assert engines.base_of({}, {"XDG_CACHE_HOME": "/home/a/.cache"}) == Path("/home/a/.cache/ortc-engines")
    assert engines.base_of({}, {}).parts[-2:] == (".cache", "ortc-engines")


def test_a_user_without_a_home_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines.Path, "home", no_home)
    with pytest.raises(OSError, match="no home directory"):
        engines.base_of({}, {})
    assert engines.base_of({"trt_engine_cache_path": "/var/engines"}, {}) == Path("/var/engines")


def test_only_what_the_options_switch_on_is_directed() -> None:
    both = {"trt_engine_cache_enable": "True", "trt_timing_cache_enable": "1", "trt_fp16_enable": "True"}
    assert engines.wanted(both)
    changed = engines.directed(both, Path("/e"))
    assert changed == {**both, "trt_engine_cache_path": "/e", "trt_timing_cache_path": "/e"}
    off = engines.directed(changed, None)
    assert off == {**both, "trt_engine_cache_enable": "False", "trt_timing_cache_enable": "False"}
    assert not engines.wanted(off)
    assert "trt_timing_cache_path" not in engines.directed({"trt_engine_cache_enable": "true"}, Path("/e"))


def test_the_profile_keeps_engines_by_options_that_tensorrt_has() -> None:
    """Names and values, those that the loader writes among them, are in the table of the pinned onnxruntime."""
    profile = load_profile("server-gpu-tensorrt")
    (options,) = [p.options for p in profile.execution_providers if p.name == providers.TENSORRT]
    known = runtimes.runtime(profile.runtime.package, profile.runtime.version).provider_options(providers.TENSORRT)
    assert engines.wanted(options)
    for form in (options, engines.directed(options, Path("/e")), engines.directed(options, None)):
        assert form.keys() <= known.keys()
        assert all(known[name].accepts(value) for name, value in form.items())


@pytest.mark.parametrize("change", ["model/model.onnx", "session.json", "README.md"])
@pytest.mark.parametrize("published", [True, False])
def test_a_name_is_that_of_graph_settings_and_machine(tmp_path: Path, change: str, published: bool) -> None:
    def name(root: Path, machine: list[str] = MACHINE) -> str:
        manifest = json.loads((root / "manifest.json").read_bytes())
        if not published:
            manifest["files"] = []
        return str(engines.name_of(root, manifest, machine))

    root = bundles.linear().write(tmp_path / "bundle")
    first = name(root)
    assert first.partition("_")[2] == "NVIDIA-L4-sm89_driver580.65.06_tensorrt101303_onnxruntime1.31.1"
    assert name(root) == first
    assert name(root, [*MACHINE[:2], "tensorrt101400", MACHINE[3]]) != first
    with (root / change).open("ab") as file:
        file.write(b"\n")
    assert (name(bundles.seal(root)) == first) == (change == "README.md")
    assert engines.name_of(root, {}, None) is None


class Library:
    """NVIDIA's libraries as far as a name of engines needs them; `wrong` is the call that fails."""

    def __init__(self, wrong: str = "") -> None:
        self._wrong = wrong

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> int:
            if name == self._wrong:
                return 1
            if name == "cuDeviceGetName":
                arguments[0].value = f"NVIDIA L{4 + arguments[2]}".encode()
            if name == "cuDeviceGetAttribute":
                arguments[0]._obj.value = {75: 8, 76: 9}[arguments[1]]
            if name == "nvmlSystemGetDriverVersion":
                arguments[0].value = b"580.65.06"
            return 101303 if name == "getInferLibVersion" else 0

        return call


def test_a_machine_is_gpu_driver_and_libraries() -> None:
    assert engines.machine("1.31.1", 0, lambda _: Library()) == MACHINE
    assert engines.machine("1.31.1", 1, lambda _: Library())[0] == "NVIDIA L5 sm89"


@pytest.mark.parametrize("wrong", ["cuInit", "cuDeviceGetName", "nvmlInit_v2", "nvmlSystemGetDriverVersion"])
def test_a_machine_that_does_not_tell_is_none(wrong: str) -> None:
    assert engines.machine("1.31.1", 0, lambda _: Library(wrong)) is None


@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="this host has what the test wants missing")
def test_a_machine_without_libraries_is_none() -> None:
    assert engines.machine("1.31.1") is None
