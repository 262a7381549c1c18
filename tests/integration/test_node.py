"""Bundles for Node: npm packages, built, proven and measured in this machine's Node."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support import bundles
from tests.support.builds import PLAIN, ROOT, Build, Compiler
from tests.support.shared import shared

from ortc.bundle.manifest import read_bundle
from ortc.bundle.publish import seal
from ortc.common.arrays import read_arrays, write_arrays
from ortc.execution.node.program import INSTALL, find_node
from ortc.execution.npm_package import CLIENT
from ortc.execution.worker import Worker
from ortc.execution.worker_process import WorkerError

NODE = "tests/support/specs/node.yaml"
NPM = shutil.which(CLIENT) or CLIENT
TEXTS = """
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
pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", autouse=True)
def _node() -> None:
    """Skip where there is no Node, or fail where ORTC_REQUIRE_TOOLS says that nothing may be missing."""
    lacking = [what for what, is_here in ((INSTALL, find_node()), ("npm", shutil.which(CLIENT))) if not is_here]
    if lacking and os.environ.get("ORTC_REQUIRE_TOOLS") == "1":
        pytest.fail(f"bundles for Node need: {'; '.join(lacking)}", pytrace=False)
    if lacking:
        pytest.skip(f"bundles for Node need: {'; '.join(lacking)}")


@pytest.fixture(scope="module")
def build(digits_compiler: Compiler, tmp_path_factory: pytest.TempPathFactory) -> Build:
    return digits_compiler.build(NODE, *PLAIN, output=tmp_path_factory.mktemp("node")).succeeded()


@pytest.fixture(scope="module")
def bundle(build: Build) -> Path:
    return build.bundle("digits", "node")


@pytest.fixture(scope="module")
def worker(bundle: Path) -> Iterator[Worker]:
    with Worker.for_bundle("node", Path(sys.executable), bundle) as started:
        started.call("load", bundle=str(bundle))
        yield started


def test_every_gate_is_judged_in_node(build: Build, bundle: Path) -> None:
    (target,) = build.report("digits")["targets"]
    assert target["status"] == "published"
    gates = {verdict["gate"]: verdict["outcome"] for verdict in target["verdicts"]}
    assert {"max_abs", "metric", "download", "start", "memory", "latency p99"} <= gates.keys(), gates
    assert set(gates.values()) == {"pass"}
    files = {file.path for file in read_bundle(bundle).files}
    assert {"package.json", "runtime/loader.d.mts", "runtime/ort/x64/libonnxruntime.so.1"} <= files
    assert not files & {"index.html", "Dockerfile", "requirements.txt", "runtime/loader.py", "runtime/page.mjs"}
    assert not [path for path in files if path.startswith("runtime/ort/arm64/")]
    bill = json.loads((bundle / "sbom.cdx.json").read_bytes())
    assert "pkg:npm/onnxruntime-node@1.30.0" in {component.get("purl") for component in bill["components"]}


def test_answers_are_those_of_the_reference(bundle: Path, worker: Worker) -> None:
    assert worker.call("info")["node"].split(".")[0].isdecimal()
    for golden in read_bundle(bundle).golden:
        found = worker.run(read_arrays(bundle / golden.inputs))
        for name, expected in read_arrays(bundle / golden.outputs).items():
            assert found[name].dtype == expected.dtype
            np.testing.assert_allclose(found[name], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "path",
    ["model/model.onnx", "golden/0.outputs.npz", "manifest.json", "session.json", "package.json", "README.md",
     "runtime/ort/x64/libonnxruntime.so.1", "runtime/ort/x64/onnxruntime_binding.node"],
)  # fmt: skip
def test_a_flipped_byte_is_refused_by_name(bundle: Path, copy_of: Callable[[Path], Path], path: str) -> None:
    damaged = copy_of(bundle)
    content = bytearray((damaged / path).read_bytes())
    content[len(content) // 2] ^= 1
    (damaged / path).write_bytes(content)
    with (
        Worker.for_bundle("node", Path(sys.executable), damaged) as started,
        pytest.raises(WorkerError, match=re.escape(path)) as found,
    ):
        started.call("load", bundle=str(damaged))
    assert found.value.code == "digest-mismatch"


def refused(damaged: Path) -> WorkerError:
    """The error with which a bundle is refused."""
    with Worker.for_bundle("node", Path(sys.executable), damaged) as started, pytest.raises(WorkerError) as found:
        started.call("load", bundle=str(damaged))
    return found.value


def test_missing_files_and_links_that_lead_out_are_refused(bundle: Path, copy_of: Callable[[Path], Path]) -> None:
    missing = copy_of(bundle)
    (missing / "golden" / "1.inputs.npz").unlink()
    assert "golden/1.inputs.npz cannot be read: ENOENT" in refused(missing).message
    (missing / "golden" / "1.inputs.npz").symlink_to(bundle / "golden" / "1.inputs.npz")
    assert "golden/1.inputs.npz is a link that leads out of the bundle" in refused(missing).message


def test_a_wrong_golden_answer_is_refused_though_every_digest_is_right(
    bundle: Path, copy_of: Callable[[Path], Path]
) -> None:
    wrong = copy_of(bundle)
    arrays = read_arrays(wrong / "golden" / "0.outputs.npz")
    write_arrays(wrong / "golden" / "0.outputs.npz", {name: array + 0.01 for name, array in arrays.items()})
    seal(wrong, read_bundle(wrong))
    error = refused(wrong)
    assert error.code == "golden"
    assert "max_abs is 0.01" in error.message
    assert "In this Node the bundle does not compute" in error.message


WRONG: tuple[dict[str, np.ndarray[Any, Any]], ...] = (
    {},
    {"image": np.zeros((1, 1, 8, 8), np.float32), "other": np.zeros(1, np.float32)},
    {"image": np.zeros((1, 8, 8), np.float32)},
    {"image": np.zeros((65, 1, 8, 8), np.float32)},
    {"image": np.full((1, 1, 8, 8), 2, np.float32)},
)


def test_inputs_are_refused_in_the_words_of_the_python_loader(bundle: Path, worker: Worker) -> None:
    interface = bundles.runtime_module("loading.interface").interface_of(
        json.loads((bundle / "manifest.json").read_bytes())
    )
    nan = bundles.runtime_module("loading.numerics").NanWatch()
    for inputs in WRONG:
        with pytest.raises(Exception) as expected:  # noqa: PT011 - of a module that is loaded by its path
            interface.check(inputs, nan)
        with pytest.raises(WorkerError) as found:
            worker.run(inputs)
        assert (found.value.code, found.value.message) == ("input", str(expected.value).replace(".0", ""))


def test_the_service_of_the_documentation_answers(bundle: Path, tmp_path: Path) -> None:
    """Installed by npm from what npm packs, beside the code of docs/node.md."""
    packed = subprocess.run(
        [NPM, "pack", "--silent", str(bundle)], cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout.strip()
    (tmp_path / "package.json").write_text('{"name": "service", "private": true, "type": "module"}', "utf-8")
    install = [NPM, "install", "--offline", "--no-audit", "--no-fund", f"./{packed}"]
    subprocess.run(install, cwd=tmp_path, check=True, capture_output=True)
    (code,) = re.findall(r"```js\n(.*?)```", (ROOT / "docs" / "node.md").read_text("utf-8"), re.DOTALL)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (tmp_path / "service.mjs").write_text(code.replace("8080", str(port)), "utf-8")
    node, golden = find_node(), read_bundle(bundle).golden[0]
    assert node is not None
    (image,) = read_arrays(bundle / golden.inputs).values()
    (logits,) = read_arrays(bundle / golden.outputs).values()
    service = subprocess.Popen([str(node.program), "service.mjs"], cwd=tmp_path)
    try:
        answer = _asked(port, json.dumps(image[0].ravel().tolist()).encode())
        np.testing.assert_allclose(answer, logits[0], rtol=0, atol=1e-5)
        with pytest.raises(urllib.error.HTTPError, match="400"):
            _asked(port, b"[1]")
    finally:
        service.kill()
        service.wait()


def _asked(port: int, body: bytes) -> Any:
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", body, timeout=60) as response:
                return json.load(response)
        except urllib.error.HTTPError:
            raise
        except urllib.error.URLError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


@pytest.fixture(scope="module")
def texts(ortc: Compiler, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A bundle that takes texts, and what sentence-transformers gives."""

    def make(root: Path) -> None:
        script = ROOT / "tests" / "support" / "make_sentence_models.py"
        subprocess.run([sys.executable, str(script), str(root)], check=True, capture_output=True)
        (root / "tiny.yaml").write_text(TEXTS, "utf-8")
        (root / ".git").mkdir()

    place = shared(tmp_path_factory, "node-sentence-model", make)
    output = tmp_path_factory.mktemp("texts")
    made = ortc.build(place / "tiny.yaml", *PLAIN, output=output / "dist").succeeded().bundle("tiny", "node")
    return made, json.loads((place / "expected.json").read_bytes())


def test_texts_are_answered_as_by_sentence_transformers(
    ortc: Compiler, texts: tuple[Path, dict[str, Any]], copy_of: Callable[[Path], Path], tmp_path: Path
) -> None:
    made, expected = texts
    command = [sys.executable, "-m", "ortc", "run", str(made), expected["texts"][0], "--json"]
    done = subprocess.run(command, env=ortc.environment(), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    np.testing.assert_allclose(row["answer"], expected["vectors"][0], rtol=0, atol=1e-5)
    swapped = copy_of(made)
    document = json.loads((swapped / "processing" / "tokenizer.json").read_bytes())
    document["normalizer"]["lowercase"] = False
    (swapped / "processing" / "tokenizer.json").write_text(json.dumps(document), "utf-8")
    seal(swapped, read_bundle(swapped))
    with (
        Worker.for_bundle("node", Path(sys.executable), swapped) as started,
        pytest.raises(WorkerError, match="becomes other token ids than the model's own tokenizer gave"),
    ):
        started.call("load", bundle=str(swapped))


def test_without_node_the_graph_is_checked_and_nothing_is_measured(
    digits_compiler: Compiler, build: Build, tmp_path: Path
) -> None:
    del build
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("git", "sh", "env"):
        if (found := shutil.which(name)) is not None:
            (programs / name).symlink_to(found)
    environment = {**digits_compiler.environment(), "PATH": str(programs)}
    refused = digits_compiler.build(NODE, *PLAIN, output=tmp_path / "refused", env=environment)
    assert "no Node.js on this host" in refused.stdout
    refused.failed(7)
    doctor = [sys.executable, "-m", "ortc", "doctor"]
    said = subprocess.run(doctor, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False).stdout
    assert "no Node.js: nothing is measured" in said
    assert "onnxruntime-node is not fetched" in said


def test_commands_know_bundles_for_node(digits_compiler: Compiler, bundle: Path, tmp_path: Path) -> None:
    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ortc", *map(str, arguments)]
        return subprocess.run(
            command, env=digits_compiler.environment(), cwd=tmp_path, capture_output=True, text=True, check=False
        )

    verified = run("verify", bundle, "--no-timing")
    assert verified.returncode == 0, verified.stderr + verified.stdout
    assert "every digest and 2 golden cases" in verified.stdout
    packed = run("pack", bundle, "-o", tmp_path / "packed")
    assert packed.returncode == 0, packed.stderr
    assert "modelcar" not in packed.stdout
    compared = run("diff", bundle, bundle)
    assert compared.returncode == 0, compared.stderr
    for arguments, said in (
        (("emit", bundle), "is for Node: no container serves its model"),
        (("run", bundle, "a text"), "takes tensors, not texts or files, and runs in Node"),
        (("bench", bundle, "--measurement", tmp_path / "m.json"), "no bundle measures itself there"),
    ):
        done = run(*arguments)
        assert done.returncode == 2, done.stderr
        assert said in done.stderr
