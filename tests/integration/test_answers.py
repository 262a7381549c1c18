"""Bundles that take texts: built from a repository of sentence-transformers, and proven from the text to the vector."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
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
name: tiny
version: 1.0.0
model: {source: huggingface, path: model}
export:
  opset: 17
  dynamic_axes: {batch: {min: 1, max: 4}, sequence: {min: 1, typical: 8, max: 16}}
targets: {cpu: {}}
"""
Edit = Callable[[Path], None]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a tiny repository of sentence-transformers, and what that answers."""
    command = ["-m", "tests.support.make_sentence_models"]
    spec = SPEC.replace("path: model}", "path: model, interface: {dimensions: [5, 2]}}")
    return project_with(tmp_path_factory, "sentence-model", command, {"tiny.yaml": spec})


@pytest.fixture(scope="module")
def built(ortc: Compiler, place: Path, tmp_path_factory: pytest.TempPathFactory) -> Build:
    output = tmp_path_factory.mktemp("answers") / "dist"
    return ortc.build(place / "tiny.yaml", *PLAIN, output=output).succeeded()


@pytest.fixture(scope="module")
def python(built: Build) -> Path:
    return python_of(built.bundle("tiny", "cpu"))


@pytest.fixture(scope="module")
def expected(place: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((place / "expected.json").read_bytes())
    return document


def test_the_bundle_has_the_vector_as_an_output_and_what_texts_need(built: Build) -> None:
    bundle = built.bundle("tiny", "cpu")
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    assert [entry["name"] for entry in manifest["outputs"]] == ["sentence_embedding"]
    assert manifest["outputs"][0]["shape"] == ["batch", 8]
    assert manifest["processing"]["document"] == "processing/processing.json"
    document = json.loads((bundle / "processing" / "processing.json").read_bytes())
    text, answer_ = document["text"], document["answer"]
    assert (answer_["dimensions"], answer_["normalized"]) == ([2, 5], True)
    # sentence_bert_config.json says 12; the 5 that tokenizer.json stores play no part.
    assert (text["max_length"], text["prompt"]) == (12, "query: ")
    requirements = (bundle / "requirements.txt").read_text("utf-8")
    assert "tokenizers==" in requirements
    assert "huggingface" not in requirements
    assert "transformers" not in requirements
    assert "--no-deps" in (bundle / "README.md").read_text("utf-8")
    assert "COPY processing/ processing/" in (bundle / "Dockerfile").read_text("utf-8")


def test_answers_are_those_of_the_repository(built: Build, python: Path, expected: dict[str, Any]) -> None:
    result = answer(loader(python, built.bundle("tiny", "cpu"), "answer", *expected["texts"]))
    found, wanted = np.array(result["answers"]), np.array(expected["vectors"])
    assert np.abs(found - wanted).max() < 1e-5


def test_ortc_run_prints_answers(ortc: Compiler, built: Build, place: Path, expected: dict[str, Any]) -> None:
    lines = place / "lines.txt"
    lines.write_text("\n".join(expected["texts"][:2]) + "\n", "utf-8")

    def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ortc", "run", str(built.bundle("tiny", "cpu")), *arguments]
        settings = {"cwd": ROOT, "env": ortc.environment(), "capture_output": True, "text": True, "check": False}
        return subprocess.run(command, **settings, **options)

    done = run(str(lines), "-", "--json", input=expected["texts"][2])
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [row["text"] for row in rows] == expected["texts"][:3]
    assert np.abs(np.array([row["answer"] for row in rows]) - np.array(expected["vectors"][:3])).max() < 1e-5
    done = run("--prompt", "nothing", "a text")
    assert done.returncode == 2
    assert "there is no prompt 'nothing'. The model's prompts: 'query', 'plain'." in done.stderr


def lower_case(bundle: Path) -> None:
    edit(bundle, "tokenizer.json", lambda document: document["normalizer"].update(lowercase=False))


def special_tokens(bundle: Path) -> None:
    edit(bundle, "tokenizer.json", lambda document: document.update(post_processor=None))


def prompt(bundle: Path) -> None:
    edit(bundle, "processing.json", lambda document: document["text"].update(prompt=""))


def max_length(bundle: Path) -> None:
    edit(bundle, "processing.json", lambda document: document["text"].update(max_length=10))


def truncation(bundle: Path) -> None:
    edit(bundle, "processing.json", lambda document: document["text"].update(truncation="left"))


def edit(bundle: Path, name: str, change: Callable[[Any], None]) -> None:
    path = bundle / "processing" / name
    document = json.loads(path.read_bytes())
    change(document)
    path.write_text(json.dumps(document), "utf-8")


@pytest.mark.parametrize("fault", [lower_case, special_tokens, prompt, max_length, truncation])
def test_a_fault_in_the_processing_fails_the_selftest(built: Build, python: Path, tmp_path: Path, fault: Edit) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(built.bundle("tiny", "cpu"), bundle)
    fault(bundle)
    bundles.seal(bundle)
    message = refusal(loader(python, bundle, "selftest"), "golden")
    assert "becomes other token ids than the model's own tokenizer gave" in message


def test_a_recipe_that_is_not_reproduced_is_refused_by_name(ortc: Compiler, place: Path, tmp_path: Path) -> None:
    shutil.copytree(place, tmp_path / "project")
    config = tmp_path / "project" / "model" / "2_Dense" / "config.json"
    document = json.loads(config.read_bytes()) | {"activation_function": "encoder.layers.Swish"}
    config.write_text(json.dumps(document), "utf-8")
    done = ortc.build(tmp_path / "project" / "tiny.yaml", *PLAIN, output=tmp_path / "dist")
    message = done.failed(3)
    assert "the activation `encoder.layers.Swish` is not reproduced" in message
    assert "interface: tensors" in message


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a token classifier and a ranking, and what transformers answers with them."""
    tasks = {
        "tagger": "task: token-classification, interface: {aggregation: simple}",
        "ranker": "task: text-ranking",
    }
    # The exporter that takes less time, since `tiny` is exported by the other.
    spec = SPEC.replace("opset: 17", "opset: 17\n  exporter: torchscript")
    specs = {
        f"{name}.yaml": spec.replace("name: tiny", f"name: {name}").replace("path: model}", f"path: {name}, {more}}}")
        for name, more in tasks.items()
    }
    return project_with(tmp_path_factory, "task-models", ["-m", "tests.support.make_task_models"], specs)


def run(ortc: Compiler, bundle: Path, *texts: str) -> list[Any]:
    """The answers that `ortc run` prints."""
    command = [sys.executable, "-m", "ortc", "run", str(bundle), "--json", *texts]
    done = subprocess.run(command, cwd=ROOT, env=ortc.environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [row["answer"] for row in json.loads(done.stdout)]


def test_a_bundle_answers_with_entities(ortc: Compiler, tasks: Path, tmp_path: Path) -> None:
    built = ortc.build(tasks / "tagger.yaml", *PLAIN, output=tmp_path / "dist").succeeded()
    bundle, wanted = built.bundle("tagger", "cpu"), json.loads((tasks / "expected.json").read_bytes())
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    assert [entry["name"] for entry in manifest["outputs"]] == ["logits", "probabilities"]
    assert manifest["processing"]["kind"] == "entities"
    assert manifest["processing"]["golden"]["tolerance"]["f1"] == 1
    (target,) = built.report("tagger")["targets"]
    gates = {verdict["gate"]: verdict["outcome"] for verdict in target["verdicts"]}
    assert (gates["answer_f1"], gates["answer_cosine"]) == ("pass", "pass")
    for found, expected in zip(run(ortc, bundle, *wanted["texts"]), wanted["entities"], strict=True):
        scores = [[entry.pop("score") for entry in answer] for answer in (found, expected)]
        assert found == expected
        assert np.allclose(*scores, atol=1e-5)


def test_a_ranking_scores_as_the_model_does(ortc: Compiler, tasks: Path, tmp_path: Path) -> None:
    """Rankings take pairs alone: single texts were sent to them, and no build passed."""
    built = ortc.build(tasks / "ranker.yaml", *PLAIN, output=tmp_path / "dist").succeeded()
    wanted = json.loads((tasks / "expected.json").read_bytes())
    pairs = [json.dumps({"text": text, "text_pair": other}) for text, other in wanted["pairs"]]
    assert np.allclose(run(ortc, built.bundle("ranker", "cpu"), *pairs), wanted["scores"], atol=1e-5)
