"""A fault in what surrounds the samples of a model of sounds stops the build and the self-test, each by name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support.answering import answered, runner
from tests.support.audio_parts import Change, Document, bundle_of, parts
from tests.support.bundles import runtime_module
from tests.support.make_audio_models import LENGTHS, MODELS
from tests.support.plans import accuracy

from ortc.build.answer_proof import WrongFeaturesError, check_features, check_graph
from ortc.build.audio_answers import golden_sounds
from ortc.common.arrays import write_arrays
from ortc.common.errors import AccuracyError
from ortc.evaluation.answers import TextAnswer, compare_answers
from ortc.frontend.reference.audio import ReferenceAudio
from ortc.frontend.samples.odd_sounds import odd_sounds, plain_sounds

LIMITS = {"cosine": 0.99999, "top1": 1.0, "token_errors": 0.0, "features": 1e-4}


@dataclass(frozen=True)
class Made:
    """A model with what it answers, from which a bundle is made."""

    reference: Any
    own: ReferenceAudio
    rows: list[dict[str, Any]]
    features: dict[str, Any]
    golden: list[dict[str, Any]]


@pytest.fixture(autouse=True)
def _gradients() -> Iterator[None]:
    """Loading a model switches gradients off for the whole process."""
    with torch.inference_mode(False), torch.set_grad_enabled(torch.is_grad_enabled()):
        yield


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    with torch.inference_mode(False), torch.set_grad_enabled(torch.is_grad_enabled()):
        return {name: made(tmp_path_factory.mktemp(name), name) for name in MODELS}


def made(root: Path, name: str) -> Made:
    """What the build takes down of a model: features of odd sounds, answers of samples, and golden sounds."""
    make, task = MODELS[name]
    make(root / "model")
    reference, own = parts(root / "model", task)
    rows: list[dict[str, Any]] = []
    plain = plain_sounds(LENGTHS)
    for index, file in enumerate((*plain, *odd_sounds(LENGTHS))):
        if file.name == "shortest.wav":
            continue  # a spectrogram has no frame of it
        path = root / f"sound-{index}"
        path.write_bytes(file.content)
        rows.append({"name": file.name, "path": str(path)})
    features = {str(index): own.features(Path(row["path"])) for index, row in enumerate(rows)}
    write_arrays(root / "features.npz", features)
    answers = own.answers([Path(row["path"]) for row in rows[: len(plain)]], reference)
    for row, answer in zip(rows, answers, strict=False):
        row["answer"] = answer
    golden = golden_sounds(rows, own.processing.answer, root / "features.npz")
    return Made(reference, own, rows, features, golden)


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
def test_a_planted_fault_is_named(models: dict[str, Made], tmp_path: Path, name: str) -> None:
    model, change, said = FAULTS[name]
    whole = models[model]
    bundle = bundle_of(whole.reference, whole.own, change)
    with pytest.raises((WrongFeaturesError, AccuracyError), match=said):
        build(whole, bundle)
    with pytest.raises(runtime_module("loading.errors").GoldenError, match=said):
        self_test(whole, bundle, tmp_path)


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
    models: dict[str, Made], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    model, module, constant, value = PLANTED[name]
    target = runtime_module(f"processing.audio.{module}")
    monkeypatch.setattr(target, constant, value)
    runtime_module("processing.audio.resampling")._weights.cache_clear()
    whole = models[model]
    try:
        bundle = bundle_of(whole.reference, whole.own)
        with pytest.raises(WrongFeaturesError, match=FEATURES):
            build(whole, bundle)
        with pytest.raises(runtime_module("loading.errors").GoldenError, match=FEATURES):
            self_test(whole, bundle, tmp_path)
    finally:
        runtime_module("processing.audio.resampling")._weights.cache_clear()


@pytest.mark.parametrize("name", MODELS)
def test_without_a_fault_both_pass(models: dict[str, Made], tmp_path: Path, name: str) -> None:
    whole = models[name]
    bundle = bundle_of(whole.reference, whole.own)
    build(whole, bundle)
    self_test(whole, bundle, tmp_path)


def build(whole: Made, bundle: Any) -> None:
    """What the build proves of a bundle, with PyTorch in the place of the exported graph."""
    errors = runtime_module("loading.errors")
    found, refused = {}, {}
    for index, row in enumerate(whole.rows):
        try:
            found[str(index)] = bundle.media.row(Path(row["path"]).read_bytes()).values
        except errors.InputError as error:
            refused[str(index)] = str(error)
    check_features([row["name"] for row in whole.rows], whole.features, found, refused)
    judged = [
        TextAnswer(text=row["path"], name=row["name"], answer=row["answer"], kind=bundle.kind, unit="sounds")
        for row in whole.rows
        if "answer" in row
    ]
    answers = answered(bundle, whole.reference, [Path(str(entry.text)).read_bytes() for entry in judged])
    check_graph(compare_answers(judged, answers), accuracy())


def self_test(whole: Made, bundle: Any, place: Path) -> None:
    """What the loader checks at every start."""
    path = place / "answers.json"
    path.write_text(json.dumps({"format_version": 1, "cases": whole.golden}), "utf-8")
    runtime_module("processing.golden").check(bundle, path, LIMITS, runner(whole.reference))
