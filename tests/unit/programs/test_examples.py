"""The examples' data is well-formed, their metrics compute what they say, and the specs name these very bytes."""

import hashlib
import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

ROOT = Path(__file__).parents[3]

Arrays = dict[str, NDArray[Any]]


@pytest.fixture
def sts(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("examples.bert.sts")


@pytest.fixture
def digits(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("examples.digits.accuracy")


def read_spec(name: str) -> dict[str, Any]:
    spec: dict[str, Any] = yaml.safe_load((ROOT / "specs" / f"{name}.yaml").read_text(encoding="utf-8"))
    return spec


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# --- rank correlation ---


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        ([1, 2, 3, 4], [10, 20, 30, 40], 1.0),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1.0),
        ([1, 2, 3, 4], [1, 3, 2, 4], 0.8),
        ([1, 2, 3, 4], [1, 8, 27, 64000], 1.0),
        ([1, 2, 2, 3], [1, 2, 3, 4], 0.9**0.5),
    ],
)
def test_rank_correlation_of_known_data(sts: ModuleType, x: list[float], y: list[float], expected: float) -> None:
    assert sts.rank_correlation(np.array(x), np.array(y)) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(5))
def test_rank_correlation_is_that_of_scipy(sts: ModuleType, seed: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    generator = np.random.default_rng(seed)
    x = generator.integers(0, 6, size=50).astype(np.float64)
    y = x + generator.normal(scale=2, size=50).round(1)
    assert sts.rank_correlation(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)


# --- the sentence encoder's metric ---


@pytest.fixture
def model_dir(sts: ModuleType, tmp_path: Path) -> Path:
    """A directory with a tokenizer that knows every word of the pairs."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    _, first, second = sts.load_pairs()
    split = pre_tokenizers.Whitespace()
    words = sorted({word for text in [*first, *second] for word, _ in split.pre_tokenize_str(text)})
    vocabulary = {word: index for index, word in enumerate(["[PAD]", "<unk>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary))
    tokenizer.pre_tokenizer = split
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


class BagOfWords:
    """A model whose hidden state at a token depends on the token alone, with `padding` where the mask is 0."""

    def __init__(self, padding: float) -> None:
        self.padding = padding
        self.table = np.random.default_rng(0).standard_normal((4000, 64)).astype(np.float32)
        self.calls: list[Arrays] = []

    def __call__(self, inputs: Arrays) -> Arrays:
        self.calls.append(inputs)
        hidden = self.table[inputs["input_ids"]]
        hidden[inputs["attention_mask"] == 0] = self.padding
        return {"last_hidden_state": hidden}


def test_spearman_of_shared_words_is_between_nothing_and_perfect(sts: ModuleType, model_dir: Path) -> None:
    assert 0.3 < sts.spearman(BagOfWords(padding=0), model_dir=model_dir) < 0.9


def test_spearman_ignores_padding(sts: ModuleType, model_dir: Path) -> None:
    clean = sts.spearman(BagOfWords(padding=0), model_dir=model_dir)
    assert sts.spearman(BagOfWords(padding=1e6), model_dir=model_dir) == clean


def test_spearman_stays_within_the_declared_axes(sts: ModuleType, model_dir: Path) -> None:
    axes = read_spec("bert")["export"]["dynamic_axes"]
    assert (axes["batch"]["max"], axes["sequence"]["max"]) == (sts.BATCH, sts.LONGEST)
    model = BagOfWords(padding=0)
    sts.embed(model, ["one word " * 2000, *["short"] * sts.BATCH], model_dir=model_dir)
    shapes = [call["input_ids"].shape for call in model.calls]
    assert shapes == [(sts.BATCH, sts.LONGEST), (1, 1)]
    assert all(array.dtype == np.int64 for call in model.calls for array in call.values())


def test_embeddings_have_unit_length(sts: ModuleType, model_dir: Path) -> None:
    _, first, _ = sts.load_pairs()
    embeddings = sts.embed(BagOfWords(padding=0), first[:20], model_dir=model_dir)
    assert embeddings.shape == (20, 64)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1)


def test_pairs_are_well_formed_and_cover_the_scale(sts: ModuleType) -> None:
    grades, first, second = sts.load_pairs()
    assert len(grades) >= 120
    assert grades.min() == 0
    assert grades.max() == 5
    assert np.histogram(grades, bins=[0, 1, 2, 3, 4, 5.1])[0].min() >= 15
    pairs = list(zip(first, second, strict=True))
    assert len({frozenset(pair) for pair in pairs}) == len(pairs)
    assert all(text == text.strip() and text for pair in pairs for text in pair)


def test_sentences_are_many_and_of_many_lengths() -> None:
    lines = (ROOT / "examples/bert/sentences.txt").read_text(encoding="utf-8").splitlines()
    words = sorted(len(line.split()) for line in lines)
    assert len(set(lines)) == len(lines) >= 200
    assert all(line == line.strip() for line in lines)
    assert words[0] == 3
    assert 100 <= words[-1] <= 130
    assert any(not line.isascii() for line in lines)


# --- digits ---


def test_accuracy_counts_right_answers(digits: ModuleType) -> None:
    images, labels = digits.load_held_out()
    answers = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}

    def predict(inputs: Arrays, offset: int) -> Arrays:
        right = np.array([answers[image.tobytes()] for image in inputs["image"]])
        return {"logits": np.eye(10, dtype=np.float32)[(right + offset) % 10]}

    assert digits.accuracy(lambda inputs: predict(inputs, 0)) == 1.0
    assert digits.accuracy(lambda inputs: predict(inputs, 1)) == 0.0


def test_accuracy_shows_every_image_once_within_the_declared_axes(digits: ModuleType) -> None:
    axes = read_spec("digits")["export"]["dynamic_axes"]
    assert axes["batch"]["max"] == digits.BATCH
    seen: list[NDArray[Any]] = []

    def predict(inputs: Arrays) -> Arrays:
        seen.append(inputs["image"])
        return {"logits": np.zeros((len(inputs["image"]), 10), dtype=np.float32)}

    digits.accuracy(predict)
    assert max(map(len, seen)) == digits.BATCH
    np.testing.assert_array_equal(np.concatenate(seen), digits.load_held_out()[0])


def test_samples_of_digits_fit_the_spec_and_are_not_held_out(digits: ModuleType) -> None:
    spec = read_spec("digits")
    with np.load(ROOT / spec["accuracy"]["samples"]) as arrays:
        assert set(arrays) == set(spec["export"]["inputs"])
        image = arrays["image"]
    assert image.dtype == np.float32
    assert image.shape[1:] == (1, 8, 8)
    assert image.min() == 0
    assert image.max() == 1
    held_out = {one.tobytes() for one in digits.load_held_out()[0]}
    assert held_out.isdisjoint(one.tobytes() for one in image)


# --- digests ---


def test_digits_weights_are_the_spec_s_and_small() -> None:
    model = read_spec("digits")["model"]
    weights = ROOT / model["weights"]
    assert sha256(weights) == model["sha256"]
    assert weights.stat().st_size < 500_000


def test_bert_base_configuration_is_the_spec_s() -> None:
    model = read_spec("bert-base")["model"]
    assert model["mirrors"] == ["path:examples/bert-base"]
    assert sha256(ROOT / "examples/bert-base/config.json") == model["files"]["config.json"]
