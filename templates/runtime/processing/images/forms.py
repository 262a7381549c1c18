"""Kinds of answers to images, and what each makes of the model's outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from loading.errors import InputError
from numpy.typing import NDArray

from .inputs import Images, Picture

Arrays = dict[str, NDArray[Any]]
FIELD, THRESHOLD = "image", "threshold"
SHOWN = 60  # characters of a value that a message shows
SIDES = ("xmin", "ymin", "xmax", "ymax")


class ImageForm:
    """Answers to single images.

    Args:
        settings: `answer` of processing.json.
        images: Makes the model's inputs.
    """

    of_one_row = True
    """Whether the values of one row are all that an answer needs."""
    settings: tuple[str, ...] = ()
    """What a request may say besides its image."""

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
            if FIELD not in entry or not set(entry) <= {FIELD, *self.settings}:
                raise InputError(
                    f"a request has {sorted(map(str, entry))}. Expected {', '.join((FIELD, *self.settings))}."
                )
            self.check_settings(entry)
            entry = entry[FIELD]
        return [self.images.row(entry)]

    def check_settings(self, entry: Mapping[Any, Any]) -> None:
        """Refuse a setting of a request; InputError says why."""

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


class Boxes(ImageForm):
    """The objects of an image, with boxes in pixels of the image that was sent."""

    of_one_row = False
    settings = (THRESHOLD,)

    def __init__(self, settings: Mapping[str, Any], images: Images) -> None:
        super().__init__(settings, images)
        self._boxes, self._threshold = str(settings["boxes"]), float(settings["threshold"])

    def check_settings(self, entry: Mapping[Any, Any]) -> None:
        """Refuse a threshold that is no score."""
        value = entry.get(THRESHOLD, self._threshold)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise InputError(f"the threshold of a request is {str(value)[:SHOWN]}. Expected a score from 0 to 1.")

    def values(self, outputs: Arrays, index: int, row: Picture) -> Any:
        """Scores [objects, classes and none], and centers with sizes [objects, 4]."""
        del row
        return np.array(outputs[self.output][index]), np.array(outputs[self._boxes][index])

    def answer(self, entry: Any, rows: Sequence[Picture], values: Sequence[Any]) -> Any:
        """Objects as {"score", "label", "box": {"xmin", "ymin", "xmax", "ymax"}}, in the order of the model."""
        (scores, boxes), (height, width) = values[0], rows[0].size
        least = float(entry.get(THRESHOLD, self._threshold)) if isinstance(entry, Mapping) else self._threshold
        # The last class is for nothing at all.
        sure, classes = scores[:, :-1].max(axis=1), scores[:, :-1].argmax(axis=1)
        center, half = boxes[:, :2], np.float32(0.5) * boxes[:, 2:]
        corners = np.concatenate([center - half, center + half], axis=1)
        pixels = (corners * np.array([width, height, width, height], np.float32)).astype(np.int64)
        return [
            {
                "score": float(sure[place]),
                "label": self.labels[classes[place]],
                "box": dict(zip(SIDES, map(int, pixels[place]), strict=True)),
            }
            for place in np.flatnonzero(sure > least)
        ]
