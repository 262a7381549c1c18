"""How images become a model's inputs: the part of processing.json of bundles that take images, as one typed model.

`templates/runtime/processing/images` executes the steps; docs/answers.md is their reference.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from ortc.common.values import Frozen

Filter = Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]
FILTERS: tuple[Filter, ...] = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""Filters by the numbers that Pillow, and with it `resample` of a repository, gives them."""
Channels = tuple[float, float, float]


class Exact(Frozen):
    """Both sides of a resized image."""

    height: PositiveInt
    width: PositiveInt


class Shortest(Frozen):
    """The shorter side of a resized image, which keeps its ratio."""

    shortest_edge: PositiveInt


class Between(Frozen):
    """The shorter side of a resized image, unless its longer side would exceed a bound."""

    shortest_edge: PositiveInt
    longest_edge: PositiveInt
    multiple_of: PositiveInt = Field(default=1, description="Sides are cut to a multiple of it.")


class Within(Frozen):
    """Bounds of both sides of a resized image, which keeps its ratio."""

    max_height: PositiveInt
    max_width: PositiveInt


class NearMultiple(Frozen):
    """The same ratio, by the side that changes less; both sides become the nearest multiple."""

    near_height: PositiveInt
    near_width: PositiveInt
    multiple_of: PositiveInt


class CutTo(Frozen):
    """Both sides are cut to a multiple."""

    multiple_of: PositiveInt


Size = Exact | Between | Shortest | Within | NearMultiple | CutTo


class Resize(Frozen):
    """Another size, by one of Pillow's filters."""

    op: Literal["resize"] = "resize"
    size: Size
    filter: Filter


class CenterCrop(Frozen):
    """The middle of an image; zeros are around a smaller one."""

    op: Literal["center_crop"] = "center_crop"
    height: PositiveInt
    width: PositiveInt


class FlipChannels(Frozen):
    """Blue, green, red instead of red, green, blue."""

    op: Literal["flip_channels"] = "flip_channels"


class Rescale(Frozen):
    """A factor over all values, and what is added after it."""

    op: Literal["rescale"] = "rescale"
    factor: float
    offset: float = 0.0


class Normalize(Frozen):
    """The mean of each channel is subtracted, and the result divided by its standard deviation."""

    op: Literal["normalize"] = "normalize"
    mean: Channels
    std: Channels


Step = Annotated[Resize | CenterCrop | FlipChannels | Rescale | Normalize, Field(discriminator="op")]


class ImageProcessing(Frozen):
    """How images become pixels: read upright as RGB, then the steps in their order."""

    input: str = Field(description="The model's input that takes the pixels, [batch, 3, height, width].")
    mask: str | None = Field(default=None, description="The input that says which pixels are of the image.")
    steps: tuple[Step, ...]
