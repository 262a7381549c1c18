"""Weights that are made anew elsewhere, and the page: what tests/gpu does that no GPU is needed for."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import ml_dtypes
import numpy as np
import pytest

ROOT = Path(__file__).parents[3]


def program(name: str) -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "tests" / "gpu"))
        return importlib.import_module(name)


seeding, packing, gpu_page = program("seeding"), program("packing"), program("gpu_page")
ARRAYS = {
    name: seeding.seeded(name, shape, 7)
    for name, shape in {
        "q.weight": [8, 6],
        "k.weight": [8, 6],
        "v.weight": [8, 6],
        "q.bias": [8],
        "k.bias": [8],
    }.items()
}


def model_of(arrays: dict[str, Any]) -> dict[str, Any]:
    entries = [{"name": n, "shape": list(a.shape), "sha256": seeding.digest(a)} for n, a in arrays.items()]
    return {"seed": 7, "parameters": entries}


def test_the_numbers_are_the_same_on_every_machine_and_in_every_version() -> None:
    """Committed digests: what numpy gives here is what it gave where they were written."""
    assert seeding.digest(seeding.seeded("embeddings.word_embeddings.weight", [100, 24], 1)) == MATRIX
    assert seeding.digest(seeding.seeded("embeddings.LayerNorm.weight", [24], 1)) == VECTOR


MATRIX = "0663829f0b58a745ad25df17686c3b7fb8ac273a385c9dd95db491ed3c192d5b"
VECTOR = "f442f3644b3d19da5f78420122d4a56db272209e4679f5f0a17b2fa12839e849"


def test_the_numbers_are_those_of_a_network() -> None:
    matrix = seeding.seeded("dense.weight", [512, 512], 1)
    assert matrix.dtype == np.float32
    assert abs(matrix.mean()) < 1e-3
    assert matrix.std() == pytest.approx(0.04, rel=0.01)
    # A normal distribution has 4.6 % beyond two deviations; a uniform one would have none.
    assert 0.03 < (np.abs(matrix) > 0.08).mean() < 0.06
    scale, bias = (seeding.seeded(f"LayerNorm.{part}", [4096], 1) for part in ("weight", "bias"))
    assert (scale.mean(), bias.mean()) == (pytest.approx(1, abs=0.01), pytest.approx(0, abs=0.01))
    assert not np.array_equal(matrix, seeding.seeded("other.weight", [512, 512], 1))
    assert not np.array_equal(matrix, seeding.seeded("dense.weight", [512, 512], 2))


def test_rounding_is_that_of_the_formats() -> None:
    numbers = np.concatenate(
        [seeding.seeded("a", [4096], 3), np.float32([0, -0.0, 1, 3.0e38, -1e-30, 1.00390625, 1.01171875])]
    )
    wanted = numbers.astype(ml_dtypes.bfloat16).view(np.uint16)
    np.testing.assert_array_equal(seeding.cast(numbers, "bfloat16"), wanted)
    np.testing.assert_array_equal(seeding.cast(ARRAYS["q.weight"], "float16"), ARRAYS["q.weight"].astype(np.float16))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(
    ("names", "turned", "axis"),
    [
        (["q.weight"], False, 0),
        (["v.weight"], True, 0),
        (["q.weight", "k.weight", "v.weight"], True, 1),
        (["k.weight", "q.weight"], False, 0),
        (["k.bias", "q.bias"], False, 0),
    ],
)
def test_what_variants_make_of_weights_is_found_and_made_again(
    dtype: str, names: list[str], turned: bool, axis: int
) -> None:
    parts = [ARRAYS[name].T if turned else ARRAYS[name] for name in names]
    weight = seeding.cast(np.ascontiguousarray(np.concatenate(parts, axis=axis)), dtype)
    recipe = packing.Origins(ARRAYS).recipe(weight, dtype)
    assert recipe is not None
    assert (recipe["of"], recipe["turned"], recipe["dtype"]) == (names, turned, dtype)
    again = seeding.Weights(model_of(ARRAYS)).tensor(json.loads(json.dumps(recipe)))
    assert again.tobytes() == weight.tobytes()
    # A shape says nothing of the bytes.
    assert packing.Origins(ARRAYS).recipe(weight.reshape(-1), dtype) == recipe or len(names) > 1


def test_a_weight_of_no_known_origin_has_no_recipe() -> None:
    origins = packing.Origins(ARRAYS)
    assert origins.recipe(ARRAYS["q.weight"] * np.float32(2), "float32") is None
    mixed = np.concatenate([ARRAYS["q.weight"], ARRAYS["k.weight"] + np.float32(1)])
    assert origins.recipe(mixed, "float32") is None


def test_a_machine_that_makes_other_numbers_is_told() -> None:
    model = model_of(ARRAYS)
    model["seed"] = 8
    with pytest.raises(ValueError, match=r"q\.weight comes out as [0-9a-f]{64} here, [0-9a-f]{64} was packed"):
        seeding.Weights(model)["q.weight"]


def test_a_file_is_put_together_from_blobs_and_weights(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    weight = np.ascontiguousarray(ARRAYS["q.weight"].T)
    content = b"head" + weight.tobytes() + b"tail"
    pieces: list[Any] = []
    for data in (b"head", b"tail"):
        pieces += packing._blob(tmp_path, data)
    pieces.insert(1, {"of": ["q.weight"], "turned": True, "dtype": "float32", "axis": 0})
    file = {"path": "model/model.onnx.data", "sha256": seeding.digest(content), "pieces": pieces}
    weights = seeding.Weights(model_of(ARRAYS))
    seeding.restore(tmp_path, {"stamp": 315532800, "files": [file]}, weights, tmp_path / "bundle")
    made = tmp_path / "bundle" / "model" / "model.onnx.data"
    assert made.read_bytes() == content
    assert made.stat().st_mtime == 315532800
    with pytest.raises(ValueError, match="was packed"):
        seeding.restore(tmp_path, {"stamp": 0, "files": [{**file, "sha256": "0" * 64}]}, weights, tmp_path / "other")


def test_every_variant_of_the_profiles_is_packed() -> None:
    found = packing.variants()
    assert {target for target, _ in found} == {"server-gpu", "server-gpu-tensorrt"}
    assert {"fp32", "fp32-tf32", "fp32-fused", "fp16-fused", "fp16"} <= {name for _, name in found}


def test_a_page_without_data_says_how_to_get_some(tmp_path: Path) -> None:
    assert "`make gpu`" in gpu_page.page(tmp_path)


DOCUMENT: dict[str, Any] = {
    "measured": "2026-05-01T12:00:00+00:00",
    "python": "3.12.3",
    "ortc": "0.1.0",
    "complete": False,
    "gpu": {"name": "A GPU", "driver_version": "580.1", "memory.total": "1 MiB", "compute_cap": "9.0"},
    "host": {"cpu": "A CPU"},
    "models": {
        "tiny": {
            "title": "A model",
            "reference": "torch-eager-fp32",
            "contenders": {
                "torch-eager-fp32": {
                    "title": "PyTorch eager, fp32",
                    "versions": {"torch": "2.11.0", "model": "transformers 5.17.0"},
                    "accuracy": {"max_abs": 0.0, "cosine": 1.0, "problem": None},
                    "start_seconds": [3.0, 5.0, 4.0],
                    "device_bytes": 2**30,
                    "copies": {},
                },
                "ortc-fp16-fused": {
                    "title": "ortc fp16-fused",
                    "versions": {"onnxruntime": "1.31.1"},
                    "accuracy": {"max_abs": 0.01, "cosine": 0.99999, "problem": None},
                    "golden": "golden case 'x' differs",
                    "placement": {"CUDAExecutionProvider": 40, "CPUExecutionProvider": 2},
                    "start_seconds": [0.5],
                    "device_bytes": 2**29,
                    "copies": {"MemcpyToHost": 3},
                },
                "ortc-tensorrt-fp32": {"title": "ortc tensorrt-fp32", "absent": "libnvinfer.so.10:\n no | such file"},
            },
            "races": [
                {
                    "batch": 1,
                    "sequence": 128,
                    "mode": "device",
                    "rounds": {
                        "torch-eager-fp32": [[4.0, 4.0], [8.0, 8.0]],
                        "ortc-fp16-fused": [[1.0, 1.0], [2.0, 2.0]],
                    },
                    "absent": {},
                }
            ],
        }
    },
}


def test_a_page_of_data(tmp_path: Path) -> None:
    (tmp_path / "a-gpu.json").write_text(json.dumps(DOCUMENT), "utf-8")
    text = gpu_page.page(tmp_path)
    assert "### A GPU, driver 580.1\n" in text
    assert "torch 2.11.0, BERT of transformers 5.17.0, onnxruntime 1.31.1; ortc 0.1.0." in text
    assert "before it was complete" in text
    assert "| ortc fp16-fused | 1.5 (4.00x) |\n" in text
    assert "| ortc fp16-fused | 1.0e-02 | 0.999990 | **wrong** | 2 of 42 | 3 | 0.50 | 512 MiB |\n" in text
    assert "| PyTorch eager, fp32 | 0.0e+00 | 1.000000 |  |  |  | 4.00 | 1024 MiB |\n" in text
    assert "- ortc tensorrt-fp32: libnvinfer.so.10: no / such file\n" in text
