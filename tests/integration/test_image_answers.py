"""Bundles that take images: built from a repository with an image processor, and proven from the file to the label."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support import bundles
from tests.support.builds import PLAIN, ROOT, Build, Compiler, answer, loader, project_with, python_of, refusal

pytestmark = pytest.mark.integration

SPEC = """
apiVersion: ortc/v1alpha1
kind: ModelDeployment
name: classifier
version: 1.0.0
model: {source: huggingface, path: classifier, task: image-classification}
export:
  opset: 17
  dynamic_axes: {batch: {min: 1, max: 4}}
targets: {cpu: {}}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with tiny models of images, and what transformers answers with them."""
    tasks = {"detector": "object-detection", "embedder": "image-feature-extraction", "estimator": "depth-estimation"}
    specs = {
        f"{name}.yaml": SPEC.replace("classifier", name).replace("image-classification", task)
        for name, task in {"classifier": "image-classification", **tasks}.items()
    }
    return project_with(tmp_path_factory, "image-models", ["-m", "tests.support.make_image_models"], specs)


@pytest.fixture(scope="module")
def built(ortc: Compiler, place: Path, tmp_path_factory: pytest.TempPathFactory) -> Build:
    output = tmp_path_factory.mktemp("image-answers") / "dist"
    return ortc.build(place / "classifier.yaml", *PLAIN, output=output).succeeded()


@pytest.fixture(scope="module")
def python(built: Build) -> Path:
    return python_of(built.bundle("classifier", "cpu"))


def test_the_bundle_has_what_images_need_and_nothing_of_texts(built: Build) -> None:
    bundle = built.bundle("classifier", "cpu")
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    assert [entry["name"] for entry in manifest["outputs"]] == ["logits", "probabilities"]
    processing = manifest["processing"]
    assert (processing["takes"], processing["kind"], processing["tokenizer"]) == ("image", "labels", None)
    limits = {name: limit for name, limit in processing["golden"]["tolerance"].items() if limit is not None}
    assert limits == {"cosine": 0.99999, "top1": 1.0, "pixels": 1e-5}
    requirements = (bundle / "requirements.txt").read_text("utf-8")
    assert "pillow==" in requirements
    assert "tokenizers" not in requirements
    assert (bundle / "runtime/processing/images/steps.py").is_file()
    assert 'model.answer("image.jpg")' in (bundle / "README.md").read_text("utf-8")
    assert "COPY processing/ processing/" in (bundle / "Dockerfile").read_text("utf-8")


def test_the_build_judges_answers(built: Build) -> None:
    (target,) = built.report("classifier")["targets"]
    gates = {verdict["gate"]: verdict["outcome"] for verdict in target["verdicts"]}
    assert (gates["answer_top1"], gates["answer_cosine"]) == ("pass", "pass")


def run(ortc: Compiler, bundle: Path, files: list[str]) -> list[Any]:
    """The answers that `ortc run` prints."""
    command = [sys.executable, "-m", "ortc", "run", str(bundle), "--json", *files]
    done = subprocess.run(command, cwd=ROOT, env=ortc.environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [row["answer"] for row in json.loads(done.stdout)]


def same(found: list[Any], expected: list[Any]) -> bool:
    scores = [[entry["score"] for entry in row] for row in (found, expected)]
    return [row["label"] for row in found] == [row["label"] for row in expected] and np.allclose(*scores, atol=1e-5)


def test_answers_are_those_of_transformers(ortc: Compiler, built: Build, place: Path) -> None:
    expected = json.loads((place / "expected.json").read_bytes())["classifier"]
    files = [str(place / "images" / name) for name in expected]
    assert all(map(same, run(ortc, built.bundle("classifier", "cpu"), files), expected.values()))


def test_a_detector_answers_with_boxes(ortc: Compiler, place: Path, tmp_path: Path) -> None:
    built = ortc.build(place / "detector.yaml", *PLAIN, output=tmp_path / "dist").succeeded()
    (target,) = built.report("detector")["targets"]
    gates = {verdict["gate"]: verdict["outcome"] for verdict in target["verdicts"]}
    assert (gates["answer_f1"], gates["answer_cosine"]) == ("pass", "pass")
    expected = json.loads((place / "expected.json").read_bytes())["detector"]
    assert sum(map(len, expected.values())) > 10
    found = run(ortc, built.bundle("detector", "cpu"), [str(place / "images" / name) for name in expected])
    for answer_, wanted in zip(found, expected.values(), strict=True):
        scores = [[entry.pop("score") for entry in row] for row in (answer_, wanted)]
        assert np.allclose(*scores, atol=1e-5)
        assert [entry["label"] for entry in answer_] == [entry["label"] for entry in wanted]
        sides = [[list(entry["box"].values()) for entry in row] for row in (answer_, wanted)]
        # A side is cut to a whole pixel: one that is near a whole number may go either way.
        assert np.abs(np.array(sides[0]) - np.array(sides[1])).max(initial=0) <= 1


def test_an_encoder_answers_with_a_vector(ortc: Compiler, place: Path, tmp_path: Path) -> None:
    built = ortc.build(place / "embedder.yaml", *PLAIN, output=tmp_path / "dist").succeeded()
    expected = json.loads((place / "expected.json").read_bytes())["embedder"]
    found = run(ortc, built.bundle("embedder", "cpu"), [str(place / "images" / name) for name in expected])
    assert np.allclose(found, [np.ravel(vector) for vector in expected.values()], atol=1e-4)


def test_an_estimator_answers_with_depths(ortc: Compiler, place: Path, tmp_path: Path) -> None:
    built = ortc.build(place / "estimator.yaml", *PLAIN, output=tmp_path / "dist").succeeded()
    (target,) = built.report("estimator")["targets"]
    assert {verdict["gate"]: verdict["outcome"] for verdict in target["verdicts"]}["answer_cosine"] == "pass"
    expected = json.loads((place / "expected.json").read_bytes())["estimator"]
    found = run(ortc, built.bundle("estimator", "cpu"), [str(place / "images" / name) for name in expected])
    for answer_, picture in zip(found, expected.values(), strict=True):
        wanted = np.array(picture)
        assert answer_["size"] == list(wanted.shape)
        assert answer_["minimum"] < answer_["maximum"]
        pixels = np.frombuffer(base64.b64decode(answer_["depth"]), np.uint8).reshape(wanted.shape)
        # A byte is cut to a whole number: one that is near a whole number may go either way.
        assert np.abs(pixels.astype(int) - wanted).max() <= 1
        assert (pixels == wanted).mean() > 0.99


def test_the_loader_takes_files_and_refuses_others(built: Build, python: Path, place: Path) -> None:
    expected = json.loads((place / "expected.json").read_bytes())["classifier"]
    bundle = built.bundle("classifier", "cpu")
    name = "orientation-6.jpg"
    (found,) = answer(loader(python, bundle, "answer", str(place / "images" / name)))["answers"]
    assert same(found, expected[name])
    assert "cannot be read" in refusal(loader(python, bundle, "answer", str(place / "expected.json")), "input")
    assert "cannot be read" in refusal(loader(python, bundle, "answer", str(place / "none.png")), "input")


def test_a_fault_in_the_processing_fails_the_selftest(built: Build, python: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(built.bundle("classifier", "cpu"), bundle)
    path = bundle / "processing/processing.json"
    path.write_text(path.read_text("utf-8").replace("bicubic", "lanczos"), "utf-8")
    bundles.seal(bundle)
    assert "becomes other pixels" in refusal(loader(python, bundle, "selftest"), "golden")


def test_a_processor_that_is_not_reproduced_is_refused_by_name(ortc: Compiler, place: Path, tmp_path: Path) -> None:
    shutil.copytree(place, tmp_path / "project")
    path = tmp_path / "project" / "classifier" / "preprocessor_config.json"
    document = json.loads(path.read_bytes()) | {"image_processor_type": "PerceiverImageProcessor"}
    path.write_text(json.dumps(document), "utf-8")
    done = ortc.build(tmp_path / "project" / "classifier.yaml", *PLAIN, output=tmp_path / "dist")
    message = done.failed(3)
    assert "the image processor PerceiverImageProcessor is not reproduced" in message
    assert "interface: tensors" in message
