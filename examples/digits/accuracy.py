"""The task metric of the digits network: the share of held-out images that it names right."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

Predict = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]

BATCH = 64
"""Images a call: the upper bound of the axis `batch` in specs/digits.yaml."""


def scale(images: np.ndarray) -> np.ndarray:
    """Model inputs, float32 [count, 1, 8, 8] from 0 to 1, of uint8 images [count, 8, 8] with levels from 0 to 16."""
    return (images[:, np.newaxis] / np.float32(16)).astype(np.float32)


def load_held_out() -> tuple[np.ndarray, np.ndarray]:
    """Held-out images, float32 [count, 1, 8, 8] from 0 to 1, and their labels, [count]."""
    with np.load(Path(__file__).with_name("heldout.npz")) as arrays:
        return scale(arrays["images"]), arrays["labels"]


def accuracy(predict: Predict) -> float:
    """Share of the held-out images, 0 to 1, whose greatest logit is the right digit.

    `predict` takes {"image": float32 [batch, 1, 8, 8]} and returns {"logits": float32 [batch, 10]}.
    """
    images, labels = load_held_out()
    right = 0
    for start in range(0, len(images), BATCH):
        logits = predict({"image": images[start : start + BATCH]})["logits"]
        right += int(np.sum(logits.argmax(axis=1) == labels[start : start + BATCH]))
    return right / len(labels)
