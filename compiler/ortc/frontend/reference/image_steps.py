"""What an image processor of transformers does, as steps that a bundle executes; what has no such form is refused.

The steps are those of the processors' own code for images on Pillow. A processor that is not known is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ortc.common.errors import StageError
from ortc.inspection.image_processors import REPRODUCED, family_of
from ortc.plan.image_processing import (
    FILTERS,
    Between,
    CenterCrop,
    CutTo,
    Exact,
    FlipChannels,
    NearMultiple,
    Normalize,
    Rescale,
    Resize,
    Shortest,
    Size,
    Step,
    Within,
)

HELP = "`interface: tensors` in `model` builds a bundle of the model's tensors, without images"
_LEAST_WARPED = 384
"""The size from which ConvNeXT's processor resizes both sides, and crops nothing."""
_YOLOS = 16
"""Sides of the images of YOLOS are multiples of it."""
_LEVIT = 256 / 224
"""How much larger than its setting LeViT's processor makes the shorter side."""


def steps_of(processor: Any) -> tuple[Step, ...]:
    """Return the steps of a processor for images on Pillow.

    Raises:
        StageError: a part of it has no form as steps; the message names it.
    """
    name = type(processor).__name__
    family = family_of(name)
    if family not in REPRODUCED or not name.endswith("ImageProcessorPil"):
        raise refusal(processor, f"the image processor {name}")
    return tuple(_OF_THEIR_OWN.get(family, _plain)(processor))


def refusal(processor: Any, what: str) -> StageError:
    """The error that a part of a processor has no form as steps."""
    known = getattr(processor, "image_processor_type", None) or type(processor).__name__.removesuffix("Pil")
    return StageError(f"preprocessor_config.json: {what} is not reproduced ({known})", help=HELP)


def _plain(processor: Any) -> Iterator[Step]:
    yield from _resized(processor)
    yield from _cropped(processor)
    yield from _scaled(processor)


def _resized(processor: Any, size: Size | None = None) -> Iterator[Step]:
    if processor.do_resize:
        yield Resize(size=size or _size(processor), filter=_filter(processor))


def _size(processor: Any) -> Size:
    found = {key: int(value) for key, value in _mapping(processor.size).items() if value}
    # transformers looks for the edges first.
    if "shortest_edge" in found:
        if "longest_edge" in found:
            return Between(shortest_edge=found["shortest_edge"], longest_edge=found["longest_edge"])
        return Shortest(shortest_edge=found["shortest_edge"])
    if {"max_height", "max_width"} <= set(found):
        return Within(max_height=found["max_height"], max_width=found["max_width"])
    if {"height", "width"} <= set(found):
        return Exact(height=found["height"], width=found["width"])
    raise refusal(processor, f"`size: {dict(found)}`")


def _mapping(size: Any) -> Mapping[str, Any]:
    return dict(size) if size is not None else {}


def _filter(processor: Any) -> Any:
    # Without one, transformers takes bilinear.
    number = 2 if processor.resample is None else processor.resample
    if not isinstance(number, int) or not 0 <= int(number) < len(FILTERS):
        raise refusal(processor, f"`resample: {number}`")
    return FILTERS[int(number)]


def _cropped(processor: Any) -> Iterator[Step]:
    if processor.do_center_crop:
        found = _mapping(processor.crop_size)
        if not found.get("height") or not found.get("width"):
            raise refusal(processor, f"`crop_size: {dict(found)}`")
        yield CenterCrop(height=int(found["height"]), width=int(found["width"]))


def _rescaled(processor: Any, offset: float = 0.0) -> Iterator[Step]:
    if processor.do_rescale:
        yield Rescale(factor=float(processor.rescale_factor), offset=offset)


def _scaled(processor: Any) -> Iterator[Step]:
    if getattr(processor, "do_pad", None):
        raise refusal(processor, "`do_pad: true`")
    yield from _rescaled(processor)
    if processor.do_normalize:
        yield _normalized(processor, processor.image_mean)


def _normalized(processor: Any, mean: Any) -> Normalize:
    return Normalize(mean=_channels(processor, mean), std=_channels(processor, processor.image_std))


def _channels(processor: Any, values: Any) -> tuple[float, float, float]:
    given = [values] * 3 if isinstance(values, int | float) else list(values or ())
    if len(given) != 3:
        raise refusal(processor, f"a mean or a deviation of {len(given)} channels")
    first, second, third = map(float, given)
    return first, second, third


def _convnext(processor: Any) -> Iterator[Step]:
    if processor.do_resize:
        edge = int(_mapping(processor.size).get("shortest_edge") or 0)
        if not edge:
            raise refusal(processor, f"`size: {dict(_mapping(processor.size))}`")
        if edge < _LEAST_WARPED:
            yield from _resized(processor, Shortest(shortest_edge=int(edge / processor.crop_pct)))
            yield CenterCrop(height=edge, width=edge)
        else:
            yield from _resized(processor, Exact(height=edge, width=edge))
    yield from _cropped(processor)
    yield from _scaled(processor)


def _levit(processor: Any) -> Iterator[Step]:
    size = _size(processor)
    if isinstance(size, Shortest):
        size = Shortest(shortest_edge=int(_LEVIT * size.shortest_edge))
    elif not isinstance(size, Exact):
        raise refusal(processor, f"`size: {dict(_mapping(processor.size))}`")
    yield from _resized(processor, size)
    yield from _cropped(processor)
    yield from _scaled(processor)


def _poolformer(processor: Any) -> Iterator[Step]:
    size, share = _size(processor), processor.crop_pct
    if share is not None and isinstance(size, Shortest):
        size = Shortest(shortest_edge=int(size.shortest_edge / share))
    elif share is not None and isinstance(size, Exact):
        height, width = int(size.height / share), int(size.width / share)
        size = Shortest(shortest_edge=height) if size.height == size.width else Exact(height=height, width=width)
    elif share is not None:
        raise refusal(processor, f"`size: {dict(_mapping(processor.size))}`")
    yield from _resized(processor, size)
    yield from _cropped(processor)
    yield from _scaled(processor)


def _efficientnet(processor: Any) -> Iterator[Step]:
    yield from _resized(processor)
    yield from _cropped(processor)
    yield from _rescaled(processor, -1.0 if processor.rescale_offset else 0.0)
    if processor.do_normalize:
        yield _normalized(processor, processor.image_mean)
    if processor.include_top:
        yield _normalized(processor, 0.0)


def _mobilevit(processor: Any) -> Iterator[Step]:
    yield from _resized(processor)
    yield from _rescaled(processor)
    yield from _cropped(processor)
    if processor.do_flip_channel_order:
        yield FlipChannels()


def _dpt(processor: Any) -> Iterator[Step]:
    size = _size(processor)
    if not isinstance(size, Exact):
        raise refusal(processor, f"`size: {dict(_mapping(processor.size))}`")
    multiple = int(processor.ensure_multiple_of)
    if processor.keep_aspect_ratio:
        near = NearMultiple(near_height=size.height, near_width=size.width, multiple_of=multiple)
        yield from _resized(processor, near)
    else:
        sides = {name: round(side / multiple) * multiple for name, side in size.model_dump().items()}
        if not all(sides.values()):
            raise refusal(processor, f"`ensure_multiple_of: {multiple}`")
        yield from _resized(processor, Exact(**sides))
    yield from _scaled(processor)


def _glpn(processor: Any) -> Iterator[Step]:
    yield from _resized(processor, CutTo(multiple_of=int(processor.size_divisor)))
    yield from _rescaled(processor)
    if processor.do_normalize:
        yield _normalized(processor, processor.image_mean)


def _detr(processor: Any) -> Iterator[Step]:
    yield from _detected(processor, _size(processor))


def _yolos(processor: Any) -> Iterator[Step]:
    size = _size(processor)
    if isinstance(size, Between):
        size = size.model_copy(update={"multiple_of": _YOLOS})
    yield from _detected(processor, size)


def _detected(processor: Any, size: Size) -> Iterator[Step]:
    """Images of a batch are padded to the largest: one by itself is not."""
    if processor.do_pad and processor.pad_size is not None:
        raise refusal(processor, f"`pad_size: {dict(_mapping(processor.pad_size))}`")
    if isinstance(size, Shortest):
        raise refusal(processor, f"`size: {dict(_mapping(processor.size))}`")
    yield from _resized(processor, size)
    yield from _rescaled(processor)
    if processor.do_normalize:
        yield _normalized(processor, processor.image_mean)


_OF_THEIR_OWN: Mapping[str, Callable[[Any], Iterator[Step]]] = {
    "ConvNext": _convnext,
    "DPT": _dpt,
    "Detr": _detr,
    "EfficientNet": _efficientnet,
    "GLPN": _glpn,
    "Levit": _levit,
    "MobileViT": _mobilevit,
    "PoolFormer": _poolformer,
    "Yolos": _yolos,
}
"""Processors that do something else than resize, crop, rescale and normalize as their settings say, in this order."""
