"""A build that is killed at any moment leaves the bundle before it whole, and the next build nothing of it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.builds import PLAIN, Build, Compiler, answer, loader, snapshot

pytestmark = pytest.mark.integration

# Without a search: what is compared must not depend on timings.
DIGITS = ("specs/digits.yaml", "-t", "cpu", *PLAIN, "--set", "targets.cpu.latency_budget.p99=60s")
SOON = (*DIGITS, "--set", "accuracy.max_abs=2e-4", "--set", "export.exporter=torchscript")
"""Another bundle than that of `DIGITS`, by the exporter that takes less time."""
PATIENCE = 300.0
"""Seconds until a moment has come; only a build that hangs needs them."""


def ended(*stages: str) -> Callable[[Path, str], bool]:
    """The moment when these stages have ended, so that the next one is under way."""
    return lambda _, told: all(f"\n  {stage} " in told for stage in stages)


def staged(pattern: str) -> Callable[[Path, str], bool]:
    """The moment when a file is there in the directory that is to become the bundle."""
    return lambda version, _: any(version.glob(f".cpu.new-*{pattern}"))


MOMENTS = {
    "export": ended("fetch"),
    "reference": ended("export"),
    "verify": ended("variant"),
    "measure": ended("verify"),
    "start": ended("measure"),
    "staging made": staged(""),
    "staging half full": staged("/model/model.onnx"),
    "staging sealed": staged("/SHA256SUMS"),
}


FEW = ("reference", "staging half full")
"""In the middle of a stage that PyTorch does, and of what is published."""


@contextlib.contextmanager
def running(compiler: Compiler, output: Path, log: Path, scratch: Path) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**compiler.environment(), "TMPDIR": str(scratch), "PYTHONUNBUFFERED": "1"}
    with (
        log.open("wb") as stderr,
        subprocess.Popen(
            compiler.command(*SOON, output=output),
            cwd=compiler.root,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            # A runner that was put into the background ignores interrupts, and so would all its children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        ) as process,
    ):
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def kill_at(
    moment: Callable[[Path, str], bool], compiler: Compiler, output: Path, log: Path, scratch: Path, delay: float = 0
) -> str:
    """Run a build, kill it at a moment, and return what it had told; without a chance to clear up."""
    version = output / "digits" / "1.0.0"
    with running(compiler, output, log, scratch) as process:
        deadline = time.monotonic() + PATIENCE
        while not moment(version, log.read_text()):
            assert process.poll() is None, f"the build ended before it could be killed\n{log.read_text()}"
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.002)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, log.read_text()
    return log.read_text()


EVERY = pytest.mark.proof("test_killed_at_every_moment at two of them; test_another_checkout_and_cache compares bytes")


@pytest.mark.parametrize(
    "moments",
    [
        FEW,
        pytest.param(tuple(MOMENTS), marks=EVERY),
    ],
    ids=["few", "every"],
)
def test_killed_at_every_moment(
    moments: tuple[str, ...],
    built: Build,
    make_cache: Callable[[Path], Path],
    fresh_python: Callable[[Path], Path],
    tmp_path: Path,
) -> None:
    # Everything a killed build leaves behind lies below this directory.
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    output, log = tmp_path / "dist", tmp_path / "stderr.txt"
    place = output / "digits" / "1.0.0" / "cpu"
    shutil.copytree(built.succeeded().bundle("digits", "cpu"), place)
    before = snapshot(place)
    python = fresh_python(place)
    # One cache for all: each build goes on where the one before was killed, and what that had finished must be right.
    compiler = Compiler(make_cache(tmp_path / "cache"))
    for name in moments:
        delay = 0.3 if name in ("export", "reference", "verify", "measure") else 0.0
        kill_at(MOMENTS[name], compiler, output, log, scratch, delay)
        assert snapshot(place) == before, name
        answer(loader(python, place, "selftest"))
    leftovers = list(place.parent.glob(".cpu.new-*"))
    assert leftovers, "the kills while staging have left their traces"
    compiler.build(*SOON, output=output).succeeded()
    assert not list(place.parent.glob(".cpu.new-*"))
    assert not list(place.parent.glob(".cpu.old-*"))
    assert list((compiler.cache / "work").iterdir()) == []
    assert snapshot(place) != before
    answer(loader(python, place, "selftest"))
    if moments == FEW:
        return
    # What the killed builds had put into the cache gives what a build without interruption gives.
    undisturbed = Compiler(make_cache(tmp_path / "clean"))
    undisturbed.build(*SOON, output=tmp_path / "clean-dist").succeeded()
    clean = tmp_path / "clean-dist" / "digits" / "1.0.0" / "cpu" / "SHA256SUMS"
    assert clean.read_bytes() == (place / "SHA256SUMS").read_bytes()


def test_workers_end_with_the_build(make_cache: Callable[[Path], Path], tmp_path: Path) -> None:
    """Nobody is left to hold memory and cores when the compiler is gone."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    compiler = Compiler(make_cache(tmp_path / "cache"))
    kill_at(ended("export"), compiler, tmp_path / "dist", tmp_path / "stderr.txt", scratch)
    deadline = time.monotonic() + 60
    while (left := _processes_with(str(scratch))) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []


def _processes_with(place: str) -> list[int]:
    """Processes whose scratch directory this is."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"TMPDIR={place}\0".encode() in path.read_bytes() + b"\0" and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
    return found


def test_interrupted_by_hand(make_cache: Callable[[Path], Path], tmp_path: Path) -> None:
    """Ctrl-C: one line instead of a traceback, and no scratch directory left."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    compiler, log = Compiler(make_cache(tmp_path / "cache")), tmp_path / "stderr.txt"
    with running(compiler, tmp_path / "dist", log, scratch) as process:
        deadline = time.monotonic() + PATIENCE
        while not ended("export")(tmp_path, log.read_text()) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
    assert "Traceback" not in log.read_text()
    assert [path.name for path in scratch.iterdir() if path.name.startswith("ortc-")] == []
    assert list((compiler.cache / "work").iterdir()) == []
    assert tempfile.gettempdir() not in log.read_text()
