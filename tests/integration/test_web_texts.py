"""Bundles for browsers that take texts, built from a repository of sentence-transformers and asked in Chromium."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.builds import PLAIN, ROOT, Build, Compiler
from tests.support.shared import shared

from ortc.bundle.manifest import read_bundle
from ortc.bundle.publish import seal
from ortc.execution.browser.chromium import INSTALL, Browser, find_chromium
from ortc.execution.browser.page import Page
from ortc.execution.browser.site import Site
from ortc.execution.npm_package import CLIENT
from ortc.execution.worker import Worker
from ortc.execution.worker_process import WorkerError

pytestmark = pytest.mark.integration

SPEC = """
apiVersion: ortc/v1alpha1
kind: ModelDeployment
name: tiny
version: 1.0.0
model: {source: huggingface, path: model}
export:
  opset: 17
  dynamic_axes: {batch: {min: 1, max: 2}, sequence: {min: 1, typical: 8, max: 16}}
targets: {web: {precision: fp32}}
"""
SECONDS = 120


@pytest.fixture(scope="module", autouse=True)
def _chromium() -> None:
    """Skip where there is no browser, or fail where ORTC_REQUIRE_TOOLS says that nothing may be missing."""
    lacking = [what for what, is_here in ((INSTALL, find_chromium()), ("npm", shutil.which(CLIENT))) if not is_here]
    if lacking and os.environ.get("ORTC_REQUIRE_TOOLS") == "1":
        pytest.fail(f"browsers need: {'; '.join(lacking)}", pytrace=False)
    if lacking:
        pytest.skip(f"browsers need: {'; '.join(lacking)}")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a tiny repository of sentence-transformers, and what that answers."""

    def make(root: Path) -> None:
        script = ROOT / "tests" / "support" / "make_sentence_models.py"
        subprocess.run([sys.executable, str(script), str(root)], check=True, capture_output=True)
        (root / "tiny.yaml").write_text(SPEC, "utf-8")
        (root / ".git").mkdir()

    return shared(tmp_path_factory, "web-sentence-model", make)


@pytest.fixture(scope="module")
def build(ortc: Compiler, place: Path, tmp_path_factory: pytest.TempPathFactory) -> Build:
    return ortc.build(place / "tiny.yaml", *PLAIN, output=tmp_path_factory.mktemp("texts") / "dist").succeeded()


@pytest.fixture(scope="module")
def bundle(build: Build) -> Path:
    return build.bundle("tiny", "web")


@pytest.fixture(scope="module")
def expected(place: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((place / "expected.json").read_bytes())
    return document


@pytest.fixture(scope="module")
def worker(bundle: Path) -> Iterator[Worker]:
    with Worker.for_bundle("web", Path(sys.executable), bundle) as started:
        started.call("load", bundle=str(bundle))
        yield started


def test_answers_are_gated_in_the_browser(build: Build, bundle: Path) -> None:
    (target,) = build.report("tiny")["targets"]
    outcomes = {verdict["gate"]: verdict["outcome"] for verdict in target["verdicts"]}
    assert outcomes["answer_cosine"] == "pass", outcomes
    assert {verdict["platform"] for verdict in target["verdicts"]} == {"web/wasm"}
    manifest = read_bundle(bundle)
    assert manifest.processing is not None
    assert manifest.interface is None
    files = {file.path for file in manifest.files}
    assert {
        "processing/tokenizer.json",
        "runtime/processing/texts.mjs",
        "runtime/tokenizers/tokenizers.min.mjs",
    } <= files
    bill = json.loads((bundle / "sbom.cdx.json").read_bytes())
    assert "pkg:npm/%40huggingface/tokenizers@0.2.0" in {component.get("purl") for component in bill["components"]}


def test_vectors_are_those_of_the_repository(worker: Worker, expected: dict[str, Any]) -> None:
    for text, vector in zip(expected["texts"], expected["vectors"], strict=True):
        (found,) = worker.call("answers", texts=[text])["answers"]
        np.testing.assert_allclose(found, vector, rtol=0, atol=1e-5)


def test_a_prompt_is_put_before_a_text(worker: Worker) -> None:
    (plain,) = worker.call("answers", texts=["query: a text"], prompt="")["answers"]
    (asked,) = worker.call("answers", texts=["a text"])["answers"]
    assert plain == asked
    with pytest.raises(WorkerError, match="there is no prompt 'none'"):
        worker.call("answers", texts=["a text"], prompt="none")


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"text": "a", "text_pair": "b"}, "the model takes single texts, not pairs of texts"),
        ({"text": "a"}, r"a pair has \[text\]"),
        (7, "a text is a number"),
        (None, "a text is null"),
        (["a"], "a text is a list"),
    ],
)
def test_what_is_no_text_is_refused(worker: Worker, request_: Any, said: str) -> None:
    with pytest.raises(WorkerError, match=said) as found:
        worker.call("answers", texts=[request_])
    assert found.value.code == "input"


def test_the_page_answers_a_text(bundle: Path) -> None:
    chromium = find_chromium()
    assert chromium is not None
    with Browser(chromium) as browser, Site(bundle) as site:
        page = Page(browser, site.origin)
        page.go("/")
        page.wait_for("document.documentElement.dataset.state !== 'loading'", SECONDS)
        assert page.value("document.documentElement.dataset.state") == "ready"
        page.value("document.getElementById('field-text').value = '\\u6f22\\u5b57 and \\ud83d\\ude00'")
        page.value("document.getElementById('form').requestSubmit()")
        page.wait_for("!document.getElementById('result').hidden", SECONDS)
        assert page.value("document.getElementById('answer').textContent").startswith("8 numbers")
        # A surrogate alone is no text: the page says so, and lives on.
        page.value("document.getElementById('field-text').value = '\\ud83d'")
        page.value("document.getElementById('form').requestSubmit()")
        page.wait_for("document.getElementById('answer').textContent.includes('lone surrogate')", SECONDS)
        assert page.foreign == []
        page.close()


def _lowercase(root: Path) -> None:
    document = json.loads((root / "processing" / "tokenizer.json").read_bytes())
    document["normalizer"]["lowercase"] = False
    (root / "processing" / "tokenizer.json").write_text(json.dumps(document), "utf-8")


def _setting(name: str, value: object) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        document = json.loads((root / "processing" / "processing.json").read_bytes())
        document["text"][name] = value
        (root / "processing" / "processing.json").write_text(json.dumps(document), "utf-8")

    return change


def _answer(root: Path) -> None:
    document = json.loads((root / "golden" / "answers.json").read_bytes())
    case = next(case for case in document["cases"] if case["answer"] is not None)
    case["answer"] = [-value for value in case["answer"]]
    (root / "golden" / "answers.json").write_text(json.dumps(document), "utf-8")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_lowercase, "becomes other token ids than the model's own tokenizer gave"),
        (_setting("prompt", ""), "becomes other token ids"),
        (_setting("max_length", 9), "becomes other token ids"),
        (_answer, "has cosine -1"),
    ],
    ids=["lowercase", "prompt", "max-length", "answer"],
)
def test_other_processing_is_refused_though_every_digest_is_right(
    bundle: Path, copy_of: Callable[[Path], Path], change: Callable[[Path], None], said: str
) -> None:
    wrong = copy_of(bundle)
    change(wrong)
    seal(wrong, read_bundle(wrong))
    with (
        Worker.for_bundle("web", Path(sys.executable), wrong) as started,
        pytest.raises(WorkerError, match=f"index.html refuses the bundle: .*{said}") as found,
    ):
        started.call("load", bundle=str(wrong))
    assert found.value.code == "golden"


def test_ortc_run_asks_the_browser(ortc: Compiler, bundle: Path, expected: dict[str, Any], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ortc", "run", str(bundle), expected["texts"][0], "--json"]
    done = subprocess.run(command, env=ortc.environment(), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    np.testing.assert_allclose(row["answer"], expected["vectors"][0], rtol=0, atol=1e-5)
