"""Folders that `@huggingface/transformers` opens without a network, in Node and in Chromium."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.builds import PLAIN, ROOT, Compiler
from tests.support.shared import shared
from tests.support.transformers_js import FOLDERS, in_chromium, in_node, install

from ortc.bundle.manifest import read_bundle
from ortc.common.arrays import read_arrays
from ortc.execution.browser.chromium import INSTALL, find_chromium
from ortc.execution.node.program import find_node
from ortc.execution.npm_package import CLIENT
from ortc.execution.worker import Worker

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
targets: {node: {precision: fp32}}
"""
MINILM = "tests/support/specs/bert-web.yaml"
TEXTS = ("How much is a ticket to Geneva?", "A train leaves at noon.", "漢字 and 😀", "")
COSINE = 0.9999
"""Least cosine of INT8 between two releases of ONNX Runtime's WebAssembly build."""


@pytest.fixture(scope="module", autouse=True)
def _tools() -> None:
    """Skip without Node or npm, or fail where ORTC_REQUIRE_TOOLS says that nothing may be missing."""
    lacking = [what for what, is_here in (("Node.js", find_node()), ("npm", shutil.which(CLIENT))) if not is_here]
    if lacking and os.environ.get("ORTC_REQUIRE_TOOLS") == "1":
        pytest.fail(f"transformers.js needs: {', '.join(lacking)}", pytrace=False)
    if lacking:
        pytest.skip(f"transformers.js needs: {', '.join(lacking)}")


@pytest.fixture(scope="module")
def texts(ortc: Compiler, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A bundle that takes texts, and what sentence-transformers gives."""

    def make(root: Path) -> None:
        script = ROOT / "tests" / "support" / "make_sentence_models.py"
        subprocess.run([sys.executable, str(script), str(root)], check=True, capture_output=True)
        (root / "tiny.yaml").write_text(SPEC, "utf-8")
        (root / ".git").mkdir()

    place = shared(tmp_path_factory, "node-sentence-model", make)
    output = tmp_path_factory.mktemp("texts")
    made = ortc.build(place / "tiny.yaml", *PLAIN, output=output / "dist").succeeded().bundle("tiny", "node")
    return made, json.loads((place / "expected.json").read_bytes())


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared(tmp_path_factory, "transformers-js", install)


def packed(ortc: Compiler, bundle: Path, output: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ortc", "pack", str(bundle), "--format", "transformers.js", "-o", str(output)]
    return subprocess.run(command, env=ortc.environment(), capture_output=True, text=True, check=False)


def folder(ortc: Compiler, bundle: Path, output: Path) -> Path:
    """The folder that a bundle is packed as."""
    done = packed(ortc, bundle, output)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.split("  ")[0])


def needs_chromium() -> None:
    """Skip without Chromium, or fail where nothing may be missing."""
    if find_chromium() is None:
        (pytest.fail if os.environ.get("ORTC_REQUIRE_TOOLS") == "1" else pytest.skip)(
            f"there is no Chromium: {INSTALL}"
        )


def own_answers(target: str, bundle: Path, texts: tuple[str, ...]) -> Any:
    """What the bundle's own loader answers."""
    with Worker.for_bundle(target, Path(sys.executable), bundle) as worker:
        worker.call("load", bundle=str(bundle), selftest=False)
        return np.asarray(worker.call("answers", texts=list(texts))["answers"])


def test_the_folder_has_what_transformers_js_reads(
    ortc: Compiler, texts: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """Its names are those of the library; the graph is one file, with the answers of the bundle's own."""
    import onnxruntime

    made, _ = texts
    repository = folder(ortc, made, tmp_path / "packed")
    files = {path.relative_to(repository).as_posix() for path in repository.rglob("*") if path.is_file()}
    assert files == {"config.json", "tokenizer.json", "tokenizer_config.json", "onnx/model.onnx"}
    config = json.loads((repository / "config.json").read_bytes())
    assert config["transformers.js_config"]["dtype"] == "fp32"
    session = onnxruntime.InferenceSession(repository / "onnx" / "model.onnx", providers=["CPUExecutionProvider"])
    golden = read_bundle(made).golden[0]
    wanted = read_arrays(made / golden.outputs)
    for name, found in zip(wanted, session.run(list(wanted), read_arrays(made / golden.inputs)), strict=True):
        np.testing.assert_allclose(found, wanted[name], rtol=0, atol=1e-5)


@pytest.mark.proof("test_the_folder_has_what_transformers_js_reads")
@pytest.mark.parametrize("asked", [in_node, in_chromium])
def test_transformers_js_opens_the_folder(
    ortc: Compiler, texts: tuple[Path, dict[str, Any]], library: Path, asked: Any
) -> None:
    if asked is in_chromium:
        needs_chromium()
    made, expected = texts
    repository = folder(ortc, made, library / FOLDERS)
    settings = json.loads((made / "processing" / "processing.json").read_bytes())["text"]
    with Worker.for_bundle("node", Path(sys.executable), made) as worker:
        worker.call("load", bundle=str(made), selftest=False)
        rows = worker.call("tokens", texts=expected["texts"])["rows"]
    # Of a text that is too long the library cuts off the last special token, too.
    whole = [place for place, row in enumerate(rows) if len(row["ids"]) < settings["max_length"]]
    assert len(whole) >= 4
    found = asked(library, repository.name, [settings["prompt"] + expected["texts"][place] for place in whole])
    np.testing.assert_allclose(found, np.asarray(expected["vectors"])[whole], rtol=0, atol=1e-5)


@pytest.mark.proof("test_the_folder_has_what_transformers_js_reads")
@pytest.mark.parametrize(("target", "precision"), [("web", "fp32"), ("web", "int8"), ("node", "fp32")])
def test_transformers_js_gives_the_vectors_of_a_sentence_encoder(
    ortc: Compiler, library: Path, tmp_path: Path, target: str, precision: str
) -> None:
    """specs/bert.yaml's model for browsers and Node, in Chromium: in fp32 as PyTorch's, in INT8 as the bundle's own."""
    needs_chromium()
    variant = "fp32" if precision == "fp32" else "int8-calibrated"
    options = (*PLAIN, "-t", target, "--set", f"targets.{target}.precision={precision}", "--variant", variant)
    made = (
        ortc.build("tests/support/specs/bert-web.yaml", *options, output=tmp_path / "dist")
        .succeeded()
        .bundle("bert", target)
    )
    repository = folder(ortc, made, library / FOLDERS)
    name = {"fp32": "model.onnx", "int8": "model_quantized.onnx"}[precision]
    assert [path.name for path in (repository / "onnx").iterdir()] == [name]
    found = np.asarray(in_chromium(library, repository.name, TEXTS))
    own = own_answers(target, made, TEXTS)
    if precision == "fp32":
        np.testing.assert_allclose(found, own, rtol=0, atol=1e-5)
    else:
        assert np.min(np.sum(found * own, axis=1)) >= COSINE


def test_a_bundle_of_tensors_is_no_folder_of_transformers_js(digits_compiler: Compiler, tmp_path: Path) -> None:
    built = digits_compiler.build("tests/support/specs/node.yaml", *PLAIN, output=tmp_path / "dist").succeeded()
    done = packed(digits_compiler, built.bundle("digits", "node"), tmp_path / "packed")
    assert done.returncode == 2
    assert "transformers.js opens encoders of texts" in done.stderr
    assert not [path for path in (tmp_path / "packed").rglob("*") if path.is_file()]
