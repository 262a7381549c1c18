"""A fault in what surrounds the samples of a model of sounds stops the build and the self-test, each by name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.bundles import runtime_module
from tests.support.file_parts import Change, Document, Judged, gradients_as_they_are, judged, sound_parts
from tests.support.make_audio_models import LENGTHS, MODELS

from ortc.build.answer_proof import WrongArraysError
from ortc.common.errors import AccuracyError
from ortc.frontend.samples.odd_sounds import odd_sounds, plain_sounds


@pytest.fixture(autouse=True)
def _gradients() -> Iterator[None]:
    with gradients_as_they_are():
        yield


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Judged]:
    with gradients_as_they_are():
        return {name: made(tmp_path_factory.mktemp(name), name) for name in MODELS}


def made(root: Path, name: str) -> Judged:
    make, task = MODELS[name]
    make(root / "model")
    # A spectrogram has no frame of the shortest sound.
    odd = [file for file in odd_sounds(LENGTHS) if file.name != "shortest.wav"]
    return judged(root, sound_parts(root / "model", task), plain_sounds(LENGTHS), odd)


def of_features(**values: Any) -> Change:
    def change(document: Document) -> None:
        settings = document["audio"]["features"]
        assert settings != {**settings, **values}
        settings.update(values)

    return change


def of_spelling(**values: Any) -> Change:
    def change(document: Document) -> None:
        spelling = document["answer"]["spelling"]
        assert spelling != {**spelling, **values}
        spelling.update(values)

    return change


def rate(document: Document) -> None:
    document["audio"]["rate"] = document["audio"]["rate"] * 11 // 10


def labels(document: Document) -> None:
    document["answer"]["labels"] = document["answer"]["labels"][::-1]


def logits(document: Document) -> None:
    document["answer"]["output"] = "logits"


def letters(document: Document) -> None:
    tokens = document["answer"]["spelling"]["tokens"]
    document["answer"]["spelling"]["tokens"] = [*tokens[:5], *tokens[5:][::-1]]


def unnormalized(document: Document) -> None:
    del document["audio"]["features"]["mean"], document["audio"]["features"]["std"]


FEATURES, ANSWER = "features (of shape|that differ by)|becomes (other )?features", "top1|cosine|token_errors"
REFUSED = f"{FEATURES}|refuse"
FAULTS: dict[str, tuple[str, Change, str]] = {
    "no normalization": ("classifier", of_features(normalize=False), FEATURES),
    "other rate": ("classifier", rate, REFUSED),
    "permuted labels": ("classifier", labels, ANSWER),
    "logits in the place of scores": ("classifier", logits, ANSWER),
    "other blank": ("speller", of_spelling(blank=6), ANSWER),
    "other delimiter": ("speller", of_spelling(delimiter="E"), ANSWER),
    "flipped lower-casing": ("speller", of_spelling(lower_case=False), ANSWER),
    "permuted letters": ("speller", letters, ANSWER),
    "other mean": ("spectrograms", of_features(mean=-4.0), FEATURES),
    "other deviation": ("spectrograms", of_features(std=4.0), FEATURES),
    "spectrogram without normalization": ("spectrograms", unnormalized, FEATURES),
    "other rate of a spectrogram": ("spectrograms", rate, FEATURES),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_named(models: dict[str, Judged], tmp_path: Path, name: str) -> None:
    model, change, said = FAULTS[name]
    whole = models[model]
    bundle = whole.parts.bundle(change)
    with pytest.raises((WrongArraysError, AccuracyError), match=said):
        whole.build(bundle)
    with pytest.raises(runtime_module("loading.errors").GoldenError, match=said):
        whole.self_test(bundle, tmp_path)


PLANTED: dict[str, tuple[str, str, str, Any]] = {
    "no window": ("spectrograms", "features", "FRAME", 320),
    "other overlap": ("spectrograms", "features", "HOP", 200),
    "other pre-emphasis": ("spectrograms", "features", "PREEMPHASIS", 0.9),
    "other floor": ("spectrograms", "features", "FLOOR", 1e-3),
    "other mel scale": ("spectrograms", "features", "MEL_BREAK", 1000.0),
    "other variance": ("classifier", "features", "LEAST_VARIANCE", 1e-2),
    "other cutoff": ("classifier", "resampling", "ROLLOFF", 0.8),
    "fewer neighbours": ("classifier", "resampling", "ZEROS", 3),
}


@pytest.mark.parametrize("name", PLANTED)
def test_other_arithmetic_is_named(
    models: dict[str, Judged], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    model, module, constant, value = PLANTED[name]
    target = runtime_module(f"processing.audio.{module}")
    monkeypatch.setattr(target, constant, value)
    runtime_module("processing.audio.resampling")._weights.cache_clear()
    whole = models[model]
    try:
        bundle = whole.parts.bundle()
        with pytest.raises(WrongArraysError, match=FEATURES):
            whole.build(bundle)
        with pytest.raises(runtime_module("loading.errors").GoldenError, match=FEATURES):
            whole.self_test(bundle, tmp_path)
    finally:
        runtime_module("processing.audio.resampling")._weights.cache_clear()


@pytest.mark.parametrize("name", MODELS)
def test_without_a_fault_both_pass(models: dict[str, Judged], tmp_path: Path, name: str) -> None:
    whole = models[name]
    bundle = whole.parts.bundle()
    whole.build(bundle)
    whole.self_test(bundle, tmp_path)
