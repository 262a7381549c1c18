"""Bundles that take sounds: built from a repository with a feature extractor, proven from the file to the answer."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support import bundles
from tests.support.builds import PLAIN, ROOT, Build, Compiler, answer, loader, refusal
from tests.support.shared import shared

from ortc.common.resources import cache_root
from ortc.execution.runtime_environment import environment

pytestmark = pytest.mark.integration

SPEC = """
apiVersion: ortc/v1alpha1
kind: ModelDeployment
name: speller
version: 1.0.0
model: {source: huggingface, path: speller, task: ctc}
export:
  opset: 17
  exporter: torchscript
  dynamic_axes: {batch: {min: 1, max: 4}, samples: {min: 400, typical: 2000, max: 4000}}
targets: {cpu: {}}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with tiny models of sounds, and what transformers answers with them."""

    def make(root: Path) -> None:
        command = [sys.executable, "-m", "tests.support.make_audio_models", str(root)]
        subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
        (root / "speller.yaml").write_text(SPEC, "utf-8")
        for name in ("classifier", "spectrograms"):
            text = SPEC.replace("speller", name).replace("task: ctc", "task: audio-classification")
            if name == "spectrograms":
                text = text.replace(", samples: {min: 400, typical: 2000, max: 4000}", "")
            (root / f"{name}.yaml").write_text(text, "utf-8")
        (root / ".git").mkdir()

    return shared(tmp_path_factory, "audio-models", make)


@pytest.fixture(scope="module")
def built(ortc: Compiler, place: Path, tmp_path_factory: pytest.TempPathFactory) -> Build:
    output = tmp_path_factory.mktemp("audio-answers") / "dist"
    return ortc.build(place / "speller.yaml", *PLAIN, output=output).succeeded()


@pytest.fixture(scope="module")
def python(built: Build) -> Path:
    requirements = (built.bundle("speller", "cpu") / "requirements.txt").read_text("utf-8")
    return environment(requirements, cache_root() / "environments")


def test_the_bundle_has_what_sounds_need_and_nothing_else(built: Build) -> None:
    bundle = built.bundle("speller", "cpu")
    processing = json.loads((bundle / "manifest.json").read_bytes())["processing"]
    assert (processing["takes"], processing["kind"], processing["tokenizer"]) == ("audio", "transcript", None)
    tolerance = {"cosine": 0.99999, "f1": None, "top1": None, "token_errors": 0.0, "pixels": None, "features": 1e-4}
    assert processing["golden"]["tolerance"] == tolerance
    requirements = (bundle / "requirements.txt").read_text("utf-8")
    assert not [name for name in ("pillow", "tokenizers", "torch", "transformers") if f"{name}==" in requirements]
    assert (bundle / "runtime/processing/audio/wav.py").is_file()
    assert not (bundle / "runtime/processing/images").exists()
    assert 'model.answer("sound.wav")' in (bundle / "README.md").read_text("utf-8")
    golden = json.loads((bundle / "golden/answers.json").read_bytes())["cases"]
    assert [case["name"] for case in golden if case["answer"] is None] == [
        *("pcm-24.wav", "float-32.wav", "channels-2.wav", "rate-44100.wav")
    ]
    assert any(case["answer"]["text"] for case in golden if case["answer"])


def test_the_build_judges_transcripts(built: Build) -> None:
    (target,) = built.report("speller")["targets"]
    gates = {verdict["gate"]: verdict["outcome"] for verdict in target["verdicts"]}
    assert (gates["answer_token_errors"], gates["answer_cosine"]) == ("pass", "pass")


def run(ortc: Compiler, bundle: Path, files: list[str]) -> list[Any]:
    """The answers that `ortc run` prints."""
    command = [sys.executable, "-m", "ortc", "run", str(bundle), "--json", *files]
    done = subprocess.run(command, cwd=ROOT, env=ortc.environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [row["answer"] for row in json.loads(done.stdout)]


def test_transcripts_are_those_of_transformers(ortc: Compiler, built: Build, place: Path) -> None:
    expected = json.loads((place / "expected.json").read_bytes())["speller"]
    files = [str(place / "sounds" / name) for name in expected]
    found = run(ortc, built.bundle("speller", "cpu"), files)
    assert found == list(expected.values())
    assert len({answer["text"] for answer in found}) > 10


@pytest.mark.parametrize("name", ["classifier", "spectrograms"])
def test_classes_are_those_of_transformers(ortc: Compiler, place: Path, tmp_path: Path, name: str) -> None:
    built = ortc.build(place / f"{name}.yaml", *PLAIN, output=tmp_path / "dist").succeeded()
    (target,) = built.report(name)["targets"]
    gates = {verdict["gate"]: verdict["outcome"] for verdict in target["verdicts"]}
    assert (gates["answer_top1"], gates["answer_cosine"]) == ("pass", "pass")
    expected = json.loads((place / "expected.json").read_bytes())[name]
    found = run(ortc, built.bundle(name, "cpu"), [str(place / "sounds" / file) for file in expected])
    for answer_, wanted in zip(found, expected.values(), strict=True):
        scores = [{entry["label"]: entry["score"] for entry in row} for row in (answer_, wanted)]
        assert all(np.isclose(scores[0][label], score, atol=1e-5) for label, score in scores[1].items())


def test_the_loader_takes_files_and_refuses_others(built: Build, python: Path, place: Path) -> None:
    expected = json.loads((place / "expected.json").read_bytes())["speller"]
    bundle = built.bundle("speller", "cpu")
    (found,) = answer(loader(python, bundle, "answer", str(place / "sounds" / "rate-44100.wav")))["answers"]
    assert found == expected["rate-44100.wav"]
    assert "is no WAV file" in refusal(loader(python, bundle, "answer", str(place / "expected.json")), "input")
    assert "cannot be read" in refusal(loader(python, bundle, "answer", str(place / "none.wav")), "input")


def test_a_fault_in_the_processing_fails_the_selftest(built: Build, python: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(built.bundle("speller", "cpu"), bundle)
    path = bundle / "processing/processing.json"
    path.write_text(path.read_text("utf-8").replace('"normalize": true', '"normalize": false'), "utf-8")
    bundles.seal(bundle)
    assert "becomes other features" in refusal(loader(python, bundle, "selftest"), "golden")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"feature_extractor_type": "SeamlessM4TFeatureExtractor"},
            "the feature extractor SeamlessM4TFeatureExtractor is not reproduced",
        ),
        ({"processor_class": "Wav2Vec2ProcessorWithLM"}, "the language model of Wav2Vec2ProcessorWithLM is not"),
    ],
)
def test_an_extractor_that_is_not_reproduced_is_refused_by_name(
    ortc: Compiler, place: Path, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    shutil.copytree(place, tmp_path / "project")
    path = tmp_path / "project" / "speller" / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | change), "utf-8")
    done = ortc.build(tmp_path / "project" / "speller.yaml", *PLAIN, output=tmp_path / "dist")
    message = done.failed(3)
    assert said in message
    assert "interface: tensors" in message
