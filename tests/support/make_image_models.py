"""Make tiny seeded models of images with their processors, images of many kinds, and what transformers answers.

Run as `python -m tests.support.make_image_models DIRECTORY`.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

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


def embedder(directory: Path) -> None:
    """A ResNet without a head, with the processor of ConvNeXT."""
    import torch
    from transformers import ConvNextImageProcessorPil, ResNetConfig, ResNetModel

    torch.manual_seed(4)
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    ResNetModel(config).save_pretrained(directory)
    ConvNextImageProcessorPil(size={"shortest_edge": SIDE}, crop_pct=0.875).save_pretrained(directory)


def detector(directory: Path) -> None:
    """A YOLOS for images of one size, with scores on both sides of the threshold."""
    import torch
    from transformers import YolosConfig, YolosForObjectDetection, YolosImageProcessorPil

    torch.manual_seed(5)
    fields: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 16}
    config = YolosConfig(
        intermediate_size=48,
        image_size=[48, 64],
        num_detection_tokens=12,
        use_mid_position_embeddings=False,
        initializer_range=0.3,
        id2label=dict(enumerate(LABELS)),
        label2id={label: index for index, label in enumerate(LABELS)},
        **fields,
    )
    model = YolosForObjectDetection(config)
    with torch.no_grad():
        for value in model.class_labels_classifier.parameters():
            value.mul_(2.0)
    model.save_pretrained(directory)
    YolosImageProcessorPil(size={"height": 48, "width": 64}).save_pretrained(directory)


def divider(directory: Path) -> None:
    """A SegFormer for images of one size."""
    import torch
    from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessorPil

    torch.manual_seed(6)
    config = SegformerConfig(
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[2, 1],
        hidden_sizes=[8, 16],
        patch_sizes=[7, 3],
        strides=[4, 2],
        num_attention_heads=[1, 2],
        mlp_ratios=[2, 2],
        decoder_hidden_size=16,
        image_size=64,
        initializer_range=0.5,
        id2label=dict(enumerate(LABELS)),
        label2id={label: index for index, label in enumerate(LABELS)},
    )
    SegformerForSemanticSegmentation(config).save_pretrained(directory)
    SegformerImageProcessorPil(size={"height": 64, "width": 64}).save_pretrained(directory)


def estimator(directory: Path) -> None:
    """A Depth Anything for images of one size, whose sides become multiples of 14."""
    import torch
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config, DPTImageProcessorPil

    torch.manual_seed(7)
    backbone = Dinov2Config(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        mlp_ratio=2,
        image_size=42,
        patch_size=14,
        initializer_range=0.2,
        out_indices=[1, 2],
        apply_layernorm=True,
        reshape_hidden_states=False,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=16,
        reassemble_factors=[2, 1],
        neck_hidden_sizes=[8, 8],
        fusion_hidden_size=8,
        head_hidden_size=8,
        initializer_range=0.2,
        head_in_index=-1,
    )
    DepthAnythingForDepthEstimation(config).save_pretrained(directory)
    DPTImageProcessorPil(size={"height": 45, "width": 41}, ensure_multiple_of=14).save_pretrained(directory)


MODELS = {
    "classifier": (classifier, "image-classification"),
    "embedder": (embedder, "image-feature-extraction"),
    "detector": (detector, "object-detection"),
    "divider": (divider, "semantic-segmentation"),
    "estimator": (estimator, "depth-estimation"),
}


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
        if task == "semantic-segmentation":
            continue  # its masks are images, which the unit tests compare
        pipeline: Any = transformers.pipeline(task, model=str(root / name))
        if task == "depth-estimation":
            pictures = {path.name: np.asarray(pipeline(str(path))["depth"]) for path in sorted(images.glob("plain-*"))}
            expected[name] = {file: picture.tolist() for file, picture in pictures.items()}
            continue
        pooled = {"pool": True} if task == "image-feature-extraction" else {}
        expected[name] = {path.name: pipeline(str(path), **pooled) for path in sorted(images.iterdir())}
    (root / "expected.json").write_text(json.dumps(expected), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
