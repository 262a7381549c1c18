"""Files of sound (WAV with PCM or float samples) to one channel of float32, within bounds.

Only the sizes that a file has count, whatever it states. Integers are divided by the greatest of their size, as ffmpeg
does, and the channels of a file by their mean become one.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from loading.errors import InputError
from numpy.typing import NDArray

Content = bytes | bytearray | memoryview
Samples = NDArray[np.float32]
MOST_BYTES = 2**25
RATES = (1000, 384_000)
"""Samples per second of a file, at least and at most."""
CHUNK = 2**18  # samples of all channels that are converted at once
PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE
FORMS = {(PCM, 8), (PCM, 16), (PCM, 24), (PCM, 32), (FLOAT, 32)}
SUBTYPE = bytes.fromhex("000000001000800000aa00389b71")
"""The end of a subformat of WAVE_FORMAT_EXTENSIBLE; the format is before it."""
EXPECTED = "Send a WAV file with PCM of 8, 16, 24 or 32 bits, or with float samples of 32 bits."


@dataclass(frozen=True)
class Wave:
    """The samples of a file as they lie in it, and how they are read.

    Attributes:
        data: The bytes of all samples; those of one moment lie side by side.
        rate: Samples per second and channel.
        channels: How many there are.
        form: PCM or FLOAT.
        bits: Of a sample.
    """

    data: memoryview
    rate: int
    channels: int
    form: int
    bits: int

    @property
    def frames(self) -> int:
        """Samples of each channel."""
        return len(self.data) // (self.channels * self.bits // 8)

    def mono(self, count: int) -> Samples:
        """The mean of the channels at the first so many moments, from -1 to 1 where the samples are integers.

        Raises:
            InputError: a sample is NaN or infinite.
        """
        made = np.empty(min(count, self.frames), np.float32)
        size, step = self.channels * self.bits // 8, max(1, CHUNK // self.channels)
        for start in range(0, len(made), step):
            end = min(len(made), start + step)
            values = self._values(self.data[start * size : end * size]).reshape(-1, self.channels)
            made[start:end] = values[:, 0] if self.channels == 1 else values.mean(axis=1, dtype=np.float64)
        check_finite(made)
        return made

    def _values(self, part: memoryview) -> NDArray[np.float32] | NDArray[np.float64]:
        if self.form == FLOAT:
            return np.frombuffer(part, "<f4")
        if self.bits == 8:
            return (np.frombuffer(part, np.uint8).astype(np.float32) - 128) / 128
        if self.bits == 24:
            parts = np.frombuffer(part, np.uint8).reshape(-1, 3)
            wide = np.zeros((len(parts), 4), np.uint8)
            wide[:, 1:] = parts
            return wide.view("<i4").ravel() / 2.0**31
        return np.frombuffer(part, f"<i{self.bits // 8}") / 2.0 ** (self.bits - 1)


def opened(content: Content) -> Wave:
    """A file whose headers were read, and none of its samples.

    Raises:
        InputError: it is no WAV file, is of another form, ends too early or is too large.
    """
    view = memoryview(content).cast("B")
    if len(view) > MOST_BYTES:
        raise InputError(f"a sound has {len(view)} bytes. At most {MOST_BYTES} are taken.")
    if bytes(view[:4]) != b"RIFF" or bytes(view[8:12]) != b"WAVE":
        raise InputError(f"a sound is no WAV file: it begins with {bytes(view[:12])!r}. {EXPECTED}")
    form, at = None, 12
    while at + 8 <= len(view):
        kind, (size,) = bytes(view[at : at + 4]), struct.unpack_from("<I", view, at + 4)
        at += 8
        if kind in (b"fmt ", b"data") and size > len(view) - at:
            raise InputError(
                f"a sound states {size} bytes of {kind.decode().strip()}, and {len(view) - at} follow. Send a whole "
                "file, whose header has its true size."
            )
        if kind == b"fmt " and form is None:
            form = _form(view[at : at + size])
        elif kind == b"data":
            return _wave(view[at : at + size], form)
        at += size + (size & 1)
    raise InputError(f"a sound is a WAV file without samples. {EXPECTED}")


def _form(header: memoryview) -> tuple[int, int, int, int]:
    """Format, channels, samples per second and bits of a sample.

    Raises:
        InputError: they are not taken, or contradict each other.
    """
    if len(header) < 16:
        raise InputError(f"a sound has a header of {len(header)} bytes, expected 16 at least. {EXPECTED}")
    form, channels, rate, _, block, bits = struct.unpack_from("<HHIIHH", header)
    if form == EXTENSIBLE:
        if len(header) < 40 or bytes(header[26:40]) != SUBTYPE:
            raise InputError(f"a sound has an extended header of another form. {EXPECTED}")
        (form,) = struct.unpack_from("<H", header, 24)
    if (form, bits) not in FORMS:
        raise InputError(f"a sound has samples of format {form} with {bits} bits. {EXPECTED}")
    if channels < 1 or block != channels * bits // 8:
        raise InputError(f"a sound has {channels} channels of {bits} bits in {block} bytes. Send another file.")
    if not RATES[0] <= rate <= RATES[1]:
        raise InputError(f"a sound has {rate} samples per second. Expected {RATES[0]} to {RATES[1]}.")
    return form, channels, rate, bits


def _wave(data: memoryview, form: tuple[int, int, int, int] | None) -> Wave:
    if form is None:
        raise InputError(f"a sound has samples before the header that says how they are read. {EXPECTED}")
    kind, channels, rate, bits = form
    if not len(data) or len(data) % (channels * bits // 8):
        raise InputError(
            f"a sound has {len(data)} bytes of samples, and {channels} channels of {bits} bits are expected. Send a "
            "whole file."
        )
    return Wave(data, rate, channels, kind, bits)


def check_finite(values: Samples) -> None:
    """Refuse samples that are no numbers.

    Raises:
        InputError: one is NaN or infinite.
    """
    finite = np.isfinite(values)
    if not finite.all():
        raise InputError(f"a sound has NaN or infinity at sample {int(np.argmin(finite))}. Send finite samples.")
