"""Bundles that take images: built from a repository with an image processor, and proven from the file to the label."""

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

    def make(root: Path) -> None:
        command = [sys.executable, "-m", "tests.support.make_image_models", str(root)]
        subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
        (root / "classifier.yaml").write_text(SPEC, "utf-8")
        (root / ".git").mkdir()

    return shared(tmp_path_factory, "image-models", make)


@pytest.fixture(scope="module")
def built(ortc: Compiler, place: Path, tmp_path_factory: pytest.TempPathFactory) -> Build:
    output = tmp_path_factory.mktemp("image-answers") / "dist"
    return ortc.build(place / "classifier.yaml", *PLAIN, output=output).succeeded()


@pytest.fixture(scope="module")
def python(built: Build) -> Path:
    requirements = (built.bundle("classifier", "cpu") / "requirements.txt").read_text("utf-8")
    return environment(requirements, cache_root() / "environments")


def test_the_bundle_has_what_images_need_and_nothing_of_texts(built: Build) -> None:
    bundle = built.bundle("classifier", "cpu")
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    assert [entry["name"] for entry in manifest["outputs"]] == ["logits", "probabilities"]
    processing = manifest["processing"]
    assert (processing["takes"], processing["kind"], processing["tokenizer"]) == ("image", "labels", None)
    assert processing["golden"]["tolerance"] == {"cosine": 0.99999, "f1": None, "top1": 1.0, "pixels": 1e-5}
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


def same(found: list[Any], expected: list[Any]) -> bool:
    scores = [[entry["score"] for entry in row] for row in (found, expected)]
    return [row["label"] for row in found] == [row["label"] for row in expected] and np.allclose(*scores, atol=1e-5)


def test_answers_are_those_of_transformers(ortc: Compiler, built: Build, place: Path) -> None:
    expected = json.loads((place / "expected.json").read_bytes())["classifier"]
    files = [str(place / "images" / name) for name in expected]
    command = [sys.executable, "-m", "ortc", "run", str(built.bundle("classifier", "cpu")), "--json", *files]
    done = subprocess.run(command, cwd=ROOT, env=ortc.environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(map(same, [row["answer"] for row in json.loads(done.stdout)], expected.values()))


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
