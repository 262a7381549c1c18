"""Tiny real bundles that answer sounds: one convolution over the samples, whose outputs are scores of letters."""

from __future__ import annotations

import base64
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tests.support import bundles

from ortc.frontend.samples.odd_sounds import Bits, wav

RATE, STEP, BATCH = 8000, 100, 4
LEAST, MOST = 400, 4000
LETTERS = ("<pad>", "|", "a", "b", "c", "d")
SPELLING = {"tokens": LETTERS, "blank": 0, "delimiter": "|", "space": " ", "lower_case": False, "clean_up": False}


def weights() -> NDArray[np.float32]:
    """[letters, 1, samples], seeded."""
    return np.random.default_rng(5).standard_normal((len(LETTERS), 1, STEP)).astype(np.float32)


def model() -> onnx.ModelProto:
    """logits [batch, moments, letters] of input_values [batch, samples]."""
    graph = helper.make_graph(
        [
            helper.make_node("Unsqueeze", ["input_values", "one"], ["waves"], name="waves"),
            helper.make_node("Conv", ["waves", "w"], ["scores"], strides=[STEP], name="conv"),
            helper.make_node("Transpose", ["scores"], ["logits"], perm=[0, 2, 1], name="transpose"),
        ],
        "letters",
        [helper.make_tensor_value_info("input_values", TensorProto.FLOAT, ["batch", "samples"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "moments", len(LETTERS)])],
        [numpy_helper.from_array(np.array([1], np.int64), "one"), numpy_helper.from_array(weights(), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def sound(seed: int, count: int, rate: int = RATE, bits: Bits = 16) -> bytes:
    """Noise as a file."""
    return wav(np.random.default_rng(seed).uniform(-0.9, 0.9, count), rate, bits)


def logits_of(values: NDArray[Any]) -> NDArray[Any]:
    """The scores of samples, [moments, letters]."""
    whole = len(values) // STEP
    rows: NDArray[Any] = values[: whole * STEP].reshape(whole, STEP) @ weights()[:, 0].T
    return rows


def text_of(values: NDArray[Any]) -> str:
    """The transcript of samples."""
    kept = [LETTERS[token] for token, _ in itertools.groupby(logits_of(values).argmax(axis=1)) if token]
    return "".join(kept).replace("|", " ").strip()


def values_of(content: bytes) -> NDArray[Any]:
    """The samples of a file as the model takes them, by the modules of the runtime."""
    module = bundles.runtime_module("processing.audio.inputs")
    inputs = {"input_values": (("batch", "samples"), np.dtype(np.float32))}
    settings = {"input": "input_values", "rate": RATE, "features": {"kind": "wave", "normalize": False}}
    source = module.Audio(settings, inputs, {"batch": (1, BATCH, 1), "samples": (LEAST, MOST, 1)})
    made: NDArray[Any] = source.row(content).values
    return made


def write(root: Path, name: str = "letters") -> Path:
    """The bundle as a directory."""
    made = bundles.text()
    made.model = model()
    made.manifest |= {
        "name": name,
        "inputs": [{"name": "input_values", "dtype": "float32", "shape": ["batch", "samples"], "range": None}],
        "outputs": [{"name": "logits", "dtype": "float32", "shape": ["batch", None, len(LETTERS)]}],
        "axes": [
            {"name": "batch", "min": 1, "typical": 1, "max": BATCH},
            {"name": "samples", "min": LEAST, "typical": LEAST, "max": MOST},
        ],
        "warmup": [{"batch": 1, "samples": LEAST}],
        "processing": {
            "document": "processing/processing.json",
            "takes": "audio",
            "tokenizer": None,
            "kind": "transcript",
            "golden": {
                "file": "golden/answers.json",
                "tolerance": {"cosine": 0.9999, "token_errors": 0.0, "features": 1e-4},
            },
        },
    }
    for case in made.manifest["golden"]:
        case["mask"] = None
    random = np.random.default_rng(0)
    made.golden = [{"input_values": random.uniform(-1, 1, (2, 500)).astype(np.float32)}]
    made.write(root)
    (root / "processing").mkdir()
    document = {
        "format_version": 1,
        "task": "ctc",
        "audio": {"input": "input_values", "rate": RATE, "features": {"kind": "wave", "normalize": False}},
        "answer": {"kind": "transcript", "output": "logits", "labels": [], "spelling": SPELLING},
    }
    bundles.write_json(root / "processing/processing.json", document)
    files = {"short.wav": sound(1, 900), "other-rate.wav": sound(2, 3000, 16_000)}
    cases = [_case(name, content) for name, content in files.items()]
    (root / "golden/answers.json").write_text(json.dumps({"format_version": 1, "cases": cases}), "utf-8")
    return bundles.seal(root)


def _case(name: str, content: bytes) -> dict[str, Any]:
    values = values_of(content)
    return {
        "name": name,
        "audio": base64.b64encode(content).decode(),
        "features": {"shape": list(values.shape), "step": 3, "values": values[::3].tolist()},
        "answer": {"text": text_of(values)},
    }
