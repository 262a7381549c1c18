"""The models as Hugging Face's library loads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def task_of(directory: Path) -> str:
    """`image-classification` or `feature-extraction`."""
    config = json.loads((directory / "config.json").read_text("utf-8"))
    return "image-classification" if config["model_type"] == "resnet" else "feature-extraction"


def load_model(directory: Path, *, attention: str) -> Any:
    """The model in fp32, ready for inference."""
    import transformers

    if task_of(directory) == "image-classification":
        model = transformers.AutoModelForImageClassification.from_pretrained(directory)
    else:
        # The pooler is no part of what is compared: nobody computes it.
        model = transformers.AutoModel.from_pretrained(
            directory, add_pooling_layer=False, attn_implementation=attention
        )
    return model.eval()
