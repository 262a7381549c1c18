"""Full disks: which one it is, and what is no full disk."""

from __future__ import annotations

import errno
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from ortc.__main__ import run
from ortc.build.context import is_deterministic
from ortc.bundle.publish import Staging
from ortc.common import disk
from ortc.common.disk import DiskFullError, full, is_full, room, says_full, temporary
from ortc.common.errors import StageError
from ortc.execution.action_cache import Store
from ortc.execution.blob_store import Blobs
from ortc.execution.worker import Worker
from ortc.execution.worker_process import WorkerError

NO_SPACE = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> dict[Path, int]:
    """Free bytes below some directories; elsewhere there is room enough."""
    known: dict[Path, int] = {}
    monkeypatch.setattr(
        disk, "free", lambda path: next((size for place, size in known.items() if path.is_relative_to(place)), 10**12)
    )
    return known


def raising(error: Exception) -> Callable[..., NoReturn]:
    def fail(*_: object, **__: object) -> NoReturn:
        raise error

    return fail


def test_what_is_full() -> None:
    assert is_full(NO_SPACE)
    assert is_full(OSError(errno.EDQUOT, "Disk quota exceeded"))
    assert not is_full(OSError(errno.EACCES, "Permission denied"))
    assert not is_full(ValueError("No space left on device"))
    assert says_full("OSError: [Errno 28] No space left on device: '/x'")
    assert not says_full("out of memory")


def test_a_place_that_is_not_there_yet_has_the_room_of_its_disk(tmp_path: Path) -> None:
    assert disk.free(tmp_path / "not" / "there") == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.2)


def test_the_message_names_the_fullest_place(tmp_path: Path, free: dict[Path, int]) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    free.update({one: 5_000_000, two: 2_000})
    error = full(("the cache", one), ("bundles", two), needed=90_000_000)
    assert error.message == f"no room for bundles in {two}: 90.0 MB are needed, 2.0 kB are free"
    assert "`-o`" in str(error.help)
    assert error.exit_code == StageError.exit_code
    assert full(("the cache", one)).message == f"no room for the cache in {one}: 5.0 MB are free"


def test_nothing_is_begun_that_cannot_end(tmp_path: Path, free: dict[Path, int]) -> None:
    free[tmp_path] = 99
    with pytest.raises(DiskFullError, match="100 B are needed, 99 B are free"), room(("bundles", tmp_path), needed=100):
        pytest.fail("begun")
    with room(("bundles", tmp_path), needed=99):
        pass


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), room(("bundles", tmp_path)):
        raise PermissionError(errno.EACCES, "Permission denied")


def test_a_full_disk_is_no_property_of_the_model() -> None:
    assert not is_deterministic(full(temporary()))
    assert is_deterministic(StageError("unsupported"))
    assert not is_deterministic(WorkerError("died", "gone"))


def test_an_action_whose_disk_is_full_is_no_entry(tmp_path: Path, free: dict[Path, int]) -> None:
    free[tmp_path] = 0
    store = Store(tmp_path / "cache")
    free[tmp_path / "cache"] = 99
    with pytest.raises(DiskFullError, match="no room for the cache"):
        store.run("export", {"x": 1}, raising(NO_SPACE))
    assert store.find("export", {"x": 1}) is None
    assert store.run("export", {"x": 1}, lambda _: {"ok": 1}).result == {"ok": 1}


@pytest.mark.parametrize("place", ["the cache", "temporary files"])
@pytest.mark.parametrize(
    "error",
    [NO_SPACE, StageError("quantization fails: OSError: [Errno 28] No space left on device", details=("line",))],
)
def test_where_an_action_had_no_room(tmp_path: Path, free: dict[Path, int], place: str, error: Exception) -> None:
    """An action writes to the cache, and some to scratch directories; its processes only tell that there was none."""
    free.update({tmp_path: 1 if place == "the cache" else 3, Path(tempfile.gettempdir()): 2})
    with pytest.raises(DiskFullError, match=f"no room for {place} in"):
        Store(tmp_path / "cache").run("variant", {"x": 1}, raising(error))


def test_a_blob_is_not_begun_without_room(tmp_path: Path, free: dict[Path, int]) -> None:
    (tmp_path / "weights").write_bytes(b"w" * 1000)
    free[tmp_path / "blobs"] = 999
    with pytest.raises(DiskFullError, match=r"1.0 kB are needed, 999 B are free"):
        Blobs(tmp_path / "blobs").add(tmp_path / "weights", "a" * 64)
    assert not (tmp_path / "blobs").exists()


def test_publishing_without_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "mkdtemp", raising(NO_SPACE))
    with pytest.raises(DiskFullError, match=f"no room for bundles in {tmp_path}"), Staging(tmp_path / "cpu"):
        pass


@pytest.mark.parametrize(("place", "purpose"), [("cache", "the cache"), ("scratch", "temporary files")])
def test_a_worker_that_has_no_room(
    request: pytest.FixtureRequest, tmp_path: Path, free: dict[Path, int], place: str, purpose: str
) -> None:
    """Where it was told to write, or where temporary files go."""
    sizes = (7, 8) if place == "cache" else (8, 7)
    free.update(zip((tmp_path / "cache", Path(tempfile.gettempdir())), sizes, strict=True))
    worker = Worker("PyTorch", [])
    request.addfinalizer(worker._scratch.cleanup)
    said = json.dumps("OSError: [Errno 28] No space left on device")
    with pytest.raises(DiskFullError, match=f"no room for {purpose} in .*: 7 B are free"):
        worker._check_disk(said, {"outputs": str(tmp_path / "cache" / "out.npz"), "runs": 3})
    worker._check_disk("CUDA out of memory", {"outputs": str(tmp_path)})


def test_a_full_disk_is_no_bug(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Wherever it was met that nobody thought of."""
    monkeypatch.setenv("ORTC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("ortc.cli.main.main", raising(NO_SPACE))
    assert run(["cache", "ls"]) == 4
    told = capsys.readouterr().err
    assert told.startswith("error: no room left for what ortc writes\n")
    assert f"free for the cache in {tmp_path}/cache" in told
    assert "Traceback" not in told
    assert "This is a bug" not in told
