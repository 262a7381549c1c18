"""Sounds as a bundle reads them: their forms, their bounds, what they take of memory, and damaged files."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.bundles import runtime_module

from ortc.common.errors import StageError
from ortc.frontend.samples.odd_sounds import Bits, wav
from ortc.frontend.samples.sounds import read_sound, resample

wave_files, resampling, features, inputs, forms = (
    runtime_module(f"processing.audio.{name}") for name in ("wav", "resampling", "features", "inputs", "forms")
)
errors = runtime_module("loading.errors")
RATE = 8000
TONE = np.sin(np.arange(3000) / 7) * 0.4


def audio(settings: dict[str, Any] | None = None, axis: tuple[int, int, int] = (400, 4000, 1)) -> Any:
    """What reads sounds of 0.05 to 0.5 seconds."""
    made = {"input": "input_values", "rate": RATE, "features": settings or {"kind": "wave", "normalize": False}}
    shapes = {"input_values": (("batch", "samples"), np.dtype(np.float32))}
    return inputs.Audio(made, shapes, {"batch": (1, 4, 1), "samples": axis})


def file(header: bytes, data: bytes, *, size: int | None = None) -> bytes:
    """A WAV file of a header and samples, which may lie about how many bytes these have."""
    parts = b"fmt " + struct.pack("<I", len(header)) + header
    parts += b"data" + struct.pack("<I", len(data) if size is None else size) + data
    return b"RIFF" + struct.pack("<I", 4 + len(parts)) + b"WAVE" + parts


def header(kind: int = 1, channels: int = 1, rate: int = RATE, bits: int = 16, block: int | None = None) -> bytes:
    """The header of a WAV file."""
    block = channels * bits // 8 if block is None else block
    return struct.pack("<HHIIHH", kind, channels, rate, (rate * block) % 2**32, block % 2**16, bits)


@pytest.mark.parametrize("bits", [8, 16, 24, 32])
@pytest.mark.parametrize("channels", [1, 2, 3, 7])
def test_integers_of_all_sizes_are_read(bits: Bits, channels: int) -> None:
    values = np.stack([TONE * (0.9**place) for place in range(channels)], axis=1)
    for extensible in (False, True):
        found = audio().row(wav(values, RATE, bits, extensible=extensible)).values
        assert found.dtype == np.float32
        assert np.abs(found - values.mean(axis=1)).max() <= 0.51 / 2 ** (bits - 1) + 1e-7
    whole = np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1, 0]) / 2.0 ** (bits - 1)
    exact = wave_files.opened(wav(whole, RATE, bits)).mono(3)
    assert np.array_equal(exact, whole.astype(np.float32))


def test_float_samples_are_read_as_they_are() -> None:
    values = (TONE * 30).astype(np.float32)
    assert np.array_equal(audio().row(wav(values, RATE, 32, is_float=True)).values, values)
    assert np.array_equal(audio().row(values).values, values)
    assert np.array_equal(audio().row(values.astype(np.float64)).values, values)
    assert np.array_equal(audio().row({"audio": values}["audio"]).values, values)


@pytest.mark.parametrize("other", [1000, 8000, 11_025, 12_000, 16_000, 44_100, 48_000, 96_000, 192_000, 384_000])
@pytest.mark.parametrize("wanted", [8000, 16_000])
def test_resampling_is_that_of_the_reference(other: int, wanted: int) -> None:
    values = np.random.default_rng(other).uniform(-1, 1, max(30, other // 10)).astype(np.float32)
    found = resampling.resampled(values, other, wanted)
    assert len(found) == resampling.length_of(len(values), other, wanted)
    assert np.abs(found - resample(values, other, wanted)).max() < 1e-7
    # The beginning depends on the beginning alone.
    count = len(found) // 3
    part = resampling.resampled(values[: resampling.needed(count, other, wanted)], other, wanted)
    assert np.array_equal(part[:count], found[:count])


def test_a_tone_stays_the_same_tone_at_another_rate() -> None:
    seconds, frequency = 0.2, 440.0
    for other in (11_025, 44_100):
        tone = np.sin(2 * np.pi * frequency * np.arange(int(seconds * other)) / other).astype(np.float32)
        found = resampling.resampled(tone, other, RATE)
        wanted = np.sin(2 * np.pi * frequency * np.arange(len(found)) / RATE)
        assert np.abs(found - wanted)[100:-100].max() < 2e-3


GOOD = struct.pack("<500h", *range(500))
HOSTILE: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "is no WAV file"),
    "another format": (b"OggS" + bytes(64), "is no WAV file"),
    "a text": (b"RIFF or not", "is no WAV file"),
    "a header alone": (b"RIFF\x24\0\0\0WAVE", "without samples"),
    "no samples": (file(header(), b""), "has 0 bytes of samples"),
    "no header": (b"RIFF\0\0\0\0WAVEdata" + struct.pack("<I", 4) + bytes(4), "samples before the header"),
    "a short header": (file(b"\1\0\1\0", GOOD), "header of 4 bytes"),
    "more samples than follow": (file(header(), GOOD, size=1002), "states 1002 bytes of data, and 1000 follow"),
    "2^32 samples": (file(header(), GOOD, size=2**32 - 1), "states 4294967295 bytes of data"),
    "an open end": (file(header(), GOOD)[:-7], "Send a whole file"),
    "a header beyond the end": (b"RIFF\0\0\0\0WAVEfmt " + struct.pack("<I", 2**31) + bytes(20), "bytes of fmt"),
    "half a sample": (file(header(), GOOD[:-1]), "has 999 bytes of samples"),
    "no channels": (file(header(channels=0, block=2), GOOD), "has 0 channels"),
    "other channels": (file(header(channels=2, block=2), GOOD), "has 2 channels of 16 bits in 2 bytes"),
    "65535 channels": (file(header(channels=65535), GOOD), "has 65535 channels of 16 bits in 65534 bytes"),
    "no samples per second": (file(header(rate=0), GOOD), "has 0 samples per second"),
    "too many per second": (file(header(rate=2**32 - 1), GOOD), "has 4294967295 samples per second"),
    "no bits": (file(header(bits=0), GOOD), "format 1 with 0 bits"),
    "12 bits": (file(header(bits=12), GOOD), "format 1 with 12 bits"),
    "64 bits of float": (file(header(kind=3, bits=64), GOOD), "format 3 with 64 bits"),
    "A-law": (file(header(kind=6, bits=8), GOOD), "format 6 with 8 bits"),
    "ADPCM": (file(header(kind=2, bits=4, block=256), GOOD), "format 2 with 4 bits"),
    "an unknown subformat": (file(header(kind=0xFFFE) + bytes(24), GOOD), "extended header of another form"),
    "NaN": (file(header(kind=3, bits=32), struct.pack("<500f", *[0.0] * 499, np.nan)), "NaN or infinity at sample 499"),
    "infinity": (file(header(kind=3, bits=32), struct.pack("<500f", np.inf, *[0.0] * 499)), "infinity at sample 0"),
    "too short": (wav(TONE[:399], RATE), "399 samples at the model's rate, 0.050 seconds"),
    "too long": (wav(np.resize(TONE, 4001), RATE), "takes 400 to 4000"),
    "too long at its rate": (wav(np.resize(TONE, 60_000), 96_000, 8), "has 5000 samples at the model's rate"),
    "too many bytes": (bytes(2**25 + 1), "has 33554433 bytes"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_with_the_reason(name: str) -> None:
    content, said = HOSTILE[name]
    with pytest.raises(errors.InputError) as raised:
        audio().row(content)
    assert said in str(raised.value)
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        ("a.wav", "a sound is a str"),
        (7, "a sound is a int"),
        (np.zeros(500, np.int16), "array of int16 [500]. Expected float32 [samples], with 8000 samples per second"),
        (np.zeros((1, 500), np.float32), "array of float32 [1, 500]"),
        (np.full(500, np.nan, np.float32), "NaN or infinity at sample 0"),
        (np.full(500, 1e300), "NaN or infinity at sample 0"),
        (np.zeros(0, np.float32), "has 0 samples"),
    ],
)
def test_what_is_no_sound_is_refused(given_: Any, said: str) -> None:
    with np.errstate(over="ignore"), pytest.raises(errors.InputError) as raised:
        audio().row(given_)
    assert said in str(raised.value)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_damaged_file_is_read_or_refused(data: Any) -> None:
    content = bytearray(wav(np.stack([TONE[:500]] * 2, axis=1), 11_025, 16, extensible=True))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, 79))] = data.draw(st.integers(0, 255))
    cut = bytes(content[: data.draw(st.integers(0, len(content)))])
    source = audio()
    try:
        size = source.memory(cut)
        row = source.row(cut)
    except errors.InputError:
        return
    assert size < 2**27
    assert row.values.shape[0] <= 4000
    assert np.isfinite(row.values).all()


def test_samples_beyond_all_measure_are_refused() -> None:
    loud = file(header(kind=3, bits=32), struct.pack("<500f", *np.resize([3e38, -1e38], 500)))
    for settings_ in ({"kind": "wave", "normalize": True}, {"kind": "wave", "normalize": False}):
        source = audio(settings_)
        if settings_["normalize"]:
            with pytest.raises(errors.InputError, match=r"samples up to 3e\+38 becomes no finite features"):
                source.row(loud)
        else:
            assert np.isfinite(source.row(loud).values).all()


def test_chunks_that_are_not_known_are_passed_over(tmp_path: Any) -> None:
    plain = wav(TONE, RATE)
    listed = b"LIST" + struct.pack("<I", 5) + b"odd.." + b"\0"
    content = plain[:12] + listed + plain[12:] + listed
    assert np.array_equal(audio().row(content).values, audio().row(plain).values)
    (tmp_path / "a.wav").write_bytes(content)
    assert np.array_equal(audio().row(plain).values, read_sound(tmp_path / "a.wav", RATE))


def test_a_spectrogram_is_made_of_the_beginning_alone() -> None:
    settings_ = {"kind": "log_mel", "frames": 20, "bands": 32, "mean": -4.0, "std": 4.0}
    shapes = {"input_values": (("batch", 20, 32), np.dtype(np.float32))}
    made = inputs.Audio({"input": "input_values", "rate": RATE, "features": settings_}, shapes, {"batch": (1, 4, 1)})
    random = np.random.default_rng(0)
    long = random.uniform(-1, 1, 40_000)
    first = made.row(wav(long, 11_025)).values
    assert first.shape == (20, 32)
    assert np.array_equal(first, made.row(wav(long[:9000], 11_025)).values)
    assert not np.array_equal(first, made.row(wav(long[1:], 11_025)).values)
    assert made.memory(wav(long, 11_025)) < made.memory(wav(np.resize(long, 10), 11_025)) + 2**20
    with pytest.raises(errors.InputError, match=r"has 399 samples at the model's rate\. Send 400 at least"):
        made.row(wav(long[:399], RATE))


def test_sounds_of_one_length_share_a_run() -> None:
    made = audio()
    rows = [made.row(np.zeros(size, np.float32)) for size in (400, 500, 400, 400)]
    assert list(made.runs(rows, 2)) == [[0, 2], [3], [1]]
    assert made.inputs([rows[0], rows[2]])["input_values"].shape == (2, 400)


def test_memory_is_bounded_by_what_a_file_states() -> None:
    made = audio()
    short, long = (made.memory(wav(TONE[:count], RATE)) for count in (500, 3000))
    assert short < long < 2**25
    # Every pair of rates, within the bound of a request.
    assert made.memory(wav(np.resize(TONE, 40_000), 383_999, 8)) < 2**27
    for content, _ in list(HOSTILE.values())[:20]:
        with pytest.raises(errors.InputError):
            made.memory(content)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"features": {"kind": "mfcc"}}, "features 'mfcc' are unknown"),
        ({"features": {"kind": "log_mel", "frames": 20, "bands": 32}}, "2 dimensions, expected 3"),
        ({"input": "waves"}, r"takes \['input_values'\], expected waves"),
    ],
)
def test_settings_that_are_not_understood_are_format_errors(change: dict[str, Any], said: str) -> None:
    made = {"input": "input_values", "rate": RATE, "features": {"kind": "wave", "normalize": True}, **change}
    shapes = {"input_values": (("batch", "samples"), np.dtype(np.float32))}
    with pytest.raises(errors.FormatError, match=said):
        inputs.Audio(made, shapes, {"batch": (1, 4, 1), "samples": (400, 4000, 1)})


SPELLING = {
    "tokens": ["<pad>", "<s>", "|", "A", "N", "'", "T", "."],
    "blank": 0,
    "delimiter": "|",
    "space": " ",
    "lower_case": True,
    "clean_up": True,
}


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        ([], ""),
        ([0, 0, 0], ""),
        ([3, 3, 0, 3, 4, 4], "aan"),
        ([2, 3, 2, 2, 4, 2], "a n"),
        ([3, 2, 0, 2, 4], "a  n"),
        ([3, 2, 7, 7], "a."),
        ([4, 2, 4, 5, 6], "nn't"),
        ([1, 3], "<s>a"),
    ],
)
def test_tokens_are_joined_to_a_text(tokens: list[int], text: str) -> None:
    made = forms.Transcript({"output": "logits", "spelling": SPELLING}, audio())
    assert made.text(tokens) == text
    scores = np.eye(8)[tokens][None] if tokens else np.zeros((1, 0, 8))
    assert made.answer(None, (), [made.values({"logits": scores}, 0, None)]) == {"text": text}


def test_a_transcript_refuses_another_number_of_tokens() -> None:
    made = forms.Transcript({"output": "logits", "spelling": SPELLING}, audio())
    with pytest.raises(errors.FormatError, match="scores of 7 tokens, expected 8"):
        made.values({"logits": np.zeros((1, 3, 7))}, 0, None)
    with pytest.raises(errors.FormatError, match="the blank is token 9 of 8"):
        forms.Transcript({"output": "logits", "spelling": {**SPELLING, "blank": 9}}, audio())
    with pytest.raises(errors.InputError, match="takes sounds and has no prompts"):
        made.rows(b"", "query")
    with pytest.raises(errors.InputError, match=r"a request has \['image'\]. Expected audio"):
        made.rows({"image": b""}, None)


def test_a_sample_of_no_rate_is_refused(tmp_path: Path) -> None:
    """Found by the fuzzer: the rate is a divisor."""
    content = bytearray(wav(np.zeros(8), RATE))
    content[24:28] = bytes(4)
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(StageError, match=r"the sound `a\.wav` cannot be read: it states 0 samples per second"):
        read_sound(tmp_path / "a.wav", RATE)
