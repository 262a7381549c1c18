"""ONNX Runtime's CUDA provider on a machine without a GPU: what it takes of a graph, asked of the provider itself."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from ortc.common.resources import targets_dir

PROGRAM = Path(__file__).with_name("cuda_placement.py")
Placement = dict[str, dict[str, int]] | None


def cuda_provider() -> Path:
    """The installed provider's library; skips where the installed ONNX Runtime has none."""
    spec = importlib.util.find_spec("onnxruntime")
    assert spec is not None
    assert spec.origin is not None
    library = Path(spec.origin).parent / "capi" / "libonnxruntime_providers_cuda.so"
    if not library.is_file():
        pytest.skip("the installed ONNX Runtime has no CUDA provider")
    return library


def build_stand_ins(place: Path) -> Path:
    """Stand-ins for the libraries that the installed provider needs, for LD_LIBRARY_PATH."""
    library = cuda_provider()
    missing = [tool for tool in ("cc", "readelf") if shutil.which(tool) is None]
    if missing:
        reason = f"stand-ins for NVIDIA's libraries need {', '.join(missing)} (Debian: apt-get install gcc binutils)"
        if os.environ.get("ORTC_REQUIRE_TOOLS") == "1":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(targets_dir()))
        found: Path = importlib.import_module("stand_in").stand_ins([library], place)
    return found


def placements(models: Sequence[Path], stand_ins: Path) -> list[Placement]:
    """Where each model's nodes are placed, by provider; None for a model that is refused."""
    environment = {**os.environ, "LD_LIBRARY_PATH": str(stand_ins), "ORT_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, str(PROGRAM), *map(str, models)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    found: list[Placement] = json.loads(done.stdout.splitlines()[-1])
    return found
