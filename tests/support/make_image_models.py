"""Make tiny seeded models of images with their processors, images of many kinds, and what transformers answers.

Run as `python -m tests.support.make_image_models DIRECTORY`.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

from ortc.frontend.samples.odd_images import odd_images, plain_images

LABELS = ("cat", "dog", "owl", "carp")
SIDE = 32


def classifier(directory: Path) -> None:
    """A ViT with four classes whose processor resizes, crops and normalizes."""
    import torch
    from transformers import CLIPImageProcessorPil, ViTConfig, ViTForImageClassification

    torch.manual_seed(3)
    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        image_size=SIDE,
        patch_size=8,
        initializer_range=0.4,
        id2label=dict(enumerate(LABELS)),
        label2id={label: index for index, label in enumerate(LABELS)},
    )
    ViTForImageClassification(config).save_pretrained(directory)
    CLIPImageProcessorPil(size={"shortest_edge": 40}, crop_size={"height": SIDE, "width": SIDE}).save_pretrained(
        directory
    )


MODELS = {"classifier": (classifier, "image-classification")}


def main(root: Path) -> None:
    """Write models, images, and expected.json with the answers by model and image."""
    import transformers

    warnings.simplefilter("ignore")
    images = root / "images"
    images.mkdir()
    for file in (*plain_images(), *odd_images()):
        (images / file.name).write_bytes(file.content)
    expected: dict[str, dict[str, Any]] = {}
    for name, (make, task) in MODELS.items():
        make(root / name)
        pipeline: Any = transformers.pipeline(task, model=str(root / name))
        expected[name] = {path.name: pipeline(str(path)) for path in sorted(images.iterdir())}
    (root / "expected.json").write_text(json.dumps(expected), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
