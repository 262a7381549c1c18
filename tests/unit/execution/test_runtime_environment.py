"""Runtime environments are made once, whole, and again when a kill left half of one."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ortc.common.errors import StageError
from ortc.execution import runtime_environment as module
from ortc.execution.runtime_environment import MARKER, environment, is_made


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Requirements for which an environment was made, by something quicker than pip."""
    calls: list[str] = []

    def make(requirements: str, place: Path, python: str) -> None:
        assert not place.exists()
        (place / "bin").mkdir(parents=True)
        (place / "bin" / "python").write_text(python)
        threading.Event().wait(0.02)
        calls.append(requirements)

    monkeypatch.setattr(module, "_make", make)
    return calls


def test_made_once(tmp_path: Path, made: list[str]) -> None:
    told: list[int] = []
    first = environment("numpy==2", tmp_path / "a" / "b", on_make=lambda: told.append(1))
    assert environment("numpy==2", tmp_path / "a" / "b", on_make=lambda: told.append(1)) == first
    assert (made, told) == (["numpy==2"], [1])
    assert first.is_file()
    assert is_made("numpy==2", tmp_path / "a" / "b") == (first, True)


def test_other_requirements_or_another_python_are_another_environment(tmp_path: Path, made: list[str]) -> None:
    found = {
        environment("numpy==2", tmp_path),
        environment("numpy==3", tmp_path),
        environment("numpy==2", tmp_path, python="/usr/bin/python3"),
    }
    assert len(found) == 3
    assert len(made) == 3
    path, ready = is_made("numpy==4", tmp_path)
    assert not ready
    assert path.parent.parent.parent == tmp_path


def test_another_version_of_python_is_another_environment(
    tmp_path: Path, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = environment("numpy==2", tmp_path)
    monkeypatch.setattr(sys, "version", "3.99")
    assert environment("numpy==2", tmp_path) != first


def test_several_builds_make_it_once(tmp_path: Path, made: list[str]) -> None:
    with ThreadPoolExecutor(6) as pool:
        found = set(pool.map(lambda _: environment("numpy==2", tmp_path), range(6)))
    assert len(found) == 1
    assert made == ["numpy==2"]


def test_half_an_environment_is_made_again(tmp_path: Path, made: list[str]) -> None:
    interpreter = environment("numpy==2", tmp_path)
    place = interpreter.parent.parent
    (place / MARKER).unlink()
    (place / "leftover").touch()
    assert is_made("numpy==2", tmp_path)[1] is False
    assert environment("numpy==2", tmp_path) == interpreter
    assert made == ["numpy==2"] * 2
    assert not (place / "leftover").exists()


@pytest.mark.parametrize("error", [StageError("no"), KeyboardInterrupt()])
def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def make(_: str, place: Path, __: str) -> None:
        place.mkdir()
        raise error

    monkeypatch.setattr(module, "_make", make)
    with pytest.raises(type(error)):
        environment("numpy==2", tmp_path)
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []
    assert is_made("numpy==2", tmp_path)[1] is False


def test_what_pip_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []
    variables: list[set[str]] = []

    def run(arguments: list[str], env: dict[str, str], **_: Any) -> Any:
        commands.append(arguments)
        variables.append(set(env))
        if "venv" in arguments:
            Path(arguments[-1]).mkdir()
        return subprocess.CompletedProcess(arguments, 0, "", "")

    monkeypatch.setattr(module.subprocess, "run", run)
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    interpreter = environment("numpy==2 --hash=sha256:0", tmp_path)
    place = interpreter.parent.parent
    assert (place / "requirements.txt").read_text() == "numpy==2 --hash=sha256:0"
    # Only wheels with the pinned digests, and nothing but what is listed.
    assert {"--require-hashes", "--no-deps", "--only-binary=:all:", str(interpreter)} <= set(commands[1])
    assert not any("PYTHONPATH" in names for names in variables)


def test_what_pip_says_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "\n".join(f"line {n}" for n in range(20))
    monkeypatch.setattr(
        module.subprocess, "run", lambda arguments, **_: subprocess.CompletedProcess(arguments, 1, "", lines)
    )
    with pytest.raises(StageError, match=r"cannot make a virtual environment \(exit code 1\)") as caught:
        environment("numpy==2", tmp_path)
    assert caught.value.details == tuple(f"line {n}" for n in range(8, 20))
