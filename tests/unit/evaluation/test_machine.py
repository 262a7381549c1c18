"""What runs beside a measurement, the control workload, and the place of the lock."""

from __future__ import annotations

import json
import os
import stat
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ortc.common.bundle_runtime import runtime_module
from ortc.common.errors import StageError, UnmeasuredError
from ortc.evaluation.machine import CONTROL_RUNS, exclusive
from ortc.evaluation.report import BusyProcess, Load

machine: Any = runtime_module("machine")


def test_the_control_computes_on_as_many_threads() -> None:
    found = machine.control(2, 3)
    assert len(found["times_ms"]) == 6
    assert min(found["times_ms"]) > 0
    assert found["cpu_seconds"] > 0
    assert found["wall_seconds"] * 1000 >= max(found["times_ms"])


def test_a_request_may_ask_for_fewer_runs() -> None:
    assert CONTROL_RUNS == machine.CONTROL_RUNS, "a build and a bundle run the same workload"
    assert len(machine.answer('{"op": "control", "threads": 2, "runs": 3}')["result"]["times_ms"]) == 6


@pytest.mark.parametrize(
    "line",
    [
        "",
        "[]",
        "{",
        '{"op": "run"}',
        '{"op": "control"}',
        '{"op": "control", "threads": 0}',
        "1",
        '"x"',
        '{"op": "control", "threads": true}',
        '{"op": "control", "threads": 1e9}',
        '{"op": "control", "threads": 1, "runs": 0}',
        '{"op": "control", "threads": 1, "runs": 1e9}',
        '{"op": "control", "threads": 1, "runs": true}',
    ],
)
def test_a_request_that_is_none_is_answered(line: str) -> None:
    reply = machine.answer(line)
    assert reply["ok"] is False
    assert reply["error"]["code"] == "usage"
    assert json.loads(json.dumps(reply)) == reply


def process(proc: Path, pid: int, name: str, parent: int, ticks: int) -> None:
    (proc / str(pid)).mkdir(exist_ok=True)
    fields = ["S", str(parent), *["0"] * 9, str(ticks), "0", *["0"] * 20]
    (proc / str(pid) / "stat").write_bytes(f"{pid} (".encode() + name.encode() + b") " + " ".join(fields).encode())


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "stat").write_text("cpu  1 2 3 4 5 6 7 100 0 0\n")
    (tmp_path / "self").mkdir()
    process(tmp_path, 1, "init", 0, 5)
    process(tmp_path, 10, "ortc", 1, 100)
    process(tmp_path, 11, "worker", 10, 100)
    process(tmp_path, 20, "python", 1, 1000)
    return tmp_path


def after(watch: Any, seconds: float) -> dict[str, Any]:
    """The load as if some seconds had gone by."""
    watch._began -= seconds
    found: dict[str, Any] = watch.load()
    Load.model_validate(found)
    return found


def test_what_ran_beside_a_process_and_its_children(proc: Path) -> None:
    watch = machine.Watch(own=10, proc=proc)
    tick = os.sysconf("SC_CLK_TCK")
    for pid, name, parent, ticks in ((10, "ortc", 1, 900), (11, "worker", 10, 900), (12, "late", 11, 900)):
        process(proc, pid, name, parent, ticks)
    process(proc, 20, "python", 1, 1000 + 10 * tick)
    process(proc, 21, "python", 1, 5 * tick)
    process(proc, 30, "idle", 1, 1)
    (proc / "stat").write_text(f"cpu  1 2 3 4 5 6 7 {100 + 5 * tick} 0 0\n")
    found = after(watch, 10)
    # Equal names are one entry; this process and its own are none.
    assert found["processes"] == [{"name": "python", "cores": pytest.approx(1.5, rel=0.01)}]
    assert found["stolen"] == pytest.approx(0.5, rel=0.02)


def test_a_process_that_ended_is_known_by_the_last_look(proc: Path) -> None:
    watch = machine.Watch(own=10, proc=proc)
    process(proc, 20, "python", 1, 1000 + 10 * os.sysconf("SC_CLK_TCK"))
    watch._looked -= 1
    watch.look()
    (proc / "20" / "stat").unlink()
    assert [entry["name"] for entry in after(watch, 10)["processes"]] == ["python"]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("\x1b[31mred\x07", "?[31mred?"),
        ("a) (b", "a) (b"),
        ("line\nbreak", "line?break"),
        ("x" * 100, "x" * 32),
        ("", "?"),
        ("naïve", "na?ve"),
    ],
)
def test_names_of_processes_are_cleaned(proc: Path, name: str, shown: str) -> None:
    watch = machine.Watch(own=10, proc=proc)
    process(proc, 40, name, 1, 10 * os.sysconf("SC_CLK_TCK"))
    (entry,) = after(watch, 10)["processes"]
    assert entry["name"] == shown
    BusyProcess.model_validate(entry)


@pytest.mark.parametrize("content", ["", "40", "40 (x", "40 (x) S", "40 (x) S a b", "\x00" * 50, "40 (x) " + "y " * 20])
def test_what_is_no_process_is_left_out(proc: Path, content: str) -> None:
    (proc / "40").mkdir()
    (proc / "40" / "stat").write_text(content)
    assert 40 not in machine.processes(proc)


def test_parents_that_run_in_a_circle_end(proc: Path) -> None:
    watch = machine.Watch(own=10, proc=proc)
    process(proc, 50, "a", 51, 10 * os.sysconf("SC_CLK_TCK"))
    process(proc, 51, "b", 50, 0)
    assert [entry["name"] for entry in after(watch, 10)["processes"]] == ["a"]


def test_the_lock_is_a_file_that_everybody_can_read(tmp_path: Path) -> None:
    mask = os.umask(0o077)
    try:
        descriptor = machine.open_lock(tmp_path)
    finally:
        os.umask(mask)
    try:
        found = (tmp_path / machine.LOCK_NAME).stat()
        assert stat.S_IMODE(found.st_mode) == 0o644
        assert os.get_inheritable(descriptor) is False
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.write(descriptor, b"x")
    finally:
        os.close(descriptor)
    os.close(machine.open_lock(tmp_path))


def _link(path: Path) -> None:
    path.symlink_to(path.with_name("elsewhere"))


def _link_to_a_file(path: Path) -> None:
    path.with_name("elsewhere").write_text("secret")
    path.symlink_to(path.with_name("elsewhere"))


def _directory(path: Path) -> None:
    path.mkdir()


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _missing(path: Path) -> None:
    path.parent.rmdir()


@pytest.mark.parametrize("plant", [_link, _link_to_a_file, _directory, _pipe, _missing])
def test_another_place_is_taken_and_told_where_the_lock_cannot_be(
    plant: Callable[[Path], None], tmp_path: Path
) -> None:
    shared, fallback, told = tmp_path / "shared", tmp_path / "cache", []
    shared.mkdir()
    plant(shared / machine.LOCK_NAME)
    with machine.exclusive(told.append, fallback, [shared]):
        assert (fallback / machine.LOCK_NAME).is_file()
    assert len(told) == 1
    assert told[0].startswith("measurements of other users are not waited for: the lock is ")
    assert str(shared / machine.LOCK_NAME) in told[0]
    # Nothing was made or written where a link pointed.
    elsewhere = shared / "elsewhere"
    assert not elsewhere.exists() or elsewhere.read_text() == "secret"


@pytest.mark.skipif(sys.platform != "linux", reason="flock(2)")
def test_a_lock_may_be_taken_again_and_others_wait(tmp_path: Path) -> None:
    import fcntl

    told: list[str] = []
    with machine.exclusive(told.append, tmp_path, [tmp_path]), machine.exclusive(told.append, tmp_path, [tmp_path]):
        other = machine.open_lock(tmp_path)
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with (
        pytest.raises(TimeoutError, match=r"held this machine's lock for 0 s, by process \d+ \("),
        machine.exclusive(told.append, tmp_path, [tmp_path], 0.0),
    ):
        raise AssertionError("the lock is held")
    assert told[0].startswith("waiting for another measurement on this machine to end, by process ")
    os.close(other)
    # What failed holds nothing.
    with machine.exclusive(told.append, tmp_path, [tmp_path], 0.0):
        pass
    with pytest.raises(KeyError), machine.exclusive(told.append, tmp_path, [tmp_path]):
        raise KeyError
    with machine.exclusive(told.append, tmp_path, [tmp_path], 0.0):
        pass
    assert len(told) == 1


def test_a_lock_that_is_not_had_is_no_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(error: Exception) -> Callable[..., Any]:
        def raising(*_: object) -> Any:
            raise error

        return raising

    monkeypatch.setattr(machine, "exclusive", fail(TimeoutError("held for 3600 s")))
    with pytest.raises(UnmeasuredError, match="held for 3600 s"), exclusive(print):
        raise AssertionError
    monkeypatch.setattr(machine, "exclusive", fail(OSError("read-only")))
    with pytest.raises(StageError, match="no lock for measuring can be made: read-only"), exclusive(print):
        raise AssertionError


def test_a_process_whose_parent_holds_the_lock_does_not_wait(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(machine.HELD, "1")
    with machine.exclusive(print, tmp_path / "none", []):
        pass
    assert not (tmp_path / "none").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="flock(2)")
def test_who_waits_comes_before_a_holder_that_begins_again(tmp_path: Path) -> None:
    import fcntl

    held, following = machine.open_lock(tmp_path), machine.open_lock(tmp_path, machine.NEXT_NAME)
    fcntl.flock(held, fcntl.LOCK_EX)
    waiting, got = threading.Event(), threading.Event()

    def wait() -> None:
        with machine.exclusive(lambda _: waiting.set(), tmp_path, [tmp_path]):
            got.set()

    waiter = threading.Thread(target=wait)
    waiter.start()
    assert waiting.wait(60)
    # A holder has to pass this one to begin again, and cannot.
    with pytest.raises(BlockingIOError):
        fcntl.flock(following, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(held, fcntl.LOCK_UN)
    assert got.wait(60)
    waiter.join()
    fcntl.flock(following, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(held)
    os.close(following)
