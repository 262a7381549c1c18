"""A bundle appears whole or not at all, and the one before stays until then."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from tests.support.bundles import runtime_module
from tests.support.plans import manifest

from ortc.bundle import publish
from ortc.bundle.manifest import PROVENANCE, STAMP, Manifest
from ortc.bundle.publish import Staging, is_intact, seal, stamp
from ortc.common.digests import sha256_file
from ortc.common.errors import StageError

loader: Any = runtime_module("loader")
files_module = runtime_module("loading.files")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "dist" / "bert" / "1.0.0" / "cpu"


@pytest.fixture(params=["exchange", "renames"])
def swap(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of taking a place: in one step, and on file systems that have no such step."""
    if request.param == "renames":
        monkeypatch.setattr(publish, "_exchange", lambda *_: False)
    return str(request.param)


def write(place: Path, content: str) -> None:
    with Staging(place) as staging:
        (staging.directory / "model").mkdir()
        (staging.directory / "model" / "model.onnx").write_text(content)
        staging.commit()


def fail(place: Path, error: BaseException) -> None:
    with Staging(place) as staging:
        (staging.directory / "half").touch()
        raise error


def read(place: Path) -> str:
    return (place / "model" / "model.onnx").read_text()


def beside(place: Path) -> set[str]:
    return {path.name for path in place.parent.iterdir()} - {place.name, f".{place.name}.lock"}


def test_a_new_bundle(place: Path) -> None:
    write(place, "new")
    assert read(place) == "new"
    assert beside(place) == set()


@pytest.mark.usefixtures("swap")
def test_a_new_bundle_replaces_all_of_the_old(place: Path) -> None:
    write(place, "old")
    (place / "leftover").touch()
    write(place, "new")
    assert read(place) == "new"
    assert not (place / "leftover").exists()
    assert beside(place) == set()


def test_the_exchange_is_one_step(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(place, "old")
    monkeypatch.setattr(Path, "rename", lambda *_: pytest.fail("a rename leaves a moment without a bundle"))
    write(place, "new")
    assert read(place) == "new"


def test_nothing_happens_before_the_commit(place: Path) -> None:
    write(place, "old")
    with Staging(place) as staging:
        (staging.directory / "half").touch()
        assert staging.directory.parent == place.parent
        assert read(place) == "old"
    assert read(place) == "old"
    assert beside(place) == set()


@pytest.mark.parametrize("error", [StageError("no"), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_bundle(place: Path, error: BaseException) -> None:
    write(place, "old")
    with pytest.raises(type(error)):
        fail(place, error)
    assert read(place) == "old"
    assert beside(place) == set()
    write(place, "new")


def test_a_failure_leaves_nothing_where_nothing_was(place: Path) -> None:
    with pytest.raises(StageError), Staging(place):
        raise StageError("no")
    assert not place.exists()
    assert beside(place) == set()


def test_a_failed_second_rename_brings_the_old_bundle_back(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(place, "old")
    monkeypatch.setattr(publish, "_exchange", lambda *_: False)
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if ".new-" in self.name:
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(StageError, match=r"cannot write the bundle to .*/cpu: Input/output error"):
        write(place, "new")
    assert read(place) == "old"
    assert beside(place) == set()


def test_leftovers_of_a_kill_are_swept(place: Path) -> None:
    write(place, "old")
    (place.parent / ".cpu.new-dead" / "model").mkdir(parents=True)
    (place.parent / ".cpu.old-dead" / "model").mkdir(parents=True)
    (place.parent / ".edge.new-alive").mkdir()
    with Staging(place):
        assert read(place) == "old"
    assert beside(place) == {".edge.new-alive"}


def test_a_kill_between_the_renames_is_mended(place: Path) -> None:
    write(place, "old")
    place.rename(place.parent / ".cpu.old-dead")
    with pytest.raises(StageError), Staging(place):
        raise StageError("this build fails too")
    assert read(place) == "old"
    assert beside(place) == set()


def test_builds_of_one_place_wait_for_each_other(place: Path) -> None:
    with Staging(place):
        other = Staging(place)
        other._lock.timeout = 0
        with pytest.raises(StageError, match="could not be acquired"), other:
            pass
        with Staging(place.with_name("edge")):
            pass


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StageError, match="cannot write the bundle to") as caught, Staging(tmp_path / "file" / "cpu"):
        pass
    assert "what was there before is untouched" in str(caught.value.help)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.ENOTSUP])
def test_file_systems_without_exchange(place: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    write(place, "old")
    monkeypatch.setattr(publish.ctypes, "get_errno", lambda: number)
    monkeypatch.setattr(publish.ctypes, "CDLL", lambda *_, **__: type("C", (), {"renameat2": lambda *_: -1}))
    write(place, "new")
    assert read(place) == "new"
    monkeypatch.setattr(publish.ctypes, "CDLL", lambda *_, **__: object())
    write(place, "newer")
    assert read(place) == "newer"


def test_an_exchange_that_fails_says_so(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(place, "old")
    monkeypatch.setattr(publish.ctypes, "get_errno", lambda: errno.EACCES)
    monkeypatch.setattr(publish.ctypes, "CDLL", lambda *_, **__: type("C", (), {"renameat2": lambda *_: -1}))
    with pytest.raises(StageError, match="Permission denied"):
        write(place, "new")
    assert read(place) == "old"


def test_stamp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    assert stamp() == STAMP == 315532800
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert stamp() == 1_700_000_000
    for wrong in ("", "yesterday", "-1", "1.5"):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", wrong)
        with pytest.raises(StageError, match="not a number of seconds"):
            stamp()


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    root = tmp_path / "bundle"
    names = ("model/model.onnx", "runtime/loader.py", "README.md", "measurements/old.json", PROVENANCE)
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / "model").chmod(0o700)
    (root / "README.md").chmod(0o600)
    return root


def test_sealing(bundle: Path) -> None:
    sealed = seal(bundle, manifest(stamp=1_700_000_000))
    assert [file.path for file in sealed.files] == ["README.md", "model/model.onnx", "runtime/loader.py"]
    for file in sealed.files:
        content = (bundle / file.path).read_bytes()
        assert (file.bytes, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert Manifest.model_validate_json((bundle / "manifest.json").read_bytes()) == sealed
    for path in [*bundle.rglob("*")]:
        assert path.stat().st_mtime == 1_700_000_000
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644)
    lines = (bundle / "SHA256SUMS").read_text().splitlines()
    assert lines == sorted(lines, key=lambda line: line.split("  ")[1])
    assert dict(line.split("  ")[::-1] for line in lines) == {
        name: sha256_file(bundle / name)
        for name in ("README.md", "manifest.json", "model/model.onnx", "runtime/loader.py")
    }


def test_what_is_sealed_passes_the_loaders_own_check(bundle: Path) -> None:
    seal(bundle, manifest())
    for verify in ("full", "fast"):
        assert files_module.read_manifest(bundle, verify)["name"] == "bert"


def test_sealing_twice_gives_the_same_bytes(bundle: Path) -> None:
    seal(bundle, manifest())
    before = (bundle / "manifest.json").read_bytes(), (bundle / "SHA256SUMS").read_bytes()
    seal(bundle, manifest())
    assert ((bundle / "manifest.json").read_bytes(), (bundle / "SHA256SUMS").read_bytes()) == before


def keep_time(path: Path, content: bytes) -> None:
    status = path.stat()
    path.write_bytes(content)
    os.utime(path, (status.st_atime, status.st_mtime))


def test_an_untouched_bundle_is_intact(bundle: Path) -> None:
    seal(bundle, manifest())
    sums = sha256_file(bundle / "SHA256SUMS")
    assert is_intact(bundle, sums)
    # Running it leaves caches, measuring it measurements, signing it signatures.
    (bundle / "runtime" / "__pycache__").mkdir()
    (bundle / "runtime" / "__pycache__" / "loader.pyc").touch()
    (bundle / "measurements" / "another.json").touch()
    (bundle / "attestations" / "bundle.sig").touch()
    assert is_intact(bundle, sums)
    assert not is_intact(bundle, "0" * 64)
    assert not is_intact(bundle.with_name("nothing"), sums)


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "model" / "model.onnx").unlink(),
        lambda root: (root / "model" / "model.onnx").write_text("longer than before"),
        lambda root: (root / "model" / "model.onnx").touch(),
        lambda root: (root / "extra").touch(),
        lambda root: (root / "measurements" / "old.json").unlink(),
        lambda root: (root / PROVENANCE).unlink(),
        lambda root: (root / "manifest.json").unlink(),
        lambda root: (root / "manifest.json").write_text("{}"),
        lambda root: keep_time(
            root / "manifest.json", (root / "manifest.json").read_bytes().replace(b'"bert"', b'"tree"')
        ),
        lambda root: (root / "SHA256SUMS").write_text(""),
    ],
)
def test_a_changed_bundle_is_not_intact(bundle: Path, change: Any) -> None:
    seal(bundle, manifest())
    sums = sha256_file(bundle / "SHA256SUMS")
    change(bundle)
    assert not is_intact(bundle, sums)
