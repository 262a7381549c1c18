"""Answers to sounds are those of transformers' pipelines, for a tiny seeded model of each task."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from tests.support.answering import answered
from tests.support.bundles import runtime_module
from tests.support.file_parts import gradients_as_they_are, sound_parts
from tests.support.make_audio_models import LENGTHS, MODELS

from ortc.evaluation.agreement import f1, shares
from ortc.evaluation.answers import similar
from ortc.frontend.samples.named_file import NamedFile
from ortc.frontend.samples.odd_sounds import Bits, odd_sounds, plain_sounds, wav

FILES = (*plain_sounds(LENGTHS), *odd_sounds(LENGTHS))
BITS: tuple[Bits, ...] = (8, 16, 24, 32)
MORE = 30
"""Random sounds beside these: 50 in all, at least."""


def random_sounds() -> list[NamedFile]:
    """Noise under tones of random lengths, rates, forms and numbers of channels."""
    random, made = np.random.default_rng(9), []
    for index in range(MORE):
        rate = 500 * int(random.integers(8, 100))
        count = int(random.uniform(0.15, 0.45) * rate)
        tones = np.sin(np.outer(np.arange(count), random.uniform(0.005, 1.5, int(random.integers(1, 4)))))
        values = tones * random.uniform(0.1, 1) + random.normal(0, 0.05, tones.shape)
        made.append(NamedFile(f"random-{index}.wav", wav(values, rate, BITS[index % len(BITS)])))
    return made


@pytest.fixture(autouse=True)
def _gradients() -> Iterator[None]:
    with gradients_as_they_are():
        yield


@pytest.mark.parametrize("name", MODELS)
def test_answers_are_those_of_the_pipeline(name: str, tmp_path: Path) -> None:
    make, task = MODELS[name]
    make(tmp_path / "model")
    parts = sound_parts(tmp_path / "model", task)
    reference, own, bundle = parts.reference, parts.own, parts.bundle()
    known = {"ctc": "automatic-speech-recognition"}.get(task, task)
    more: dict[str, Any] = {"top_k": None} if task == "audio-classification" else {}
    ask: Any = transformers.pipeline(known, model=str(tmp_path / "model"), **more)
    said = set()
    for file in (*FILES, *random_sounds()):
        path = tmp_path / "sound.wav"
        path.write_bytes(file.content)
        if name == "spectrograms" and len(own.samples(path)) < 400:
            continue
        assert np.abs(bundle.media.row(file.content).values - own.array(path)).max() < 1e-5, file.name
        (found,) = answered(bundle, reference, [file.content])
        (of_reference,) = own.answers([path], reference)
        wanted = ask(own.samples(path), **more)
        said.add(wanted["text"] if task == "ctc" else wanted[0]["label"])
        for answer in (found, of_reference):
            assert f1(shares(bundle.kind, wanted, answer)) == 1, file.name
            assert f1(runtime_module("processing.agreement").shares(bundle.kind, wanted, answer)) == 1
            assert similar(bundle.kind, wanted, answer) > 0.999999, file.name
    assert len(said) > 1
