"""The task metric of the classifier: the share of held-out texts that it labels right."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

Predict = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


def accuracy(predict: Predict, *, model_dir: Path) -> float:
    """Return the share of the texts in heldout.tsv, 0 to 1, whose highest score is of the right label.

    `predict` takes the model's tensors, int64 [1, sequence] here, and returns {"probabilities"}, float32 [1, labels].
    `model_dir` holds the files of the model.
    """
    tokenizer = Tokenizer.from_file(str(model_dir / "tokenizer.json"))
    labels = json.loads((model_dir / "config.json").read_bytes())["id2label"]
    lines = Path(__file__).with_name("heldout.tsv").read_text("utf-8").splitlines()
    right = 0
    for expected, text in (line.split("\t") for line in lines):
        encoded = tokenizer.encode(text)
        tensors = {
            "input_ids": encoded.ids,
            "attention_mask": encoded.attention_mask,
            "token_type_ids": encoded.type_ids,
        }
        scores = predict({name: np.array([values], dtype=np.int64) for name, values in tensors.items()})
        right += labels[str(scores["probabilities"].argmax())] == expected
    return right / len(lines)
