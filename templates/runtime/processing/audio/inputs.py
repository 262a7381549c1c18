"""Sounds to a model's inputs, as its own feature extractor makes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from loading.errors import FormatError, InputError
from numpy.typing import NDArray

from .features import features_of
from .resampling import BLOCK, length_of, needed, resampled, table_bytes
from .wav import CHUNK, Wave, check_finite, opened

UNBOUNDED = 2**22  # samples at the model's rate, where no axis bounds them
Shapes = Mapping[str, tuple[Sequence[str | int | None], np.dtype[Any]]]
Bounds = Mapping[str, tuple[int, int, int]]


@dataclass(frozen=True)
class Sound:
    """One sound as the model takes it: [samples], or [frames, bands]."""

    values: NDArray[np.float32]


class Audio:
    """Makes a model's inputs of sounds.

    Args:
        settings: `audio` of processing.json.
        inputs: Shapes and types of the model's inputs by name.
        bounds: Least size, greatest size and step of each axis by name.

    Raises:
        FormatError: the settings are malformed, or the model takes something else than sounds.
    """

    takes = "audio"

    def __init__(self, settings: Mapping[str, Any], inputs: Shapes, bounds: Bounds) -> None:
        name, mask = str(settings["input"]), settings.get("mask")
        if set(inputs) != {name} | ({mask} if mask else set()):
            raise FormatError(f"the model takes {sorted(inputs)}, expected {name}")
        self._name, self._mask, self.rate = name, mask, int(settings["rate"])
        self._features = features_of(settings["features"], self.rate)
        self._dtypes = {key: dtype for key, (_, dtype) in inputs.items()}
        batch, *axes = (_bounds(entry, bounds) for entry in inputs[name][0])
        if len(axes) != len(self._features.shape(1)):
            raise FormatError(f"{name} has {len(axes) + 1} dimensions, expected {len(self._features.shape(1)) + 1}")
        self._batch, self._axes = batch, axes
        # Features of a fixed shape are made of the beginning of a sound; else the axis says how long it may be.
        self._longest = axes[0][1] if self._features.most is None else None
        if self._longest is None and not self._fits(self._features.shape(1)):
            raise FormatError(f"the model does not take features of the shape {self._features.shape(1)}")

    @property
    def most_rows(self) -> int:
        """The most sounds of one run."""
        return self._batch[1]

    @property
    def row_bytes(self) -> int:
        """The most bytes that one sound has as the model takes it."""
        return 4 * int(np.prod(self._features.shape(self._longest or 0), dtype=np.int64))

    def row(self, content: object) -> Sound:
        """What becomes of a file's bytes, or of an array [samples] at the model's own rate.

        Raises:
            InputError: it is no sound, or the model takes none of its length.
        """
        samples = self._of_array(content) if isinstance(content, np.ndarray) else self._of_file(_opened(content))
        self._check(len(samples))
        with np.errstate(over="ignore", invalid="ignore"):
            made = np.ascontiguousarray(self._features.of(samples), np.float32)
        if not np.isfinite(made).all():
            raise InputError(
                f"a sound with samples up to {np.abs(samples).max():g} becomes no finite features. Send samples "
                "from -1 to 1."
            )
        return Sound(made)

    def memory(self, content: object) -> int:
        """The bytes that reading a file takes at most, as far as its first bytes tell.

        Raises:
            InputError: it is no sound, or too long.
        """
        wave = _opened(content)
        self._check(length_of(wave.frames, wave.rate, self.rate))
        count = self._read(wave)
        made = length_of(count, wave.rate, self.rate)
        table = table_bytes(made, wave.rate, self.rate)
        return 24 * CHUNK + 12 * count + 8 * BLOCK + 4 * made + table + self._features.memory(made)

    def _read(self, wave: Wave) -> int:
        """How many moments of a file are read."""
        most = self._features.most
        return wave.frames if most is None else min(wave.frames, needed(most, wave.rate, self.rate))

    def _of_file(self, wave: Wave) -> NDArray[np.float32]:
        # Before anything is made of its samples.
        self._check(length_of(wave.frames, wave.rate, self.rate))
        return resampled(wave.mono(self._read(wave)), wave.rate, self.rate)

    def _of_array(self, values: NDArray[Any]) -> NDArray[np.float32]:
        if values.dtype not in (np.float32, np.float64) or values.ndim != 1:
            raise InputError(
                f"a sound is an array of {values.dtype} {list(values.shape)}. Expected float32 [samples], with "
                f"{self.rate} samples per second."
            )
        made = values[: self._features.most].astype(np.float32)
        check_finite(made)
        return made

    def _check(self, count: int) -> None:
        """Refuse a sound that has too few or too many samples at the model's rate."""
        if self._longest is None:
            return
        least, most, step = self._axes[0]
        if not least <= count <= most or count % step:
            said = "" if step == 1 else f", in steps of {step}"
            raise InputError(
                f"a sound has {count} samples at the model's rate, {count / self.rate:.3f} seconds. The model takes "
                f"{least} to {most}{said}; send a sound of another length."
            )

    def _fits(self, shape: Sequence[int]) -> bool:
        pairs = zip(shape, self._axes, strict=True)
        return all(least <= size <= most and size % step == 0 for size, (least, most, step) in pairs)

    def inputs(self, rows: Sequence[Sound]) -> dict[str, NDArray[Any]]:
        """The model's inputs for sounds of one length; nothing of them is padding."""
        found = {self._name: np.stack([row.values for row in rows]).astype(self._dtypes[self._name])}
        if self._mask:
            found[self._mask] = np.ones(found[self._name].shape[:2], self._dtypes[self._mask])
        return found

    def runs(self, rows: Sequence[Sound], most: int) -> Iterator[list[int]]:
        """Places of sounds that share a run: those of one length."""
        places: dict[tuple[int, ...], list[int]] = {}
        for place, row in enumerate(rows):
            places.setdefault(row.values.shape, []).append(place)
        for alike in places.values():
            for start in range(0, len(alike), most):
                yield alike[start : start + most]


def _opened(content: object) -> Wave:
    if not isinstance(content, bytes | bytearray | memoryview):
        raise InputError(f"a sound is a {type(content).__name__}. Expected the bytes of a WAV file, or an array.")
    return opened(content)


def _bounds(entry: str | int | None, bounds: Bounds) -> tuple[int, int, int]:
    if isinstance(entry, int):
        return entry, entry, 1
    return (1, UNBOUNDED, 1) if entry is None else bounds[entry]
