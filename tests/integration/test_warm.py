"""What tests start in processes that were forked from a server is and ends as what they would start otherwise."""

from __future__ import annotations

import contextlib
import importlib
import os
import resource
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.support.builds import ROOT, SET_BY_LIBRARIES, Compiler
from tests.support.quiet import warm

from ortc.execution.worker import Worker
from ortc.execution.worker_process import WorkerError

pytestmark = pytest.mark.integration

SECONDS = 120
ENDS = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 128 + signal.SIGTERM, signal.SIGINT: 128 + signal.SIGINT}
"""What a command returns that a signal ends."""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of commands that a server of their own forks."""
    if not hasattr(os, "pidfd_open"):
        pytest.skip("no pidfd on this system")
    place = tmp_path_factory.mktemp("warm")
    environment = {**Compiler(place / "cache").environment(), warm.PLACE: str(place)}
    warm.prepare(place, os.getpid(), environment, {})
    run(environment, "--version").check_returncode()
    assert [path.suffix for path in place.glob("*.sock")] == [".sock"]
    return environment


def run(environment: dict[str, str], *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ortc", *arguments]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False, **options
    )


def test_it_answers_as_another_process_would(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("kind: nothing\n")
    cold = {name: value for name, value in environment.items() if name != warm.PLACE}
    for arguments in (["--version"], ["check", "bad.yaml"], ["no-such-command"], ["explain", "ORTC001"], ["check"]):
        told = [run(given, *arguments, cwd=tmp_path) for given in (environment, cold)]
        assert told[0].args == told[1].args
        assert (told[0].returncode, told[0].stdout, told[0].stderr) == (
            told[1].returncode,
            told[1].stdout,
            told[1].stderr,
        )


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_it_ends_with_the_process_that_was_started(
    environment: dict[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "ortc", "build", "--plan", "-", "-o", str(tmp_path)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # A runner that was put into the background ignores interrupts, and so would all its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        # More than a pipe holds: that it takes as much shows that somebody reads.
        process.stdin.write(b" " * 2**18)
        process.stdin.flush()
        # Python's own loop of reads notes a signal that comes between two of them when another one comes.
        for _ in range(SECONDS // 5):
            process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
                break
        assert process.wait(SECONDS) == ENDS[number]
        # Nobody else holds the other end of the pipe.
        assert select.select([process.stdout], [], [], SECONDS)[0]
        told = process.stdout.read().decode()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
    assert "Traceback" not in told


def test_another_environment_has_a_process_of_its_own(environment: dict[str, str], tmp_path: Path) -> None:
    """It works where no server can be started, since it asks for none."""
    place = Path(environment[warm.PLACE])
    away = {**environment, warm.PLACE: str(tmp_path)}
    for path in place.glob("*.wanted"):
        (tmp_path / path.name).touch()
    assert run({**away, "OMP_NUM_THREADS": "1"}, "--version", cwd=ROOT).returncode == 0
    assert not list(tmp_path.glob("*.started"))


@pytest.mark.parametrize("limit", [resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE])
def test_a_command_with_limits_of_its_own_has_a_process_of_its_own(
    environment: dict[str, str], limit: int, tmp_path: Path
) -> None:
    """What a test takes from a command, the command has to lack."""
    for path in Path(environment[warm.PLACE]).glob("*.wanted"):
        (tmp_path / path.name).touch()
    hard = resource.getrlimit(limit)[1]
    away = {**environment, warm.PLACE: str(tmp_path)}
    assert run(away, "--version", preexec_fn=lambda: resource.setrlimit(limit, (4096, hard))).returncode == 0
    assert not list(tmp_path.glob("*.started"))


def test_what_libraries_set_in_this_process_leaves_the_environment_of_builds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = Compiler(tmp_path).environment()
    # One of its modules sets a variable when it is imported.
    importlib.import_module("torch._inductor.codecache")
    for name in SET_BY_LIBRARIES:
        monkeypatch.setenv(name, "1")
    keys = [warm.environment_key(found, is_compiler=True) for found in (before, Compiler(tmp_path).environment())]
    assert keys[0] == keys[1]


@pytest.mark.usefixtures("as_builds")
def test_the_processes_of_builds_are_forked() -> None:
    place = Path(os.environ[warm.PLACE])
    with Worker.for_making("a maker") as worker, pytest.raises(WorkerError, match="KeyError"):
        worker.call("nothing")
    assert len(list(place.glob("*.sock"))) >= 1
