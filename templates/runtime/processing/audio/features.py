"""What a model's feature extractor makes of a sound: the wave as it is or normalized, or a log-mel spectrogram.

The arithmetic is that of transformers' Wav2Vec2FeatureExtractor, and of its ASTFeatureExtractor without torchaudio.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from loading.errors import FormatError, InputError
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Samples = NDArray[np.float32]
LEAST_VARIANCE = 1e-7
FRAME, HOP, TRANSFORM = 400, 160, 512
"""Samples of a frame, between the beginnings of two frames, and of a Fourier transform."""
PREEMPHASIS = 0.97
FLOOR = 1.192092955078125e-07
"""Least energy of a band, the step of float32 at 1."""
LOWEST = 20  # hertz of the first band
MEL_SCALE, MEL_BREAK = 1127.0, 700.0


class Features(Protocol):
    """What becomes of a sound at the model's rate."""

    most: int | None
    """Samples that are looked at; None for all."""

    def shape(self, samples: int) -> tuple[int, ...]:
        """The shape of what so many samples become."""

    def of(self, samples: Samples) -> Samples:
        """What samples become.

        Raises:
            InputError: there are too few.
        """

    def memory(self, samples: int) -> int:
        """The most bytes that this takes beside the samples."""


def features_of(settings: Mapping[str, Any], rate: int) -> Features:
    """The features of processing.json.

    Raises:
        FormatError: their kind is unknown.
    """
    match settings["kind"]:
        case "wave":
            return WaveFeatures(normalize=bool(settings["normalize"]))
        case "log_mel":
            return LogMel(settings, rate)
    raise FormatError(f"the features {settings['kind']!r} are unknown, expected wave or log_mel")


class WaveFeatures:
    """The samples, [samples]; normalized to mean 0 and variance 1 where the model was trained so."""

    most: int | None = None

    def __init__(self, *, normalize: bool) -> None:
        self._normalize = normalize

    def shape(self, samples: int) -> tuple[int, ...]:
        """[samples]."""
        return (samples,)

    def of(self, samples: Samples) -> Samples:
        """The samples as the model takes them."""
        if not self._normalize:
            return samples
        made: Samples = (samples - samples.mean()) / np.sqrt(samples.var() + LEAST_VARIANCE)
        return made

    def memory(self, samples: int) -> int:
        """Three copies of the samples."""
        return 12 * samples


class LogMel:
    """Logarithms of the energies of mel bands, [frames, bands]: cut to so many frames, or with zeros after them."""

    def __init__(self, settings: Mapping[str, Any], rate: int) -> None:
        self._frames, self._bands = int(settings["frames"]), int(settings["bands"])
        self._mean, self._std = (float(settings["mean"]), float(settings["std"])) if "mean" in settings else (0.0, 0.0)
        self._normalize = "mean" in settings
        self.most: int | None = (self._frames - 1) * HOP + FRAME
        self._filters, self._window = mel_filters(self._bands, rate), np.hanning(FRAME)

    def shape(self, samples: int) -> tuple[int, ...]:
        """[frames, bands], however many samples there are."""
        del samples
        return self._frames, self._bands

    def of(self, samples: Samples) -> Samples:
        """The spectrogram of the first frames."""
        if len(samples) < FRAME:
            raise InputError(f"a sound has {len(samples)} samples at the model's rate. Send {FRAME} at least.")
        frames = sliding_window_view(samples[: self.most], FRAME)[::HOP].astype(np.float64)
        frames -= frames.mean(axis=1, keepdims=True)
        frames[:, 1:] -= PREEMPHASIS * frames[:, :-1]
        frames[:, 0] *= 1 - PREEMPHASIS
        # The extractor keeps spectra as complex64.
        spectra = np.fft.rfft(frames * self._window, TRANSFORM).astype(np.complex64)
        energies = np.maximum(FLOOR, (np.abs(spectra.astype(np.complex128)) ** 2) @ self._filters)
        made = np.zeros((self._frames, self._bands), np.float32)
        made[: len(energies)] = np.log(energies)
        return ((made - self._mean) / (self._std * 2)).astype(np.float32) if self._normalize else made

    def memory(self, samples: int) -> int:
        """Frames and their spectra, each a few times."""
        del samples
        return self._frames * (8 * (3 * FRAME + 4 * TRANSFORM) + 32 * self._bands)


def mel_filters(bands: int, rate: int) -> NDArray[np.float64]:
    """Triangles between neighbours of equal distance in mels, [frequencies, bands], by Kaldi's scale.

    A frequency f is 1127 ln(1 + f / 700) mels; the first triangle begins at 20 Hz, the last ends at half of the rate.
    """

    def mels(frequency: Any) -> Any:
        return MEL_SCALE * np.log(1.0 + frequency / MEL_BREAK)

    edges = np.linspace(mels(LOWEST), mels(rate // 2), bands + 2)
    bins = mels(rate / TRANSFORM * np.arange(TRANSFORM // 2 + 1))
    slopes = edges[None] - bins[:, None]
    widths = np.diff(edges)
    made: NDArray[np.float64] = np.maximum(0.0, np.minimum(-slopes[:, :-2] / widths[:-1], slopes[:, 2:] / widths[1:]))
    return made
