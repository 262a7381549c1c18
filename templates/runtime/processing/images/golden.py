"""Golden images: files with pixels of what the model's own image processor made of them."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np
from loading.errors import GoldenError, InputError

from .inputs import Images

Case = tuple[str, bytes, Mapping[str, Any], Any]
"""The name of an image, its file, its pixels and its answer."""


def case_of(entry: Mapping[str, Any]) -> Case:
    """A golden image of answers.json.

    Raises:
        KeyError, TypeError, ValueError: it is malformed.
    """
    pixels = entry["pixels"]
    shape, values = [int(size) for size in pixels["shape"]], np.asarray(pixels["values"], np.float32)
    return (
        str(entry["name"]),
        base64.b64decode(entry["image"], validate=True),
        {"shape": shape, "values": values, "step": int(pixels["step"])},
        entry["answer"],
    )


def check_pixels(images: Images, case: Case, most: float) -> None:
    """Check that a golden image becomes the recorded pixels.

    Args:
        images: Makes the model's inputs.
        case: The image.
        most: How far a value may be off.

    Raises:
        GoldenError: it does not.
    """
    name, content, pixels, _ = case
    try:
        found = images.row(content).pixels
    except InputError as error:
        raise GoldenError(f"the golden image {name} is refused: {error}") from error
    if list(found.shape) != pixels["shape"]:
        raise GoldenError(
            f"the golden image {name} becomes pixels of shape {list(found.shape)}, the model's own image processor "
            f"gave {pixels['shape']}"
        )
    off = np.abs(found.ravel()[:: pixels["step"]] - pixels["values"])
    if not off.max() <= most:
        raise GoldenError(
            f"the golden image {name} becomes other pixels than the model's own image processor gave: they differ by "
            f"{off.max():.6g}, at most {most:g} is allowed"
        )
