"""Image processors of transformers: which of them a bundle reproduces, by their names."""

from __future__ import annotations

from ortc.inspection.repository import Repository

IMAGE_PROCESSOR = "preprocessor_config.json"
"""The file that says how the model's images are prepared."""
REPRODUCED = frozenset(
    (
        *("Beit", "Bit", "Blip", "Chameleon", "ChineseCLIP", "CLIP", "ConvNext", "DeiT", "EfficientNet", "Levit"),
        *("Detr", "DPT", "GLPN", "Yolos"),
        *("MobileNetV1", "MobileNetV2", "MobileViT", "OwlViT", "PoolFormer", "Pvt", "Segformer", "Siglip", "ViT"),
    )
)
"""Image processors of transformers that have a form as steps, by the beginning of their names."""
ENDINGS = ("ImageProcessorFast", "ImageProcessorPil", "ImageProcessor", "FeatureExtractor")
"""Ends of the names of image processors, of all backends and ages."""


def family_of(name: str) -> str:
    """Return the beginning of an image processor's name, which is the same for all backends and ages."""
    ending = next((ending for ending in ENDINGS if name.endswith(ending)), "")
    return name.removesuffix(ending)


def unreproduced(repository: Repository) -> str | None:
    """Return the name of a repository's image processor where it is not reproduced, as far as a file here names it."""
    config = repository.mapping(IMAGE_PROCESSOR)
    name = config.get("image_processor_type") or config.get("feature_extractor_type")
    return name if isinstance(name, str) and family_of(name) not in REPRODUCED else None
