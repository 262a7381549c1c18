"""What a model's image processor does with a picture, one step after the other, on Pillow and numpy.

The arithmetic is that of transformers' processors on Pillow: pixels are resized as integers of 8 bits, and rescaled in
float64, which is rounded to float32 before anything else is done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from loading.errors import FormatError, InputError
from numpy.typing import NDArray

Picture = NDArray[Any]
Sides = Callable[[int, int], tuple[int, int]]
FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""Filters by the numbers that Pillow gives them."""
MOST_RESIZED = 2**22
"""Most pixels of an image that was resized: no model takes as many, and another ratio of its sides asks for more."""


@dataclass(frozen=True)
class Step:
    """A step: what it makes of a picture [height, width, channels], and of its sides without looking at the picture.

    `sides` raises InputError where the result would be too large.
    """

    apply: Callable[[Picture], Picture]
    sides: Sides


def steps_of(settings: Sequence[Mapping[str, Any]]) -> tuple[Step, ...]:
    """The steps of processing.json.

    Raises:
        FormatError: a step is unknown.
        KeyError, TypeError, ValueError: a step is malformed.
    """
    return tuple(_step(entry) for entry in settings)


def _step(entry: Mapping[str, Any]) -> Step:
    match entry["op"]:
        case "resize":
            return _resize(entry)
        case "center_crop":
            height, width = int(entry["height"]), int(entry["width"])
            return Step(_center_crop(height, width), lambda _, __: (height, width))
        case "flip_channels":
            return Step(lambda picture: picture[..., ::-1], _same)
        case "rescale":
            return Step(_rescale(float(entry["factor"]), float(entry["offset"])), _same)
        case "normalize":
            return Step(_normalize(entry["mean"], entry["std"]), _same)
    raise FormatError(f"the step {entry['op']!r} is unknown")


def _same(height: int, width: int) -> tuple[int, int]:
    return height, width


def _resize(entry: Mapping[str, Any]) -> Step:
    number, size = FILTERS.index(entry["filter"]), {str(key): int(value) for key, value in entry["size"].items()}
    sides = SIZES[frozenset(size)]

    def bounded(height: int, width: int) -> tuple[int, int]:
        found = sides(height, width, **size)
        if min(found) < 1 or found[0] * found[1] > MOST_RESIZED:
            raise InputError(
                f"an image of {width} x {height} pixels becomes one of {found[1]} x {found[0]}. Expected 1 to "
                f"{MOST_RESIZED} pixels; send an image whose sides differ less."
            )
        return found

    def resize(picture: Picture) -> Picture:
        from PIL import Image

        height, width = bounded(picture.shape[0], picture.shape[1])
        made = Image.fromarray(np.ascontiguousarray(picture))
        return np.asarray(made.resize((width, height), Image.Resampling(number)))

    return Step(resize, bounded)


def _exact(_: int, __: int, *, height: int, width: int) -> tuple[int, int]:
    return height, width


def _shortest(height: int, width: int, *, shortest_edge: int) -> tuple[int, int]:
    """The shorter side has a size, and the other keeps the ratio."""
    long = int(shortest_edge * max(height, width) / min(height, width))
    return (long, shortest_edge) if width <= height else (shortest_edge, long)


def _between(
    height: int, width: int, *, shortest_edge: int, longest_edge: int, multiple_of: int = 1
) -> tuple[int, int]:
    """The shorter side has a size, unless the longer one would exceed its own; both are cut to a multiple."""
    found = _of_ratio(height, width, shortest_edge, longest_edge)
    return found[0] // multiple_of * multiple_of, found[1] // multiple_of * multiple_of


def _of_ratio(height: int, width: int, shortest_edge: int, longest_edge: int) -> tuple[int, int]:
    size, exact = shortest_edge, float(shortest_edge)
    low, high = float(min(height, width)), float(max(height, width))
    if high / low * shortest_edge > longest_edge:
        exact = longest_edge * low / high
        size = round(exact)
    if min(height, width) == size:
        return height, width
    if width < height:
        return int(exact * height / width), size
    return size, int(exact * width / height)


def _within(height: int, width: int, *, max_height: int, max_width: int) -> tuple[int, int]:
    """The largest sizes of the same ratio within two bounds."""
    scale = min(max_height / height, max_width / width)
    return int(height * scale), int(width * scale)


def _near_multiple(height: int, width: int, *, near_height: int, near_width: int, multiple_of: int) -> tuple[int, int]:
    """The same ratio, by the side that changes less; both sides become the nearest multiple."""
    down, along = near_height / height, near_width / width
    scale = along if abs(1 - along) < abs(1 - down) else down
    return round(scale * height / multiple_of) * multiple_of, round(scale * width / multiple_of) * multiple_of


def _cut_to(height: int, width: int, *, multiple_of: int) -> tuple[int, int]:
    """Both sides are cut to a multiple."""
    return height // multiple_of * multiple_of, width // multiple_of * multiple_of


SIZES: Mapping[frozenset[str], Callable[..., tuple[int, int]]] = {
    frozenset(("height", "width")): _exact,
    frozenset(("shortest_edge",)): _shortest,
    frozenset(("shortest_edge", "longest_edge")): _between,
    frozenset(("shortest_edge", "longest_edge", "multiple_of")): _between,
    frozenset(("max_height", "max_width")): _within,
    frozenset(("near_height", "near_width", "multiple_of")): _near_multiple,
    frozenset(("multiple_of",)): _cut_to,
}
"""How the sizes of a resized picture follow from its own, by what is given."""


def _center_crop(height: int, width: int) -> Callable[[Picture], Picture]:
    """The middle of a picture; where it is smaller, zeros are around it."""

    def crop(picture: Picture) -> Picture:
        made = np.zeros((height, width, picture.shape[2]), picture.dtype)
        rows, from_rows = _middle(picture.shape[0], height)
        columns, from_columns = _middle(picture.shape[1], width)
        made[rows, columns] = picture[from_rows, from_columns]
        return made

    return crop


def _middle(size: int, wanted: int) -> tuple[slice, slice]:
    """Where the middle of an axis goes, and where it is taken from."""
    if size >= wanted:
        start = (size - wanted) // 2
        return slice(0, wanted), slice(start, start + wanted)
    start = (wanted - size + 1) // 2
    return slice(start, start + size), slice(0, size)


def _rescale(factor: float, offset: float) -> Callable[[Picture], Picture]:
    def rescale(picture: Picture) -> Picture:
        scaled = (picture.astype(np.float64) * factor).astype(np.float32)
        return scaled + np.float32(offset) if offset else scaled

    return rescale


def _normalize(mean: Sequence[float], std: Sequence[float]) -> Callable[[Picture], Picture]:
    center, scale = np.asarray(mean, np.float32), np.asarray(std, np.float32)
    if center.shape != (3,) or scale.shape != (3,):
        raise FormatError("mean and std are not of three channels")

    def normalize(picture: Picture) -> Picture:
        return (picture.astype(np.float32) - center) / scale

    return normalize
