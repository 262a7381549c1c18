"""Input data: seeded synthetic tensors, and real samples shaped to any point of the shape matrix."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.random import default_rng

from ortc.common.arrays import Array, is_of, numpy_dtype
from ortc.common.errors import StageError
from ortc.frontend.samples.texts import Frame, Padding
from ortc.plan.masks import ATTENTION_MASK as MASK
from ortc.plan.masks import mask_of
from ortc.plan.plan import AxisPlan, CasePlan, InputPlan
from ortc.spec.vocabulary import STRING

PIXEL_MASK = "pixel_mask"
TYPES = "token_type_ids"
BOXES = "bbox"
"""Boxes of tokens on a page: left, top, right and bottom along the last axis."""
MAX_SAMPLES = 128
"""Real samples that are checked for parity; evenly spaced when there are more."""
BATCH = 8
"""Real samples are checked in batches of this, or of the batch axis' maximum when that is less."""
POSITIONS = 256
"""Most elements along the dynamic axes of such a batch, where one sample alone has no more."""


def synthetic(tensor: InputPlan, sizes: Mapping[str, int], seed: str) -> Array:
    """A tensor of the declared dtype and range, equal for equal arguments on every machine.

    Floats without a range are standard normal; integers without one are 0 or 1.

    Args:
        tensor: the declared input.
        sizes: size of each dynamic axis.
        seed: any text; different texts give different data.
    """
    shape = tuple(sizes[entry] if isinstance(entry, str) else entry for entry in tensor.shape)
    dtype = numpy_dtype(tensor.dtype)
    if tensor.fill is not None:
        return np.full(shape, tensor.fill, dtype=dtype)
    generator = default_rng(int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big"))
    if tensor.dtype == STRING:
        return _strings(tensor.examples or ("",), shape, generator)
    is_mask = len(shape) == 2 and (tensor.mask is not None or tensor.name == MASK)
    if dtype.kind == "f" and not is_mask:
        if tensor.range is None:
            return generator.standard_normal(shape).astype(dtype)
        return _ordered(tensor, generator.uniform(*tensor.range, shape).astype(dtype))
    low, high = (0, 1) if tensor.range is None else (int(tensor.range[0]), int(tensor.range[1]))
    drawn = generator.integers(low, high, size=shape, endpoint=True).astype(dtype)
    if is_mask:
        return _mixed(drawn, low, high)
    return _ordered(tensor, drawn) if tensor.end is None else ended(tensor, drawn, [shape[-1]] * shape[0])


def _strings(
    examples: Sequence[str | tuple[str, ...]], shape: tuple[int, ...], generator: np.random.Generator
) -> Array:
    """Strings drawn from examples; an example that is a row fills the last dimension."""
    known = np.array(examples)
    drawn: Array = known[generator.integers(0, len(known), size=shape[: len(shape) + 1 - known.ndim])]
    return drawn


def ended(tensor: InputPlan, ids: Array, lengths: Sequence[int]) -> Array:
    """Token ids [batch, positions] with the end token once in each row, as the last of its `lengths` tokens."""
    end, (low, high) = tensor.end, tensor.range or (0, 1)
    if end is None:
        return ids
    other = low if end != low else high
    found = np.where(ids == end, other, ids).astype(ids.dtype)
    found[np.arange(len(found)), np.asarray(lengths) - 1] = end
    return found


def is_read(mask: InputPlan, values: Array) -> Array:
    """Where a padding mask [batch, positions] says that positions are read and no padding."""
    read: Array = (values == 0) if mask.mask == "padding" else (values != 0)
    return read


def _mixed(mask: Array, low: int, high: int) -> Array:
    """A mask with a real position in every row, and with a masked one where a row has several positions.

    Neither kind may be missing: which of both is 1 is up to the model.
    """
    last = mask.shape[1] - 1
    if last >= 0:
        mask[~(mask != low).any(axis=1), 0] = high
        mask[(mask != low).all(axis=1), last] = low if last else high
    return mask


def _ordered(tensor: InputPlan, values: Array) -> Array:
    """Boxes whose left is at most their right, and whose top is at most their bottom: models refuse others."""
    if tensor.name != BOXES or values.shape[-1] != 4:
        return values
    corners = values.reshape(*values.shape[:-1], 2, 2)
    ordered: Array = np.sort(corners, axis=-2).reshape(values.shape)
    return ordered


@dataclass(frozen=True)
class Samples:
    """Real inputs of the spec, or none.

    `texts` holds token ids without special tokens, one row a sample; `arrays` one array an input, samples along axis 0.
    """

    texts: tuple[tuple[int, ...], ...] = ()
    frame: Frame = field(default_factory=Frame)
    padding: Padding = field(default_factory=Padding)
    arrays: Mapping[str, Array] = field(default_factory=dict)

    def split(self) -> tuple[Samples, Samples]:
        """Two halves, every other sample: one to judge by, one to calibrate on. A single sample is both.

        Nothing is judged by what it was calibrated on.
        """
        if len(self) < 2:
            return self, self
        judged, calibration = (
            replace(
                self,
                texts=self.texts[start::2],
                arrays={name: array[start::2] for name, array in self.arrays.items()},
            )
            for start in (0, 1)
        )
        return judged, calibration

    def __len__(self) -> int:
        return len(self.texts) or (len(next(iter(self.arrays.values()))) if self.arrays else 0)


class InputFactory:
    """Makes the model's inputs for any case, from real samples where there are any."""

    def __init__(
        self,
        inputs: tuple[InputPlan, ...],
        axes: tuple[AxisPlan, ...],
        samples: Samples,
        calibration: Samples | None = None,
    ) -> None:
        self.inputs = inputs
        self.axes = {axis.name: axis for axis in axes}
        self.samples = samples
        self.calibration = calibration
        self.mask = mask_of(inputs)
        self.ended = next((tensor for tensor in inputs if tensor.end is not None), None)
        self.pixel_mask = next((t for t in inputs if t.name == PIXEL_MASK and len(t.shape) == 3), None)
        _refuse_misfits(inputs, samples)

    @property
    def batch_axis(self) -> str | None:
        """The axis that all inputs have first, if there is one."""
        return first if isinstance(first := self._first, str) else None

    @property
    def _first(self) -> str | int | None:
        """What all inputs have as their first dimension: an axis or a size; None where they differ."""
        first = {tensor.shape[0] if tensor.shape else None for tensor in self.inputs}
        return first.pop() if len(first) == 1 else None

    def case(self, case: CasePlan) -> dict[str, Array]:
        """Inputs of one point of the shape matrix."""
        sizes = case.shape.as_dict()
        lengths = self._lengths(sizes, padded=case.padded)
        if self.samples.texts:
            return self._text(sizes, lengths, start=0)
        feeds = {
            tensor.name: self._fit(self.samples.arrays[tensor.name], tensor, sizes)
            if self.samples.arrays
            else synthetic(tensor, sizes, f"{tensor.name}/{case}")
            for tensor in self.inputs
        }
        return {**feeds, **_padding(self, feeds, lengths)} if case.padded else feeds

    def real(self, batch: int = BATCH, most: int = MAX_SAMPLES) -> list[tuple[str, dict[str, Array]]]:
        """The real samples, at most so many, as named batches of their natural sizes, within the declared bounds.

        A last batch that is smaller than the bounds allow is filled up with the first samples.

        Raises:
            StageError: a sample is not of the declared shape or dtype, or is out of bounds.
        """
        count, first = len(self.samples), self._first
        if not count or first is None:
            return []
        axis = self.axes[first] if isinstance(first, str) else AxisPlan(name="n", min=first, typical=first, max=first)
        picked = sorted({round(i) for i in np.linspace(0, count - 1, min(count, most))})
        size = max(axis.min, min(batch, axis.max) // axis.multiple_of * axis.multiple_of, axis.multiple_of)
        batches = []
        for group in self._groups(picked, size):
            name = f"samples {group[0] + 1}-{group[-1] + 1}"
            wanted = max(axis.min, -(-len(group) // axis.multiple_of) * axis.multiple_of)
            filled = [*group, *itertools.islice(itertools.cycle(picked), wanted - len(group))]
            batches.append((name, self._real_batch(filled)))
        return batches

    def _groups(self, picked: list[int], size: int) -> Iterator[list[int]]:
        """Rows of samples, so many at a time: fewer where they are long, as a bundle repeats a batch at every start."""
        group: list[int] = []
        widest = 0
        for row in picked:
            width = self._width(row)
            if group and (len(group) == size or (len(group) + 1) * max(widest, width) > POSITIONS):
                yield group
                group, widest = [], 0
            group.append(row)
            widest = max(widest, width)
        if group:
            yield group

    def _width(self, row: int) -> int:
        """Elements of a sample along its dynamic axes, and along that of a text; 1 without any."""
        if self.samples.texts:
            last = self.inputs[0].shape[-1]
            most = self.axes[last].max if isinstance(last, str) else last
            return min(
                len(self.samples.texts[row]) + len(self.samples.frame.prefix) + len(self.samples.frame.suffix), most
            )
        widths = [1]
        for tensor in self.inputs:
            sizes = zip(tensor.shape[1:], self.samples.arrays[tensor.name].shape[1:], strict=False)
            widths.append(math.prod(size for axis, size in sizes if isinstance(axis, str)))
        return max(widths)

    def _real_batch(self, rows: list[int]) -> dict[str, Array]:
        if not self.samples.texts:
            feeds = {tensor.name: self._cast(self.samples.arrays[tensor.name][rows], tensor) for tensor in self.inputs}
            for tensor in self.inputs:
                self._check_bounds(tensor, feeds[tensor.name].shape)
            return feeds
        first, last = self.inputs[0].shape[0], self.inputs[0].shape[-1]
        # A model of one fixed length takes every text at that length.
        least, most, step = last, last, 1
        if isinstance(last, str):
            least, most, step = self.axes[last].min, self.axes[last].max, self.axes[last].multiple_of
        frame = len(self.samples.frame.prefix) + len(self.samples.frame.suffix)
        lengths = [min(len(self.samples.texts[row]) + frame, int(most)) for row in rows]
        width = -(-max(*lengths, int(least)) // step) * step
        return self._text({str(first): len(rows), str(last): width}, lengths, rows=rows)

    def _check_bounds(self, tensor: InputPlan, shape: tuple[int, ...]) -> None:
        for entry, size in zip(tensor.shape, shape, strict=True):
            axis = self.axes.get(entry) if isinstance(entry, str) else None
            if axis is not None and not (axis.min <= size <= axis.max and size % axis.multiple_of == 0):
                step = f" in steps of {axis.multiple_of}" if axis.multiple_of > 1 else ""
                raise StageError(
                    f"samples for `{tensor.name}` have size {size} along `{axis.name}`; "
                    f"the spec declares {axis.min} to {axis.max}{step}"
                )

    def _lengths(self, sizes: Mapping[str, int], *, padded: bool) -> list[int]:
        if self.mask is None:
            return []
        rows, width = (sizes[entry] if isinstance(entry, str) else entry for entry in self.mask.shape)
        if not padded:
            return [width] * rows
        # A single row is padded too; of several, the first stays full, so that both kinds are in one batch.
        return [max(1, width - 1 - row * width // (rows + 1)) if rows == 1 or row else width for row in range(rows)]

    def _text(
        self, sizes: Mapping[str, int], lengths: list[int], *, start: int = 0, rows: list[int] | None = None
    ) -> dict[str, Array]:
        ids_input = self.inputs[0]
        count, width = (sizes[entry] if isinstance(entry, str) else entry for entry in ids_input.shape)
        lengths = lengths or [width] * count
        pads = self.samples.padding
        places = [slice(width - length, None) if pads.left else slice(length) for length in lengths]
        ids = np.full((count, width), pads.token, dtype=ids_input.dtype)
        for row in range(count):
            ids[row, places[row]] = self._tokens(start + row if rows is None else rows[row], lengths[row])
        if ids_input.end is not None:
            ids = ended(ids_input, ids, [width] * count if pads.left else lengths)
        feeds: dict[str, Array] = {ids_input.name: ids}
        for tensor in self.inputs[1:]:
            if tensor == self.mask:
                mask = _mask(tensor, lengths, width)
                feeds[tensor.name] = np.ascontiguousarray(mask[:, ::-1]) if pads.left else mask
            elif tensor.name == TYPES and len(tensor.shape) == 2:
                types = np.full((count, width), pads.type, dtype=tensor.dtype)
                for row in range(count):
                    types[row, places[row]] = self.samples.frame.types(lengths[row])
                feeds[tensor.name] = types
            elif tensor.name == TYPES:
                # Types of several columns say where in a table a token stands: plain text is in none.
                feeds[tensor.name] = np.zeros((count, width, *map(int, tensor.shape[2:])), dtype=tensor.dtype)
            else:
                feeds[tensor.name] = synthetic(tensor, sizes, f"{tensor.name}/text")
        return feeds

    def _tokens(self, index: int, length: int) -> tuple[int, ...]:
        """Exactly `length` ids: the sample in its frame, followed by the next samples where it is too short."""
        prefix, suffix = self.samples.frame.prefix, self.samples.frame.suffix
        room = length - len(prefix) - len(suffix)
        if room < 1:
            return (
                (*prefix, *suffix)[:length] if length > 1 else self.samples.texts[index % len(self.samples.texts)][:1]
            )
        body: list[int] = []
        while len(body) < room:
            body.extend(self.samples.texts[index % len(self.samples.texts)])
            index += 1
        return (*prefix, *body[:room], *suffix)

    def _fit(self, array: Array, tensor: InputPlan, sizes: Mapping[str, int]) -> Array:
        """Tile or cut an array of samples to a shape."""
        result = self._cast(array, tensor)
        for dimension, entry in enumerate(tensor.shape):
            size = sizes[entry] if isinstance(entry, str) else entry
            if result.shape[dimension] < size:
                repeats = [1] * result.ndim
                repeats[dimension] = -(-size // result.shape[dimension])
                result = np.tile(result, repeats)
            result = np.take(result, range(size), axis=dimension)
        return np.ascontiguousarray(result)

    def _cast(self, array: Array, tensor: InputPlan) -> Array:
        if not is_of(array, tensor.dtype) or array.ndim != len(tensor.shape):
            raise StageError(
                f"samples for `{tensor.name}` are {array.dtype} with {array.ndim} dimensions; "
                f"the spec declares {tensor.dtype} with {len(tensor.shape)}"
            )
        fixed = [(d, size) for d, size in enumerate(tensor.shape) if isinstance(size, int) and d > 0]
        if any(array.shape[dimension] != size for dimension, size in fixed):
            raise StageError(
                f"samples for `{tensor.name}` have shape {list(array.shape)}, declared {list(tensor.shape)}"
            )
        return array


def _padding(factory: InputFactory, feeds: Mapping[str, Array], lengths: Sequence[int]) -> dict[str, Array]:
    """Masks of rows that are shorter than others, and token ids that end before their padding."""
    found: dict[str, Array] = {}
    if (mask := factory.mask) is not None:
        found[mask.name] = _mask(mask, lengths, feeds[mask.name].shape[-1])
        if factory.ended is not None:
            found[factory.ended.name] = ended(factory.ended, feeds[factory.ended.name], lengths)
    if factory.pixel_mask is not None:
        found[PIXEL_MASK] = _pixel_mask(feeds[PIXEL_MASK].shape, feeds[PIXEL_MASK].dtype)
    return found


def _pixel_mask(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Images of a batch at several sizes, in the upper left corner; of several, the first is whole."""
    rows, height, width = shape
    mask = np.ones(shape, dtype=dtype)
    for row in range(rows):
        if rows == 1 or row:
            mask[row, max(1, height - 1 - row * height // (rows + 2)) :] = 0
            mask[row, :, max(1, width - 1 - (row + 1) * width // (rows + 2)) :] = 0
    return mask


def _mask(mask: InputPlan, lengths: Sequence[int], width: int) -> Array:
    read = np.arange(width)[None, :] < np.asarray(lengths)[:, None]
    return (~read if mask.mask == "padding" else read).astype(mask.dtype)


def padded_cases(factory: InputFactory, cases: Sequence[CasePlan]) -> list[CasePlan]:
    """Padded cases of masks that a plan did not know of: inputs that were derived after it was made.

    Args:
        factory: of the inputs.
        cases: of the plan.
    """
    if any(case.padded for case in cases) or (factory.mask is None and factory.pixel_mask is None):
        return []
    return [case.model_copy(update={"padded": True}) for case in cases if _has_room(factory, case)]


def _has_room(factory: InputFactory, case: CasePlan) -> bool:
    """Whether a row of a mask can be shorter than the mask."""
    sizes = case.shape.as_dict()
    masks = [tensor for tensor in (factory.mask, factory.pixel_mask) if tensor is not None]
    return any((sizes[entry] if isinstance(entry, str) else entry) > 1 for mask in masks for entry in mask.shape[1:])


def _refuse_misfits(inputs: Sequence[InputPlan], samples: Samples) -> None:
    if samples.texts and (not inputs or inputs[0].name != "input_ids"):
        raise StageError("samples are text, but the model's first input is not `input_ids`")
    if samples.arrays and (missing := [tensor.name for tensor in inputs if tensor.name not in samples.arrays]):
        raise StageError(f"the samples lack an array for the input `{missing[0]}`")
