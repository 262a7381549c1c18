"""The depth of each pixel of an image, of depths at fewer places."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .forms import Arrays, ImageForm
from .inputs import Picture

CHUNK_VALUES = 2**22  # depths that are held at once
SHARPNESS = -0.75  # of the cubic
STEPS = 255  # between the least and the greatest depth

Taps = tuple[NDArray[np.int64], NDArray[np.float32]]


class Depth(ImageForm):
    """How far away each pixel of an image is, in the model's own terms."""

    of_one_row = False

    def values(self, outputs: Arrays, index: int, row: Picture) -> Any:
        """Depths [height, width], at fewer places than the image has pixels."""
        del row
        return np.array(outputs[self.output][index])

    def answer(self, entry: Any, rows: Sequence[Picture], values: Sequence[Any]) -> Any:
        """The depths as {"size", "minimum", "maximum", "depth"}; see `depths_of`."""
        return depths_of(values[0], rows[0].size)


def depths_of(depths: NDArray[Any], size: tuple[int, int]) -> Mapping[str, Any]:
    """The depth of each pixel: between the places of the model's depths, by cubic interpolation.

    It is interpolated as torch.nn.functional.interpolate does with `mode="bicubic"` and without `align_corners`.

    Args:
        depths: [rows, columns].
        size: Height and width of the image.

    Returns:
        {"size": [height, width], "minimum", "maximum", "depth"}. `depth` has one byte for each pixel in base64, row by
        row: 0 is the least depth and 255 the greatest, as in the picture of transformers' pipeline.
    """
    down, along = (_taps(given, wanted) for given, wanted in zip(depths.shape, size, strict=True))
    least, greatest = math.inf, -math.inf
    for chunk in _chunks(depths, down, along):
        # NaN stays: no JSON says it, and the server refuses it.
        least, greatest = float(np.minimum(least, chunk.min())), float(np.maximum(greatest, chunk.max()))
    spread = np.float32(greatest - least)
    made = bytearray()
    for chunk in _chunks(depths, down, along):
        shares = (chunk - np.float32(least)) / spread if spread > 0 else np.zeros_like(chunk)
        made += (shares * np.float32(STEPS)).astype(np.uint8).tobytes()
    return {
        "size": list(size),
        "minimum": least,
        "maximum": greatest,
        "depth": base64.b64encode(made).decode("ascii"),
    }


def _chunks(depths: NDArray[Any], down: Taps, along: Taps) -> Iterator[NDArray[np.float32]]:
    """The depths of all pixels, some rows at once."""
    (above, of_rows), (left, of_columns) = down, along
    wide = sum(depths[:, left[tap]] * of_columns[tap] for tap in range(4))
    step = max(1, CHUNK_VALUES // left.shape[1])
    for start in range(0, above.shape[1], step):
        rows = slice(start, start + step)
        yield sum(wide[above[tap, rows]] * of_rows[tap, rows, None] for tap in range(4))


def _taps(given: int, wanted: int) -> Taps:
    """For each place of the result the four places that it is made of, [4, wanted], and their shares."""
    scale = np.float32(given) / np.float32(wanted)
    places = scale * (np.arange(wanted, dtype=np.float32) + np.float32(0.5)) - np.float32(0.5)
    first = np.floor(places)
    share = places - first
    sides = np.clip(first.astype(np.int64) + np.arange(-1, 3)[:, None], 0, given - 1)
    shares = np.stack([_far(share + 1), _near(share), _near(1 - share), _far(2 - share)])
    return sides, shares.astype(np.float32)


def _near(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """The share of a place that is at most 1 away."""
    return ((SHARPNESS + 2) * x - (SHARPNESS + 3)) * x * x + 1


def _far(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """The share of a place that is 1 to 2 away."""
    return ((SHARPNESS * x - 5 * SHARPNESS) * x + 8 * SHARPNESS) * x - 4 * SHARPNESS
