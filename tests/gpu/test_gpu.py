"""What only a machine with an NVIDIA GPU can show: every variant for it runs there, and is right."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ortc.execution.host import gpus

HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(not gpus(), reason="no NVIDIA GPU that the driver shows; `make gpu` measures on one")
HOUR = 3600


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Every variant of a tiny BERT beside PyTorch, on the GPU."""
    place = tmp_path_factory.mktemp("gpu")
    for arguments in (
        [HERE / "run.py", "pack", "--output", place / "pack", "--models", "tiny"],
        [place / "pack" / "run.py", "run", "--output", place / "data.json", "--shapes", "1x16,4x32", "--rounds", "3"],
    ):
        done = subprocess.run(
            [sys.executable, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=HOUR
        )
        assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads((place / "data.json").read_bytes())
    found: dict[str, Any] = document["models"]["tiny"]["contenders"]
    return found


def test_every_variant_for_cuda_runs_on_cuda_and_is_right(measured: dict[str, Any]) -> None:
    ours = {name: entry for name, entry in measured.items() if name.startswith("ortc-") and "tensorrt" not in name}
    assert ours
    for name, entry in ours.items():
        assert "absent" not in entry, f"{name}: {entry.get('absent')}"
        assert entry["placement"].get("CUDAExecutionProvider", 0) > 0, name
        assert entry["accuracy"]["problem"] is None, name
        assert entry["accuracy"]["cosine"] > 0.999, name
        assert entry["device_bytes"] > 0, name


def test_fused_operators_are_those_that_cuda_runs(measured: dict[str, Any]) -> None:
    on_cuda = measured["ortc-fp16-fused"]["operators"]["CUDAExecutionProvider"]
    assert (on_cuda["Attention"], on_cuda["SkipLayerNormalization"], on_cuda["BiasGelu"]) == (2, 4, 2)


def test_tensorrt_runs_where_it_is_installed(measured: dict[str, Any]) -> None:
    entry = measured["ortc-tensorrt-fp32"]
    if "absent" in entry:
        pytest.skip(f"TensorRT does not load here: {entry['absent']}")
    assert entry["placement"].get("TensorrtExecutionProvider", 0) > 0
    assert entry["accuracy"]["cosine"] > 0.999
