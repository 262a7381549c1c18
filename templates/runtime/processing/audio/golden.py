"""Golden sounds: files with features of what the model's own feature extractor made of them."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np
from loading.errors import GoldenError, InputError

from .inputs import Audio

Case = tuple[str, bytes, Mapping[str, Any], Any]
"""The name of a sound, its file, its features and its answer."""


def case_of(entry: Mapping[str, Any]) -> Case:
    """A golden sound of answers.json.

    Raises:
        KeyError, TypeError, ValueError: it is malformed.
    """
    features = entry["features"]
    shape, values = [int(size) for size in features["shape"]], np.asarray(features["values"], np.float32)
    return (
        str(entry["name"]),
        base64.b64decode(entry["audio"], validate=True),
        {"shape": shape, "values": values, "step": int(features["step"])},
        entry["answer"],
    )


def check_features(audio: Audio, case: Case, most: float) -> None:
    """Check that a golden sound becomes the recorded features.

    Args:
        audio: Makes the model's inputs.
        case: The sound.
        most: How far a value may be off.

    Raises:
        GoldenError: it does not.
    """
    name, content, features, _ = case
    try:
        found = audio.row(content).values
    except InputError as error:
        raise GoldenError(f"the golden sound {name} is refused: {error}") from error
    if list(found.shape) != features["shape"]:
        raise GoldenError(
            f"the golden sound {name} becomes features of shape {list(found.shape)}, the model's own feature extractor "
            f"gave {features['shape']}"
        )
    off = np.abs(found.ravel()[:: features["step"]] - features["values"])
    if not off.max() <= most:
        raise GoldenError(
            f"the golden sound {name} becomes other features than the model's own feature extractor gave: they differ "
            f"by {off.max():.6g}, at most {most:g} is allowed"
        )
