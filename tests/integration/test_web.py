"""Bundles for browsers, built, proven and measured in headless Chromium."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support import bundles
from tests.support.builds import PLAIN, ROOT, Build, Compiler

from ortc.bundle.delivery import script_packages
from ortc.bundle.delivery.pack import pack
from ortc.bundle.manifest import read_bundle
from ortc.bundle.publish import seal
from ortc.common.arrays import read_arrays, write_arrays
from ortc.execution.browser import site as site_module
from ortc.execution.browser.chromium import INSTALL, Browser, BrowserError, find_chromium
from ortc.execution.browser.page import Page
from ortc.execution.browser.site import Site
from ortc.execution.npm_package import CLIENT
from ortc.execution.worker import Worker
from ortc.execution.worker_process import WorkerError

WEB = "tests/support/specs/web.yaml"
pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", autouse=True)
def _chromium() -> None:
    """Skip where there is no browser, or fail where ORTC_REQUIRE_TOOLS says that nothing may be missing."""
    lacking = [what for what, is_here in ((INSTALL, find_chromium()), ("npm", shutil.which(CLIENT))) if not is_here]
    if lacking and os.environ.get("ORTC_REQUIRE_TOOLS") == "1":
        pytest.fail(f"browsers need: {'; '.join(lacking)}", pytrace=False)
    if lacking:
        pytest.skip(f"browsers need: {'; '.join(lacking)}")


@pytest.fixture(scope="module")
def build(digits_compiler: Compiler, tmp_path_factory: pytest.TempPathFactory) -> Build:
    return digits_compiler.build(WEB, *PLAIN, output=tmp_path_factory.mktemp("web")).succeeded()


@pytest.fixture(scope="module")
def bundle(build: Build) -> Path:
    return build.bundle("digits", "web")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = find_chromium()
    assert chromium is not None
    with Browser(chromium) as opened:
        yield opened


@pytest.fixture(scope="module")
def worker(bundle: Path) -> Iterator[Worker]:
    with Worker.for_bundle("web", Path(sys.executable), bundle) as started:
        started.call("load", bundle=str(bundle))
        yield started


def opened(browser: Browser, bundle: Path) -> tuple[str, str, list[str]]:
    """What the bundle's page comes to: its state, its reason, and the addresses of other servers that it asked."""
    with Site(bundle) as site:
        page = Page(browser, site.origin)
        page.go("/")
        page.wait_for("document.documentElement.dataset.state !== 'loading'", 120)
        state = page.value("document.documentElement.dataset.state")
        reason = page.value("document.getElementById('reason').textContent")
        page.close()
        return state, reason, page.foreign


def wait_until_isolated(page: Page) -> None:
    """Wait until a page has loaded itself again; in between there is no page to ask."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with contextlib.suppress(BrowserError):
            if page.value("window.crossOriginIsolated && document.readyState === 'complete'"):
                return
        time.sleep(0.2)
    pytest.fail("the page is not isolated")


def test_every_gate_is_judged_in_the_browser(build: Build, bundle: Path) -> None:
    (target,) = build.report("digits")["targets"]
    assert target["status"] == "published"
    assert {verdict["platform"] for verdict in target["verdicts"]} == {"web/wasm"}
    gates = {verdict["gate"]: verdict["outcome"] for verdict in target["verdicts"]}
    assert {"max_abs", "metric", "download", "start", "memory", "latency p99"} <= gates.keys(), gates
    assert set(gates.values()) == {"pass"}
    manifest = read_bundle(bundle)
    numbers = target["numbers"]
    # A visit fetches every file but what is for people and hosts, and none of them again.
    fetched = [file.bytes for file in manifest.files if file.path not in ("README.md", "sbom.cdx.json", "_headers")]
    lists = sum((bundle / name).stat().st_size for name in ("manifest.json", "SHA256SUMS"))
    assert sum(fetched) <= numbers["downloaded_bytes"] - lists < sum(fetched) + 2**18
    assert numbers["cached_start_seconds"]["value"] > 0
    assert manifest.platforms == ("web/wasm",)
    files = {file.path for file in manifest.files}
    assert {"index.html", "_headers", "runtime/loader.mjs", "runtime/ort/ort-wasm-simd-threaded.wasm"} <= files
    assert not files & {"Dockerfile", "requirements.txt", "runtime/loader.py"}
    bill = json.loads((bundle / "sbom.cdx.json").read_bytes())
    assert "pkg:npm/onnxruntime-web@1.30.0" in {component.get("purl") for component in bill["components"]}


def test_answers_are_those_of_the_reference(bundle: Path, worker: Worker) -> None:
    info = worker.call("info")
    assert info["isolated"]
    assert info["browser"]
    for golden in read_bundle(bundle).golden:
        found = worker.run(read_arrays(bundle / golden.inputs))
        for name, expected in read_arrays(bundle / golden.outputs).items():
            assert found[name].dtype == expected.dtype
            np.testing.assert_allclose(found[name], expected, rtol=0, atol=1e-5)


def test_the_page_gets_ready_and_asks_no_other_server(browser: Browser, bundle: Path) -> None:
    assert opened(browser, bundle) == ("ready", "", [])


def test_without_the_headers_a_service_worker_gives_the_page_its_threads(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site_module, "_HEADERS", ())
    chromium = find_chromium()
    assert chromium is not None
    with Browser(chromium) as own, Site(bundle) as site:
        page = Page(own, site.origin)
        page.go("/?threads=2")
        wait_until_isolated(page)
        page.wait_for("document.documentElement.dataset.state !== 'loading'", 120)
        assert page.value("document.documentElement.dataset.state") == "ready"
        assert "2 threads" in page.value("document.getElementById('about').textContent")
        assert page.foreign == []
        page.close()


def test_the_page_of_the_documentation_answers_on_a_host_without_headers(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code of docs/web.md, with the bundle in `model` and its service worker beside the page."""
    monkeypatch.setattr(site_module, "_HEADERS", ())
    blocks = re.findall(r"```js\n(.*?)```", (ROOT / "docs" / "web.md").read_text("utf-8"), re.DOTALL)
    (isolating,) = (block for block in blocks if "await isolate(" in block)
    (asking,) = (block for block in blocks if "const { logits }" in block)
    shutil.copytree(bundle, tmp_path / "model")
    shutil.copyfile(bundle / "isolation.js", tmp_path / "isolation.js")
    (tmp_path / "page.mjs").write_text(f"{isolating}{asking}window.answered = logits.data;\n", "utf-8")
    html = '<!doctype html><link rel="icon" href="data:,"><script type="module" src="page.mjs"></script>'
    (tmp_path / "index.html").write_text(html, "utf-8")
    chromium = find_chromium()
    assert chromium is not None
    with Browser(chromium) as own, Site(tmp_path) as site:
        page = Page(own, site.origin)
        page.go("/")
        wait_until_isolated(page)
        page.wait_for("window.answered", 120)
        answered = page.value("Array.from(window.answered)")
        assert page.foreign == []
        page.close()
    with Worker.for_bundle("web", Path(sys.executable), bundle) as started:
        started.call("load", bundle=str(bundle), selftest=False)
        (expected,) = started.run({"image": np.zeros((1, 1, 8, 8), np.float32)}).values()
    np.testing.assert_allclose(answered, expected[0], rtol=0, atol=1e-5)


def test_without_headers_and_service_worker_the_page_computes_with_one_thread(
    browser: Browser, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site_module, "_HEADERS", ())
    with Site(bundle) as site:
        page = Page(browser, site.origin)
        page.go(site_module.BLANK)
        page.value("sessionStorage.setItem('ortc-isolation', '1')")
        page.go("/?threads=2")
        page.wait_for("document.documentElement.dataset.state !== 'loading'", 120)
        assert page.value("document.documentElement.dataset.state") == "ready"
        assert "1 thread" in page.value("document.getElementById('about').textContent")
        page.value("document.getElementById('form').requestSubmit()")
        page.wait_for("!document.getElementById('result').hidden", 60)
        assert page.value("document.getElementById('answer').textContent").startswith("logits: float32 [1, 10]")
        page.close()


@pytest.mark.parametrize(
    "path",
    [
        "model/model.onnx",
        "golden/0.outputs.npz",
        "manifest.json",
        "session.json",
        "SHA256SUMS",
        "runtime/ort/ort-wasm-simd-threaded.wasm",
        "runtime/ort/ort.wasm.min.mjs",
    ],
)
def test_a_flipped_byte_is_refused_by_name(
    browser: Browser, bundle: Path, copy_of: Callable[[Path], Path], path: str
) -> None:
    damaged = copy_of(bundle)
    content = bytearray((damaged / path).read_bytes())
    content[len(content) // 2] ^= 1
    (damaged / path).write_bytes(content)
    state, reason, foreign = opened(browser, damaged)
    assert (state, foreign) == ("refused", [])
    listed = (bundle / "SHA256SUMS").read_text("utf-8").split()
    # A list of digests that changed accuses itself, or the file whose digest it now has wrong.
    assert path in reason or (path == "SHA256SUMS" and any(name in reason for name in listed[1::2])), reason


def test_a_missing_file_is_refused_by_name(browser: Browser, bundle: Path, copy_of: Callable[[Path], Path]) -> None:
    damaged = copy_of(bundle)
    (damaged / "golden" / "1.inputs.npz").unlink()
    state, reason, _ = opened(browser, damaged)
    assert state == "refused"
    assert "golden/1.inputs.npz cannot be fetched: HTTP status 404" in reason


def test_a_wrong_golden_answer_is_refused_though_every_digest_is_right(
    browser: Browser, bundle: Path, copy_of: Callable[[Path], Path]
) -> None:
    wrong = copy_of(bundle)
    arrays = read_arrays(wrong / "golden" / "0.outputs.npz")
    write_arrays(wrong / "golden" / "0.outputs.npz", {name: array + 0.01 for name, array in arrays.items()})
    seal(wrong, read_bundle(wrong))
    state, reason, _ = opened(browser, wrong)
    assert state == "refused"
    assert "golden case" in reason
    assert "max_abs is 0.01" in reason


def test_the_folder_for_static_hosts_has_large_files_in_parts(
    browser: Browser, bundle: Path, copy_of: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With parts of 4 MiB, so that ONNX Runtime's own file has several."""
    small = 4 * 2**20
    cut = copy_of(bundle)
    source = cut / "runtime" / "source.mjs"
    content = source.read_text("utf-8")
    assert f"const PART = {script_packages.MOST_BYTES // 2**20} * 2 ** 20;" in content
    source.write_text(content.replace("const PART = 25 *", "const PART = 4 *"), "utf-8")
    seal(cut, read_bundle(cut))
    monkeypatch.setattr(script_packages, "MOST_BYTES", small)
    folder = Path(str(pack(cut, tmp_path, ["static"]).static))
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    assert max(sizes.values()) == small
    assert "runtime/ort/ort-wasm-simd-threaded.wasm.part3" in sizes
    assert "runtime/ort/ort-wasm-simd-threaded.wasm" not in sizes
    assert opened(browser, folder) == ("ready", "", [])


def test_npm_installs_the_package(bundle: Path, tmp_path: Path) -> None:
    package = str(pack(bundle, tmp_path, ["npm"]).npm)
    (tmp_path / "package.json").write_text('{"name": "page", "private": true, "type": "module"}', "utf-8")
    install = [str(shutil.which(CLIENT)), "install", "--offline", "--no-audit", "--no-fund", package]
    subprocess.run(install, cwd=tmp_path, check=True, capture_output=True)
    installed = tmp_path / "node_modules" / "digits-web"
    for file in read_bundle(bundle).files:
        assert (installed / file.path).read_bytes() == (bundle / file.path).read_bytes()
    exported = json.loads((installed / "package.json").read_bytes())["exports"]
    named = {place for entry in exported.values() for place in (entry.values() if isinstance(entry, dict) else ())}
    assert all((installed / place).is_file() for place in named), named


def test_a_page_that_asks_another_server_is_refused(bundle: Path, copy_of: Callable[[Path], Path]) -> None:
    curious = copy_of(bundle)
    page = curious / "runtime" / "page.mjs"
    page.write_text("fetch('https://example.com/').catch(() => undefined);\n" + page.read_text("utf-8"), "utf-8")
    html = curious / "index.html"
    html.write_text(html.read_text("utf-8").replace("connect-src 'self' blob:", "connect-src *"), "utf-8")
    seal(curious, read_bundle(curious))
    with (
        Worker.for_bundle("web", Path(sys.executable), curious) as started,
        pytest.raises(WorkerError, match=r"the page asks another server: https://example\.com/"),
    ):
        started.call("load", bundle=str(curious))


WRONG: tuple[dict[str, np.ndarray[Any, Any]], ...] = (
    {},
    {"image": np.zeros((1, 1, 8, 8), np.float32), "other": np.zeros(1, np.float32)},
    {"image": np.zeros((1, 8, 8), np.float32)},
    {"image": np.zeros((1, 1, 8, 9), np.float32)},
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
        assert found.value.code == "input"
        assert found.value.message == str(expected.value).replace(".0", "")
    with pytest.raises(WorkerError, match="input 'image' is float64, the model takes float32"):
        worker.run({"image": np.zeros((1, 1, 8, 8))})


def test_int8_passes_its_gates_in_the_browser(digits_compiler: Compiler, build: Build, tmp_path: Path) -> None:
    options = ("--set", "targets.web.precision=int8", "--variant", "int8-dynamic")
    made = digits_compiler.build(WEB, *PLAIN, *options, output=tmp_path / "int8").succeeded()
    (target,) = made.report("digits")["targets"]
    assert target["variant"] == "int8-dynamic"
    outcomes = {verdict["gate"]: verdict["outcome"] for verdict in target["verdicts"]}
    assert {"cosine", "metric"} <= outcomes.keys()
    assert set(outcomes.values()) == {"pass"}
    fp32 = read_bundle(build.bundle("digits", "web"))
    assert read_bundle(made.bundle("digits", "web")).model.bytes < fp32.model.bytes


def test_without_chromium_the_graph_is_checked_and_nothing_is_measured(
    digits_compiler: Compiler, build: Build, tmp_path: Path
) -> None:
    del build
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("npm", "node", "git", "sh", "env"):
        if (found := shutil.which(name)) is not None:
            (programs / name).symlink_to(found)
    options = {"env": {**digits_compiler.environment(), "PATH": str(programs)}}
    refused = digits_compiler.build(WEB, *PLAIN, output=tmp_path / "refused", **options)
    assert "no Chromium on this host" in refused.stdout
    refused.failed(7)
    allowed = digits_compiler.build(
        WEB, *PLAIN, "--set", "targets.web.unmeasured=allow", "--set", "targets.web.precision=int8",
        "--variant", "int8-dynamic", output=tmp_path / "allowed", **options,
    ).succeeded()  # fmt: skip
    (target,) = allowed.report("digits")["targets"]
    assert target["status"] == "provisional"
    outcomes = {verdict["gate"]: verdict["outcome"] for verdict in target["verdicts"]}
    assert outcomes["cosine on CPU"] == "pass", outcomes
    assert outcomes["parity"] == "unmeasured"


def test_commands_know_bundles_for_browsers(digits_compiler: Compiler, bundle: Path, tmp_path: Path) -> None:
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
        (("emit", bundle), "is for browsers: no container serves its model"),
        (("run", bundle, "a text"), "takes tensors, not texts or files, and runs in browsers"),
        (("bench", bundle, "--measurement", tmp_path / "m.json"), "no bundle measures itself there"),
    ):
        done = run(*arguments)
        assert done.returncode == 2, done.stderr
        assert said in done.stderr
    sums = (bundle / "SHA256SUMS").read_text("utf-8").splitlines()
    for line in sums:
        digest, _, path = line.partition("  ")
        assert hashlib.sha256((bundle / path).read_bytes()).hexdigest() == digest
