"""Files of sound as samples: WAV with PCM or float samples, one channel at the model's rate.

This is what the bundle's own reader is compared with, so it shares no code with it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ortc.common.arrays import Array
from ortc.common.errors import StageError

if TYPE_CHECKING:
    import torch

SOUNDS = (".wav",)
"""Suffixes, in lower case, of the files of a directory that are samples of sound."""
HELP = "give WAV files with PCM of 8, 16, 24 or 32 bits or with float samples of 32 bits"
ZEROS, ROLLOFF = 6, 0.99
"""Zero crossings of the sinc on either side, and the cutoff as a share of the lower rate: torchaudio's defaults."""
MOST_WEIGHTS = 2**22
"""Weights of a resampling: rates without a common divisor have too many."""
_EXTENSIBLE = 0xFFFE
_FORMATS = {(1, 8): "u1", (1, 16): "<i2", (1, 24): "u1", (1, 32): "<i4", (3, 32): "<f4"}


def read_sound(path: Path, rate: int) -> Array:
    """Read a file as float32 [samples]: the mean of its channels, with `rate` samples per second.

    Raises:
        StageError: it is no such file, or is damaged.
    """
    try:
        with np.errstate(invalid="ignore", over="ignore"):
            values, given = _decoded(path.read_bytes())
    except (OSError, struct.error, KeyError, ValueError) as error:
        raise StageError(f"the sound `{path.name}` cannot be read: {error}", help=HELP) from error
    if not np.isfinite(values).all():
        raise StageError(f"the sound `{path.name}` has NaN or infinity", help="give finite samples")
    return resample(values.astype(np.float32), given, rate)


def _decoded(content: bytes) -> tuple[Array, int]:
    """The mean of the channels [samples], and how many there are per second."""
    chunks = dict(reversed(list(_chunks(content))))
    kind, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", chunks[b"fmt "])
    if kind == _EXTENSIBLE:
        (kind,) = struct.unpack_from("<H", chunks[b"fmt "], 24)
    if rate == 0:
        raise ValueError("it states 0 samples per second")
    raw = np.frombuffer(chunks[b"data"], _FORMATS[kind, bits])
    if bits == 24:
        low, middle, high = raw.reshape(-1, 3).astype(np.int64).T
        signed = low + 256 * middle + 65536 * high
        values = (signed - (signed >= 2**23) * 2**24) / 2**23
    elif bits == 8:
        values = (raw.astype(np.float64) - 128) / 128
    else:
        values = raw.astype(np.float64) if kind == 3 else raw / float(2 ** (bits - 1))
    return values.reshape(-1, channels).mean(axis=1), int(rate)


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        raise ValueError("it is no WAV file")
    at = 12
    while at + 8 <= len(content):
        name, size = content[at : at + 4], struct.unpack_from("<I", content, at + 4)[0]
        if at + 8 + size > len(content):
            raise ValueError("it ends before its samples do")
        yield name, content[at + 8 : at + 8 + size]
        at += 8 + size + size % 2


def resample(values: Array, rate: int, wanted: int) -> Array:
    """Return float32 values at another rate, as torchaudio's `functional.resample` does by default, in float64.

    Raises:
        StageError: the rates have too small a common divisor.
    """
    import torch

    divisor = math.gcd(rate, wanted)
    old, new = rate // divisor, wanted // divisor
    if old == new:
        return values
    width = math.ceil(ZEROS * old / (min(old, new) * ROLLOFF))
    if new * (old + 2 * width) > MOST_WEIGHTS:
        raise StageError(f"a sound of {rate} samples per second is not brought to {wanted}", help="resample it first")
    padded = torch.nn.functional.pad(torch.from_numpy(values).double(), (width, width + old))
    found = torch.nn.functional.conv1d(padded[None, None], _kernels(old, new, width), stride=old)[0].T.reshape(-1)
    result: Array = found[: math.ceil(len(values) * new / old)].float().numpy()
    return result


def _kernels(old: int, new: int, width: int) -> torch.Tensor:
    """A windowed sinc for each place between two samples, [places, 1, samples]."""
    import torch

    cutoff = min(old, new) * ROLLOFF
    places = torch.arange(0, -new, -1, dtype=torch.float64)[:, None] / new
    times = (places + torch.arange(-width, width + old, dtype=torch.float64)[None] / old) * cutoff
    times = times.clamp(-ZEROS, ZEROS)
    window = torch.cos(times * math.pi / ZEROS / 2) ** 2
    return (torch.sinc(times) * window * (cutoff / old))[:, None]
