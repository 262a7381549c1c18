"""Seeded sounds: plain ones for models without samples, and odd ones that show whether two readers agree."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ortc.common.arrays import Array
from ortc.frontend.samples.named_file import NamedFile

_SEED = 31
_PLAIN = 8
_SECONDS = 1.5
"""Of the longest plain sound, where the model takes as much."""
_ODD_SECONDS = 0.3
PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE
_SUBTYPE = bytes.fromhex("000000001000800000aa00389b71")
"""The end of a subformat of WAVE_FORMAT_EXTENSIBLE."""
Bits = Literal[8, 16, 24, 32]


@dataclass(frozen=True)
class Lengths:
    """How many samples at its rate a model takes."""

    rate: int
    least: int
    most: int
    step: int = 1

    def within(self, count: float) -> int:
        """The number nearest to a count that the model takes."""
        steps = round(max(self.least, min(self.most, count)) / self.step)
        return max(-(-self.least // self.step), min(self.most // self.step, steps)) * self.step


def plain_sounds(lengths: Lengths) -> tuple[NamedFile, ...]:
    """Return seeded sounds of a few lengths: tones that come and go, and some noise."""
    generator = np.random.default_rng(_SEED)
    shares = np.linspace(0.35, 1.0, _PLAIN)
    longest = lengths.within(_SECONDS * lengths.rate)
    return tuple(
        NamedFile(
            f"plain-{index}.wav", wav(_melody(generator, lengths.within(longest * share), lengths.rate), lengths.rate)
        )
        for index, share in enumerate(shares)
    )


def odd_sounds(lengths: Lengths) -> tuple[NamedFile, ...]:
    """Return sounds of all forms that are read, at many rates and of several channels."""
    return tuple(_odd(np.random.default_rng(_SEED + 1), lengths))


def _odd(generator: np.random.Generator, lengths: Lengths) -> Iterator[NamedFile]:
    rate, count = lengths.rate, lengths.within(_ODD_SECONDS * lengths.rate)
    tones = _melody(generator, count, rate)
    forms: tuple[tuple[Bits, bool], ...] = ((8, False), (24, False), (32, False), (32, True))
    for bits, is_float in forms:
        yield NamedFile(f"{'float' if is_float else 'pcm'}-{bits}.wav", wav(tones, rate, bits, is_float=is_float))
    yield NamedFile("extensible-24.wav", wav(tones, rate, 24, extensible=True))
    for channels in (2, 6):
        parts = np.stack([_melody(generator, count, rate) for _ in range(channels)], axis=1)
        yield NamedFile(f"channels-{channels}.wav", wav(parts, rate))
    for other in (8000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000):
        if other != rate:
            yield NamedFile(f"rate-{other}.wav", wav(_melody(generator, max(1, count * other // rate), other), other))
    yield NamedFile("silence.wav", wav(np.zeros(count), rate))
    yield NamedFile("faint.wav", wav(generator.integers(-1, 2, count) / 2**15, rate))
    yield NamedFile("clipped.wav", wav(4 * tones, rate))
    yield NamedFile("loud.wav", wav(40 * tones, rate, 32, is_float=True))
    yield NamedFile("noise.wav", wav(generator.uniform(-1, 1, count), rate))
    yield NamedFile("shortest.wav", wav(_melody(generator, lengths.within(0), rate), rate))
    yield NamedFile("longest.wav", wav(_melody(generator, lengths.within(11 * rate), rate), rate, 8))


def _melody(generator: np.random.Generator, count: int, rate: int) -> Array:
    """Three tones with swelling loudness, and noise; from -1 to 1."""
    times = np.arange(count) / rate
    made = 0.02 * generator.standard_normal(count)
    for _ in range(3):
        frequency, swelling, phase = generator.uniform(90, 0.35 * min(rate, 8000)), generator.uniform(1, 9), 6.3
        loudness = 0.25 * (1 + np.sin(swelling * times * 2 * np.pi + phase * generator.random())) / 2
        made += loudness * np.sin(2 * np.pi * frequency * times)
    return np.clip(made, -1, 1)


def wav(values: Array, rate: int, bits: Bits = 16, *, is_float: bool = False, extensible: bool = False) -> bytes:
    """Return samples [samples] or [samples, channels] as a WAV file; integers are clipped to their range."""
    values = values[:, None] if values.ndim == 1 else values
    channels, kind = values.shape[1], FLOAT if is_float else PCM
    if is_float:
        data = values.astype("<f4").tobytes()
    else:
        scale = 2.0 ** (bits - 1)
        whole = np.clip(np.rint(values * scale), -scale, scale - 1).astype(np.int64)
        data = {
            8: lambda: (whole + 128).astype(np.uint8).tobytes(),
            24: lambda: np.ascontiguousarray(whole.astype("<i4").reshape(-1, 1).view(np.uint8)[:, :3]).tobytes(),
        }.get(bits, lambda: whole.astype(f"<i{bits // 8}").tobytes())()
    block = channels * bits // 8
    header = struct.pack("<HHIIHH", EXTENSIBLE if extensible else kind, channels, rate, rate * block, block, bits)
    if extensible:
        header += struct.pack("<HHIH", 22, bits, 0, kind) + _SUBTYPE
    parts = b"".join(
        name + struct.pack("<I", len(part)) + part + b"\0" * (len(part) % 2)
        for name, part in ((b"fmt ", header), (b"data", data))
    )
    return b"RIFF" + struct.pack("<I", 4 + len(parts)) + b"WAVE" + parts
