"""Browsers: the bundle for `web` against transformers.js, which has the same model quantized by `quantize_dynamic`.

Both compute in a page of a Chromium of their own, on the same token ids, and take turns. Nothing else may compute
meanwhile: threads of WebAssembly have no priority of their own.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import records
from runners import say
from workshop import CONTENDERS, HERE, home

from ortc.common.statistics import median, ratio_of_rounds
from ortc.execution.browser.chromium import INSTALL, Browser, find_chromium
from ortc.execution.browser.page import Page
from ortc.execution.browser.site import Site
from ortc.execution.host import Host
from ortc.execution.npm_package import CLIENT

SPEC = HERE.parent / "support" / "specs" / "bert-web.yaml"
PACKAGE = "@huggingface/transformers@4.3.1"
SEQUENCE, FIRST_ID, LAST_ID = 128, 1000, 30000
RUNS, REST_SECONDS = 5, 0.15
THREADS = (1, 2)
OURS, THEIRS = "ours", "theirs"
_MAP = {
    "@huggingface/transformers": "/node_modules/@huggingface/transformers/dist/transformers.web.js",
    "onnxruntime-web/webgpu": "/node_modules/onnxruntime-web/dist/ort.webgpu.bundle.min.mjs",
    "onnxruntime-common": "/node_modules/onnxruntime-common/dist/esm/index.js",
}
_PAGE = (
    f'<!doctype html><link rel="icon" href="data:,"><script type="importmap">{json.dumps({"imports": _MAP})}</script>\n'
)

Json = dict[str, Any]


def web_race(*, host: Host, rounds: int) -> None:
    """Race with one and with two threads, and write what was measured.

    Raises:
        RuntimeError: there is no Chromium, or the contenders cannot be made.
    """
    chromium = find_chromium()
    if chromium is None:
        raise RuntimeError(INSTALL)
    place = prepared()
    ids = np.random.default_rng(0).integers(FIRST_ID, LAST_ID, SEQUENCE).tolist()
    document: Json = {"kind": "web", "host": host.model_dump(mode="json"), "browser": chromium.version, "races": {}}
    for threads in THREADS:
        with ExitStack() as stack:
            site = stack.enter_context(Site(place))
            pages: dict[str, Page] = {}
            vectors: dict[str, Any] = {}
            for name in (OURS, THEIRS):
                page = pages[name] = Page(stack.enter_context(Browser(chromium)), site.origin)
                page.go("/")
                vectors[name] = np.asarray(_call(page, "load", name, threads, ids))
                _call(page, "turn", 1)
            race = _rounds(pages, rounds)
        race["cosine"] = float(vectors[OURS] @ vectors[THEIRS])
        speedup = ratio_of_rounds(race["rounds"][THEIRS], race["rounds"][OURS])
        race["speedup"] = speedup.model_dump(mode="json")
        document["races"][f"1x{SEQUENCE}-threads{threads}"] = race
        times = {name: median([value for turn in turns for value in turn]) for name, turns in race["rounds"].items()}
        say(f"  {threads} threads: ours {times[OURS]:.1f} ms, transformers.js {times[THEIRS]:.1f} ms; {speedup}")
    records.write(records.place(host.fingerprint(), "web", "minilm"), document)


def _rounds(pages: dict[str, Page], rounds: int) -> Json:
    found: dict[str, list[list[float]]] = {name: [] for name in pages}
    for number in range(rounds):
        # Whoever is first in a round is second in the next.
        for name in list(pages) if number % 2 else list(pages)[::-1]:
            time.sleep(REST_SECONDS)
            found[name].append(_call(pages[name], "turn", RUNS))
    return {"rounds": found}


def _call(page: Page, name: str, *arguments: object) -> Any:
    given = ", ".join(json.dumps(argument) for argument in arguments)
    return page.value(f"import('/race.mjs').then((race) => race.{name}({given}))")


def prepared() -> Path:
    """The site that both pages are of: our bundle, the library, and its folder with the graph of `quantize_dynamic`.

    Raises:
        RuntimeError: a build or an installation fails.
    """
    from onnxruntime.quantization import quantize_dynamic

    place = home() / "web"
    if not (place / ".complete").is_file():
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        build = ("ortc", "build", SPEC, "-t", "web")
        _run(place, *build, "-o", "int8")
        plain = ("--set", "targets.web.precision=fp32", "--set", "targets.web.download_budget=200MB")
        _run(place, *build, *plain, "--search", "none", "-o", "fp32")
        _run(place, "ortc", "pack", "fp32/bert/1.0.0/web", "--format", "transformers.js", "-o", "packed")
        (place / "packed" / "bert-1.0.0-web.transformers.js").rename(place / "packed" / THEIRS)
        (place / "int8" / "bert" / "1.0.0" / "web").rename(place / OURS)
        graphs = place / "packed" / THEIRS / "onnx"
        quantize_dynamic(graphs / "model.onnx", graphs / "model_quantized.onnx")
        (graphs / "model.onnx").unlink()
        config = json.loads((graphs.parent / "config.json").read_bytes())
        config["transformers.js_config"]["dtype"] = "q8"
        (graphs.parent / "config.json").write_text(json.dumps(config), "utf-8")
        (place / "package.json").write_text('{"private": true, "type": "module"}', "utf-8")
        npm = [str(shutil.which(CLIENT)), "install", "--ignore-scripts", "--no-audit", "--no-fund", PACKAGE]
        subprocess.run(npm, cwd=place, check=True, capture_output=True)
        (place / ".complete").touch()
    (place / "index.html").write_text(_PAGE, "utf-8")
    shutil.copyfile(CONTENDERS / "web_page.mjs", place / "race.mjs")
    return place


def _run(place: Path, module: str, *arguments: object) -> None:
    done = subprocess.run([sys.executable, "-m", module, *map(str, arguments)], cwd=place, check=False)
    if done.returncode:
        raise RuntimeError(f"{module} {' '.join(map(str, arguments))} ends with {done.returncode}")
