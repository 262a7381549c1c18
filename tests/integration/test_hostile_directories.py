"""A directory full of traps: modules with the names of what ortc and its helpers import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

TRAPS = "torch numpy onnx pydantic transformers venv pip ensurepip json click rich_click yaml filelock huggingface_hub"
WORKERS = """
import sys
from pathlib import Path
from ortc.execution.runtime_environment import environment
from ortc.execution.worker import Worker
from ortc.execution.worker_process import WorkerError
for worker in (Worker.for_reference(), Worker.for_making("m"), Worker.for_images()):
    with worker:
        try:
            worker.call("load", threads=1, model={}, export={})
        except WorkerError:
            pass
environment("", Path(sys.argv[1]))
"""


@pytest.fixture
def trapped(tmp_path: Path) -> Path:
    """The working directory of an attack: importing any of its packages leaves a file beside them."""
    place = tmp_path / "checkout"
    for name in TRAPS.split():
        (place / name).mkdir(parents=True)
        text = f"open({str(tmp_path / ('ran-' + name))!r}, 'w').close()\n"
        (place / name / "__init__.py").write_text(text)
        (place / name / "__main__.py").write_text(text)
    return place


def test_helpers_import_nothing_from_the_working_directory(trapped: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-c", WORKERS, str(tmp_path / "environments")]
    done = subprocess.run(command, cwd=trapped, capture_output=True, text=True, check=False)
    assert not list(tmp_path.glob("ran-*"))
    assert done.returncode == 0, done.stderr


def test_the_command_imports_nothing_from_the_working_directory(trapped: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ortc", "doctor"]
    done = subprocess.run(command, cwd=trapped, capture_output=True, text=True, check=False)
    assert not list(tmp_path.glob("ran-*"))
    assert done.returncode == 0, done.stderr
