"""`@huggingface/transformers` in Node and in Chromium, opening folders of `ortc pack` without a network."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ortc.execution.browser.chromium import Browser, find_chromium
from ortc.execution.browser.page import Page
from ortc.execution.browser.site import Site
from ortc.execution.node.program import find_node
from ortc.execution.npm_package import CLIENT

PACKAGE = "@huggingface/transformers@4.3.1"
FOLDERS = "packed"
"""Where the folders lie that the library opens."""
SECONDS = 120
_ANSWERS = """
export async function answers(place, name, texts) {
  Object.assign(env, { allowRemoteModels: false, allowLocalModels: true, localModelPath: place });
  const tokenizer = await AutoTokenizer.from_pretrained(name);
  const model = await AutoModel.from_pretrained(name);
  const found = [];
  for (const text of texts) {
    const { sentence_embedding } = await model(await tokenizer(text, { truncation: true }));
    found.push(Array.from(sentence_embedding.data));
  }
  return found;
}
"""
_IMPORTS = 'import { AutoModel, AutoTokenizer, env } from "@huggingface/transformers";\n'
_IN_NODE = (
    f"{_IMPORTS}{_ANSWERS}const [, , place, name, texts] = process.argv;\n"
    "console.log(JSON.stringify(await answers(place, name, JSON.parse(texts))));\n"
)
_IN_PAGES = (
    f"{_IMPORTS}env.useBrowserCache = false;\nenv.useWasmCache = false;\n"
    f'env.backends.onnx.wasm.wasmPaths = "/node_modules/onnxruntime-web/dist/";\n{_ANSWERS}'
)
_MAP = {
    "@huggingface/transformers": "/node_modules/@huggingface/transformers/dist/transformers.web.js",
    "onnxruntime-web/webgpu": "/node_modules/onnxruntime-web/dist/ort.webgpu.bundle.min.mjs",
    "onnxruntime-common": "/node_modules/onnxruntime-common/dist/esm/index.js",
}
_PAGE = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><link rel="icon" href="data:,"><title>transformers.js</title>'
    f'<script type="importmap">{json.dumps({"imports": _MAP})}</script></html>\n'
)


def install(place: Path) -> None:
    """Install the library in a directory, with a program for Node and a page beside it."""
    (place / "package.json").write_text('{"private": true, "type": "module"}', "utf-8")
    command = [str(shutil.which(CLIENT)), "install", "--ignore-scripts", "--no-audit", "--no-fund", PACKAGE]
    subprocess.run(command, cwd=place, check=True, capture_output=True)
    (place / "node.mjs").write_text(_IN_NODE, "utf-8")
    (place / "page.mjs").write_text(_IN_PAGES, "utf-8")
    (place / "index.html").write_text(_PAGE, "utf-8")
    (place / FOLDERS).mkdir()


def in_node(place: Path, name: str, texts: Sequence[str]) -> list[list[float]]:
    """The `sentence_embedding` of each text, by the folder `name` in `packed`."""
    node = find_node()
    assert node is not None
    command = [str(node.program), "node.mjs", f"{place / FOLDERS}/", name, json.dumps(texts)]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: list[list[float]] = json.loads(done.stdout.splitlines()[-1])
    return found


def in_chromium(place: Path, name: str, texts: Sequence[str]) -> list[list[float]]:
    """The same in a page, which asks no other server."""
    chromium = find_chromium()
    assert chromium is not None
    asked = ", ".join(json.dumps(given) for given in (f"/{FOLDERS}/", name, list(texts)))
    with Browser(chromium) as browser, Site(place) as site:
        page = Page(browser, site.origin)
        page.go("/")
        found: list[list[float]] = page.value(f"import('/page.mjs').then((page) => page.answers({asked}))")
        assert page.foreign == []
        page.close()
    return found
