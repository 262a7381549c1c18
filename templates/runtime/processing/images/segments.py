"""Classes of the pixels of an image, of scores at fewer places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .forms import Arrays, ImageForm
from .inputs import Picture

CHUNK_VALUES = 2**22  # scores that are held at once


class Segments(ImageForm):
    """The classes that an image has, with the pixels of each."""

    of_one_row = False

    def answer(self, entry: Any, rows: Sequence[Picture], values: Sequence[Any]) -> Any:
        """Classes as {"label", "score", "mask"}, in their order; see `segments_of`. There is no score."""
        return segments_of(class_map(values[0], rows[0].size), self.labels)

    def values(self, outputs: Arrays, index: int, row: Picture) -> Any:
        """Scores [classes, height, width], at fewer places than the image has pixels."""
        del row
        return np.array(outputs[self.output][index])


def class_map(scores: NDArray[Any], size: tuple[int, int]) -> NDArray[np.uint16]:
    """The class of each pixel: of the highest score between the places of the scores.

    Scores are interpolated linearly between their centers, and are those of the outermost centers beyond them, as
    torch.nn.functional.interpolate does with `mode="bilinear"` and without `align_corners`.

    Args:
        scores: [classes, rows, columns].
        size: Height and width of the image.
    """
    height, width = size
    (above, below, down), (left, right, along) = (
        _between(given, wanted) for given, wanted in zip(scores.shape[1:], size, strict=True)
    )
    made = np.empty(size, np.uint16)
    step = max(1, CHUNK_VALUES // (scores.shape[0] * width))
    for start in range(0, height, step):
        rows = slice(start, min(height, start + step))
        top, bottom = scores[:, above[rows]], scores[:, below[rows]]
        upper = top[:, :, left] * (1 - along) + top[:, :, right] * along
        lower = bottom[:, :, left] * (1 - along) + bottom[:, :, right] * along
        share = down[rows][:, None]
        made[rows] = (upper * (1 - share) + lower * share).argmax(axis=0)
    return made


def _between(given: int, wanted: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """For each place of the result the two places that it lies between, and how far from the first."""
    scale = np.float32(given) / np.float32(wanted)
    places = np.maximum(scale * (np.arange(wanted, dtype=np.float32) + np.float32(0.5)) - np.float32(0.5), 0)
    first = np.minimum(places.astype(np.int64), given - 1)
    return first, np.minimum(first + 1, given - 1), places - first.astype(np.float32)


def segments_of(classes: NDArray[np.uint16], labels: Sequence[str]) -> list[dict[str, Any]]:
    """The classes of a map with their pixels, in their order.

    A mask is {"size": [height, width], "counts"}: pixels column by column, the numbers of those outside and inside by
    turns, as COCO has it without compression.
    """
    flat = classes.T.ravel()
    starts = np.concatenate([[0], np.flatnonzero(np.diff(flat)) + 1])
    ends, kinds = np.append(starts[1:], flat.size), flat[starts]
    return [
        {"label": labels[kind], "score": None, "mask": _mask(classes.shape, starts[kinds == kind], ends[kinds == kind])}
        for kind in np.unique(kinds)
    ]


def _mask(size: tuple[int, ...], starts: NDArray[Any], ends: NDArray[Any]) -> Mapping[str, Any]:
    edges = np.stack([starts, ends], axis=1).ravel()
    counts = np.diff(np.concatenate([[0], edges, [size[0] * size[1]]]))
    return {"size": list(size), "counts": (counts if counts[-1] else counts[:-1]).tolist()}
