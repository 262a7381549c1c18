"""Images to a model's inputs, as its own image processor makes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from loading.errors import FormatError, InputError
from numpy.typing import NDArray

from .decoding import check_package, decoded, size_of
from .steps import steps_of
from .structure import MOST_METADATA

CHANNELS = 3
SOURCE_BYTES = 24  # of a pixel as it is decoded, turned and converted: WebP's decoder takes 22
STEP_BYTES = 48  # of a pixel while a step makes another of it: float64 and float32 of three channels
UNBOUNDED = 2**31 - 1
Shapes = Mapping[str, tuple[Sequence[str | int | None], np.dtype[Any]]]
Bounds = Mapping[str, tuple[int, int, int]]


@dataclass(frozen=True)
class Picture:
    """One image as the model takes it, [3, height, width], and the height and width of the image that was sent."""

    pixels: NDArray[np.float32]
    size: tuple[int, int]

    @property
    def values(self) -> NDArray[np.float32]:
        """The pixels, as rows of any kind name what the model takes."""
        return self.pixels


class Images:
    """Makes a model's inputs of images.

    Args:
        settings: `image` of processing.json.
        inputs: Shapes and types of the model's inputs by name.
        bounds: Least size, greatest size and step of each axis by name.

    Raises:
        FormatError: the settings are malformed, or the model takes something else than images.
        RuntimeVersionError: Pillow is not installed.
    """

    takes = "image"

    def __init__(self, settings: Mapping[str, Any], inputs: Shapes, bounds: Bounds) -> None:
        name, mask = str(settings["input"]), settings.get("mask")
        if set(inputs) != {name} | ({mask} if mask else set()) or len(inputs[name][0]) != 4:
            raise FormatError(f"the model takes {sorted(inputs)}, expected {name} of four dimensions")
        self._name, self._mask = name, mask
        self._dtypes = {key: dtype for key, (_, dtype) in inputs.items()}
        self._axes = tuple(_bounds(entry, bounds) for entry in inputs[name][0])
        if not self._axes[1][0] <= CHANNELS <= self._axes[1][1]:
            raise FormatError(f"{name} does not have {CHANNELS} channels")
        self._steps = steps_of(settings["steps"])
        check_package()

    @property
    def most_rows(self) -> int:
        """The most images of one run."""
        return self._axes[0][1]

    @property
    def row_bytes(self) -> int:
        """The most bytes that one image has as the model takes it."""
        return 4 * CHANNELS * self._axes[2][1] * self._axes[3][1]

    def row(self, content: object) -> Picture:
        """The pixels of a file's bytes, or of an array [height, width, channels].

        Raises:
            InputError: it is no image, or the model takes none of its size.
        """
        picture: NDArray[Any] = decoded(content)
        size = (picture.shape[0], picture.shape[1])
        for step in self._steps:
            picture = step.apply(picture)
        self._check(picture.shape[0], picture.shape[1], size)
        return Picture(np.ascontiguousarray(picture.transpose(2, 0, 1), np.float32), size)

    def memory(self, content: object) -> int:
        """The bytes that reading a file takes at most, as far as its first bytes tell.

        Raises:
            InputError: it is no image, or too large.
        """
        height, width = size_of(content)
        return MOST_METADATA + SOURCE_BYTES * height * width + max(self._work(height, width), self._work(width, height))

    def _work(self, height: int, width: int) -> int:
        """The bytes that the steps take."""
        most = 0
        for step in self._steps:
            try:
                height, width = step.sides(height, width)
            except InputError:
                return most  # nothing is made of it, unless it stands upright
            most = max(most, STEP_BYTES * height * width)
        return most

    def _check(self, height: int, width: int, size: tuple[int, int]) -> None:
        for what, found, (least, most, step) in zip(("height", "width"), (height, width), self._axes[2:], strict=True):
            if not least <= found <= most or found % step:
                raise InputError(
                    f"an image of {size[1]} x {size[0]} pixels becomes one of {width} x {height}, and the model takes "
                    f"a {what} of {least} to {most}. Send an image of another size."
                )

    def inputs(self, rows: Sequence[Picture]) -> dict[str, NDArray[Any]]:
        """The model's inputs for pictures of one size."""
        found = {self._name: np.stack([row.pixels for row in rows]).astype(self._dtypes[self._name])}
        if self._mask:
            shape = (len(rows), *rows[0].pixels.shape[1:])
            found[self._mask] = np.ones(shape, self._dtypes[self._mask])
        return found

    def runs(self, rows: Sequence[Picture], most: int) -> Iterator[list[int]]:
        """Places of pictures that share a run: those of one size."""
        places: dict[tuple[int, ...], list[int]] = {}
        for place, row in enumerate(rows):
            places.setdefault(row.pixels.shape, []).append(place)
        for alike in places.values():
            for start in range(0, len(alike), most):
                yield alike[start : start + most]


def _bounds(entry: str | int | None, bounds: Bounds) -> tuple[int, int, int]:
    if isinstance(entry, int):
        return entry, entry, 1
    return (1, UNBOUNDED, 1) if entry is None else bounds[entry]
