"""The kinds of answers to images."""

from __future__ import annotations

from collections.abc import Mapping

from .depths import Depth
from .forms import Boxes, ImageEmbedding, ImageForm, ImageLabels
from .segments import Segments

KINDS: Mapping[str, type[ImageForm]] = {
    "embedding": ImageEmbedding,
    "labels": ImageLabels,
    "boxes": Boxes,
    "segments": Segments,
    "depth": Depth,
}
