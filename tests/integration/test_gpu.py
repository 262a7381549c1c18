"""tests/gpu from end to end on the CPU: what a GPU machine does, but for the GPU."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.builds import ROOT, TIMEOUT, Compiler

pytestmark = [
    pytest.mark.integration,
    pytest.mark.proof("test_a_file_is_put_together_from_blobs_and_weights and test_a_page_of_data"),
]
MakeCache = Callable[[Path], Path]


def program(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, **options, capture_output=True, text=True, timeout=TIMEOUT, check=False)


@pytest.fixture(scope="module")
def pack(make_cache: MakeCache, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two variants of a tiny BERT without weights; not to be changed."""
    place = tmp_path_factory.mktemp("gpu")
    arguments = ["--output", place / "pack", "--models", "tiny", "--variants", "fp32-fused,fp16-fused"]
    environment = Compiler(make_cache(place / "cache")).environment()
    done = program(ROOT / "tests" / "gpu" / "run.py", "pack", *arguments, env=environment)
    assert done.returncode == 0, done.stderr
    return place / "pack"


@pytest.fixture
def elsewhere(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine that has neither ortc nor, as far as programs can tell, transformers."""
    (tmp_path / "lacking").mkdir()
    (tmp_path / "lacking" / "transformers.py").write_text("raise ImportError('not here')\n")
    return {**os.environ, "PYTHONPATH": str(tmp_path / "lacking"), "CUDA_VISIBLE_DEVICES": ""}


def test_a_pack_holds_no_weights(pack: Path) -> None:
    assert sum(path.stat().st_size for path in pack.rglob("*") if path.is_file()) < 2**20
    model = json.loads((pack / "pack.json").read_bytes())["models"]["tiny"]
    assert [entry["operators"]["Attention"] for entry in model["variants"].values()] == [2, 2]
    made = [
        piece for v in model["variants"].values() for file in v["files"] for piece in file["pieces"] if "of" in piece
    ]
    # Query, key and value of each layer are one weight of each variant, in its own precision.
    joined = [piece for piece in made if len(piece["of"]) == 3]
    assert sorted(piece["dtype"] for piece in joined) == ["float16"] * 2 + ["float32"] * 2


def test_from_a_pack_to_the_page(pack: Path, elsewhere: dict[str, str], tmp_path: Path) -> None:
    """Weights come out to the byte, answers are those of PyTorch where the bundle was made, and everything is timed."""
    copy, output = Path(shutil.copytree(pack, tmp_path / "pack")), tmp_path / "data.json"
    options = ["--device", "cpu", "--shapes", "1x8,2x16", "--rounds", "2", "--starts", "1"]
    only = ["--only", "ortc,torch-eager-fp32,torch-sdpa-fp32"]
    done = program(copy / "run.py", "run", "--output", output, *options, *only, env=elsewhere, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads(output.read_bytes())
    assert document["complete"] is True
    model = document["models"]["tiny"]
    found = model["contenders"]
    assert list(found) == ["torch-eager-fp32", "torch-sdpa-fp32", "ortc-fp32-fused", "ortc-fp16-fused"]
    assert found["torch-eager-fp32"]["versions"]["model"] == "tests/gpu/encoder.py"
    assert [entry.get("golden") for entry in found.values()] == [None, None, "pass", "pass"]
    # Golden answers are those of transformers: so PyTorch alone computes the same model.
    for name in ("torch-sdpa-fp32", "ortc-fp32-fused"):
        assert found[name]["accuracy"]["max_abs"] < 1e-5
    assert 1e-5 < found["ortc-fp16-fused"]["accuracy"]["max_abs"] < 0.1
    assert {entry["kind"] for entry in found.values()} == {"torch", "onnxruntime"}
    assert found["ortc-fp32-fused"]["operators"]["CPUExecutionProvider"]["SkipLayerNormalization"] == 4
    races = {(race["batch"], race["sequence"], race["mode"]): race["rounds"] for race in model["races"]}
    assert sorted(races) == [(b, s, m) for b, s in ((1, 8), (2, 16)) for m in ("device", "host")]
    for rounds in races.values():
        assert rounds.keys() == found.keys()
        assert all(len(turns) == 2 and min(map(min, turns)) > 0 for turns in rounds.values())


def test_other_numbers_end_it_before_anything_is_measured(
    pack: Path, elsewhere: dict[str, str], tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(pack, tmp_path / "pack"))
    document = json.loads((copy / "pack.json").read_bytes())
    document["models"]["tiny"]["seed"] += 1
    (copy / "pack.json").write_text(json.dumps(document))
    arguments = ["--output", tmp_path / "data.json", "--device", "cpu", "--only", "ortc"]
    done = program(copy / "run.py", "run", *arguments, env=elsewhere)
    assert done.returncode == 1
    assert "was packed" in done.stderr
    assert not (tmp_path / "data.json").exists()


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="this host has what the test wants missing")
def test_without_a_gpu_nothing_is_measured_as_if_there_were_one(pack: Path, tmp_path: Path) -> None:
    done = program(pack / "run.py", "run", "--output", tmp_path / "data.json")
    assert done.returncode == 7
    assert "no GPU here" in done.stderr
