"""Signals that end a command: it ends soon, its helpers with it, and leaves no temporary files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

SOON = 60.0
"""Seconds on a machine that does other work as well; the module below would wait for an hour."""
SPEC = """\
apiVersion: ortc/v1alpha1
kind: ModelDeployment
name: waits
version: 1.0.0
model: {source: pytorch, entrypoint: "waits:model", weights: none}
export: {inputs: {x: {dtype: float32, shape: [2, 4]}}, outputs: [y]}
targets: {cpu: {latency_budget: {p99: 60s}}}
"""
MODULE = """\
import pathlib
import time


def model():
    pathlib.Path(__file__).with_name("begun").touch()
    time.sleep(3600)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_build_ends_with_all_that_it_started(number: signal.Signals, tmp_path: Path) -> None:
    scratch, project = tmp_path / "scratch", tmp_path / "project"
    for directory in (scratch, project):
        directory.mkdir()
    (project / "pyproject.toml").touch()
    (project / "waits.py").write_text(MODULE, "utf-8")
    (project / "waits.yaml").write_text(SPEC, "utf-8")
    environment = {**os.environ, "TMPDIR": str(scratch), "ORTC_CACHE_DIR": str(tmp_path / "cache")}
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "ortc", "build", "waits.yaml", "-o", "dist"],
        cwd=project,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A runner in the background ignores some signals, and so would what it starts.
        preexec_fn=_heed_signals,
    ) as process:
        try:
            _wait_for(project / "begun", process)
            process.send_signal(number)
            _, told = process.communicate(timeout=SOON)
        finally:
            _kill_session(process.pid)
    assert process.returncode == 128 + number, told
    assert f"ended by {number.name}" in told
    assert "Traceback" not in told
    assert [path.name for path in scratch.iterdir() if not path.name.startswith("torchinductor_")] == []
    assert not (project / "dist").exists() or not any(path.is_file() for path in (project / "dist").rglob("[!.]*"))


def _wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 5 * SOON
    while not path.exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _heed_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _kill_session(leader: int) -> None:
    """Fail where a process of the session lives on, and end it."""
    living = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = status.read_text("ascii", "replace").rpartition(")")[2].split()[:4]
        except (OSError, ValueError):
            continue
        if int(session) == leader and state != "Z":
            living.append(int(status.parent.name))
    for number in living:
        os.kill(number, signal.SIGKILL)
    assert not living
