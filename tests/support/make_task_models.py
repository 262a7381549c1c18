"""`python -m tests.support.make_task_models DIRECTORY`: tiny seeded models with a head, and what transformers answers.

Runs in a process of its own: tests that build do not load torch for this.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from tests.support.answering import LENGTH, make

TAGS = {0: "O", 1: "B-PER", 2: "I-PER", 3: "B-LOC", 4: "I-LOC"}
TEXTS = ("A man is playing a guitar.", "Zürich and Geneva", "one two three four five six seven eight nine ten")


def main(root: Path) -> None:
    """Write the models into `root`, and their answers into `root`/expected.json."""
    tagger = make(root / "tagger", "ForTokenClassification", id2label=TAGS)
    words = transformers.AutoTokenizer.from_pretrained(tagger)
    find: Any = transformers.pipeline(
        "token-classification",
        model=transformers.BertForTokenClassification.from_pretrained(tagger),
        tokenizer=words,
        aggregation_strategy="simple",
    )
    entities = [[{**entry, "score": float(entry["score"])} for entry in find(text)] for text in TEXTS]
    ranker = make(root / "ranker", num_labels=1)
    # Each `make` trains a tokenizer of its own.
    words = transformers.AutoTokenizer.from_pretrained(ranker)
    rank = transformers.BertForSequenceClassification.from_pretrained(ranker).eval()
    pairs = list(zip(TEXTS, reversed(TEXTS), strict=True))
    with torch.inference_mode():
        rows = [words(*pair, truncation=True, max_length=LENGTH, return_tensors="pt") for pair in pairs]
        scores = [float(torch.sigmoid(rank(**row).logits[0, 0])) for row in rows]
    document = {"texts": TEXTS, "entities": entities, "pairs": pairs, "scores": scores}
    (root / "expected.json").write_text(json.dumps(document), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
