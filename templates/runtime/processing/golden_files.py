"""Golden images and sounds: files with what the model's own processor made of them."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from loading.errors import GoldenError, InputError
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .answers import Media


class Words(NamedTuple):
    """What a file and what it becomes are called; `field` has the file in a golden case, and `made` what it becomes."""

    file: str
    field: str
    made: str
    processor: str


WORDS: Mapping[str, Words] = {
    "image": Words("image", "image", "pixels", "image processor"),
    "audio": Words("sound", "audio", "features", "feature extractor"),
}


class Case(NamedTuple):
    """A file, and of what it becomes the shape and the value at every so many places."""

    name: str
    content: bytes
    shape: list[int]
    step: int
    values: NDArray[np.float32]
    answer: Any


def case_of(entry: Mapping[str, Any], words: Words) -> Case:
    """A golden file of answers.json.

    Raises:
        KeyError, TypeError, ValueError: it is malformed.
    """
    made = entry[words.made]
    return Case(
        str(entry["name"]),
        base64.b64decode(entry[words.field], validate=True),
        [int(size) for size in made["shape"]],
        int(made["step"]),
        np.asarray(made["values"], np.float32),
        entry["answer"],
    )


def check_file(media: Media, case: Case, words: Words, most: float) -> None:
    """Check that a golden file becomes what is recorded.

    Args:
        media: Makes the model's inputs.
        case: The file.
        words: What messages call it.
        most: How far a value may be off.

    Raises:
        GoldenError: it does not.
    """
    try:
        found = media.row(case.content).values
    except InputError as error:
        raise GoldenError(f"the golden {words.file} {case.name} is refused: {error}") from error
    if list(found.shape) != case.shape:
        raise GoldenError(
            f"the golden {words.file} {case.name} becomes {words.made} of shape {list(found.shape)}, the model's own "
            f"{words.processor} gave {case.shape}"
        )
    off = np.abs(found.ravel()[:: case.step] - case.values)
    if not off.max() <= most:
        raise GoldenError(
            f"the golden {words.file} {case.name} becomes other {words.made} than the model's own {words.processor} "
            f"gave: they differ by {off.max():.6g}, at most {most:g} is allowed"
        )
