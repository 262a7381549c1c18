"""Kinds of answers to images, and what each makes of the model's outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from loading.errors import InputError
from numpy.typing import NDArray

from .inputs import Images, Picture

Arrays = dict[str, NDArray[Any]]
FIELD = "image"


class ImageForm:
    """Answers to single images.

    Args:
        settings: `answer` of processing.json.
        images: Makes the model's inputs.
    """

    of_one_row = True
    """Whether the values of one row are all that an answer needs."""

    def __init__(self, settings: Mapping[str, Any], images: Images) -> None:
        self.images = images
        self.output = str(settings["output"])
        self.labels = tuple(str(label) for label in settings.get("labels", ()))

    def rows(self, entry: object, prompt: str | None) -> list[Picture]:
        """The picture of an image, or of {"image"}.

        Raises:
            InputError: the entry is of another form, or cannot be read.
        """
        if prompt:
            raise InputError("the model takes images and has no prompts.")
        if isinstance(entry, Mapping):
            if set(entry) != {FIELD}:
                raise InputError(f"a request has {sorted(map(str, entry))}. Expected {FIELD}.")
            entry = entry[FIELD]
        return [self.images.row(entry)]

    def most_rows(self, entry: object) -> int:
        """Every image is one row."""
        del entry
        return 1

    def check(self, rows: Sequence[Picture]) -> None:
        """Refuse rows that have no answer; every image has one."""

    def values(self, outputs: Arrays, index: int, row: Picture) -> Any:
        """What the answer needs of one row of the outputs."""
        del row
        return np.array(outputs[self.output][index])

    def answer(self, entry: Any, rows: Sequence[Picture], values: Sequence[Any]) -> Any:
        """The answer to an image, by the values of its row."""
        raise NotImplementedError


class ImageEmbedding(ImageForm):
    """A vector [hidden]."""

    def answer(self, entry: Any, rows: Sequence[Picture], values: Sequence[Any]) -> Any:
        """The vector of the image."""
        return values[0].reshape(-1)


class ImageLabels(ImageForm):
    """All classes with their scores."""

    def answer(self, entry: Any, rows: Sequence[Picture], values: Sequence[Any]) -> Any:
        """Classes as {"label", "score"}, the highest score first."""
        scored = [{"label": name, "score": float(score)} for name, score in zip(self.labels, values[0], strict=True)]
        return sorted(scored, key=lambda entry: -entry["score"])


FORMS: Mapping[str, type[ImageForm]] = {"embedding": ImageEmbedding, "labels": ImageLabels}
