"""The task metric of the sentence encoder: do its similarities rank pairs of sentences as people do?

Pairs and grades are in `similar.tsv`: grade (5 says the same, 0 has nothing in common), sentence, sentence.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

Predict = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]

BATCH = 16
"""Sentences a call: the upper bound of the axis `batch` in specs/bert.yaml."""
LONGEST = 512
"""Tokens a sentence, more are cut off: the upper bound of the axis `sequence`."""


def load_pairs() -> tuple[np.ndarray, list[str], list[str]]:
    """Grades, float64 [pairs], and the two sentences of each pair."""
    lines = Path(__file__).with_name("similar.tsv").read_text(encoding="utf-8").splitlines()
    grades, first, second = zip(*(line.split("\t") for line in lines), strict=True)
    return np.array(grades, dtype=np.float64), list(first), list(second)


def spearman(predict: Predict, *, model_dir: Path) -> float:
    """Rank correlation, -1 to 1, between the grades and the cosines of mean-pooled embeddings.

    `predict` takes {"input_ids", "attention_mask"}, int64 [batch, sequence], and returns {"last_hidden_state"},
    float32 [batch, sequence, hidden]. `model_dir` holds the model's tokenizer.json.
    """
    grades, first, second = load_pairs()
    a, b = embed(predict, first, model_dir=model_dir), embed(predict, second, model_dir=model_dir)
    return rank_correlation(grades, np.sum(a * b, axis=1))


def embed(predict: Predict, sentences: Sequence[str], *, model_dir: Path) -> np.ndarray:
    """Embeddings of unit length, float64 [sentences, hidden]: the mean over each sentence's tokens."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model_dir / "tokenizer.json"))
    tokenizer.enable_truncation(LONGEST)
    tokenizer.enable_padding()
    rows = []
    for start in range(0, len(sentences), BATCH):
        encoded = tokenizer.encode_batch(list(sentences[start : start + BATCH]))
        ids = np.array([one.ids for one in encoded], dtype=np.int64)
        mask = np.array([one.attention_mask for one in encoded], dtype=np.int64)
        hidden = predict({"input_ids": ids, "attention_mask": mask})["last_hidden_state"].astype(np.float64)
        weights = mask[:, :, np.newaxis]
        rows.append(np.sum(hidden * weights, axis=1) / np.sum(weights, axis=1))
    pooled = np.concatenate(rows)
    embeddings: np.ndarray = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
    return embeddings


def rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's rho of two samples of equal length; equal values share the mean of their ranks."""
    return float(np.corrcoef(_ranks(x), _ranks(y))[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1, float64; n equal values all get the mean of the n ranks that they take up."""
    _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: np.ndarray = (last - (counts - 1) / 2)[index]
    return ranks
