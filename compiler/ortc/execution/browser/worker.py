"""The operations of a bundle's worker, done by the bundle's own loader in a page of headless Chromium."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ortc.common.bundle_runtime import runtime_module
from ortc.common.errors import StageError
from ortc.execution.browser.chromium import INSTALL, Browser, Json, find_chromium
from ortc.execution.browser.page import Page, resident
from ortc.execution.browser.site import BLANK, DRIVER, OWN, Site
from ortc.execution.host import cores
from ortc.execution.worker_protocol import CodedError

CPU = "CPUExecutionProvider"
PAGE_SECONDS = 600.0
"""Seconds until the page of a bundle is ready or refuses it."""
SOAK_SECONDS = 15.0
_PLACED: Json = {"placement": {}, "fallback": {"nodes": 0, "shape_nodes": 0, "named": []}, "prepacked": False}


class BrowserWorker:
    """Answers requests about one bundle at a time; each public method is an operation. Use as a context manager."""

    def __init__(self) -> None:
        self._open = ExitStack()
        self._browser: Browser | None = None
        self._site: Site | None = None
        self._page: Page | None = None
        self._peak = 0

    def __enter__(self) -> BrowserWorker:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def start(self, bundle: Path) -> Page:
        """Chromium with an empty page of the site of a bundle.

        Raises:
            StageError: there is no Chromium, or it does not start.
        """
        chromium = find_chromium()
        if chromium is None:
            raise StageError("there is no Chromium on this machine", help=INSTALL)
        if self._browser is None:
            self._browser = self._open.enter_context(Browser(chromium))
        self._site = self._open.enter_context(Site(bundle))
        self._page = Page(self._browser, self._site.origin)
        self._page.go(BLANK)
        return self._page

    def load(self, request: Json) -> Json:
        """Load a bundle in place of the one before; with a self-test its own page has to be ready, too."""
        self.close({})
        self._peak, selftest = 0, bool(request.get("selftest", True))
        page = self.start(Path(request["bundle"]))
        if selftest and request.get("verify", "full") == "full":
            self._prove_page(page)
        asked = {
            "verify": "full" if request.get("verify", "full") != "none" else "none",
            "selftest": selftest,
            "warmup": bool(request.get("warmup", True)),
            "threads": request.get("threads") or cores(),
        }
        return {**self._shown(self._ask("load", asked)), "golden": self._ask("info")["golden"]}

    def first_answer(self, request: Json) -> Json:
        """{bundle, sizes} -> seconds from an empty page of an open browser to the first answer; and the peak of memory.

        Nothing is cached: every file is fetched and compared with its digest. The self-test is left out, as in the
        starts of other bundles.
        """
        page = self.start(Path(request["bundle"]).resolve())
        began = time.monotonic()
        self._ask("load", {"verify": "full", "selftest": False, "warmup": False, "threads": cores()})
        self._ask("example", {"sizes": request["sizes"]})
        seconds = time.monotonic() - began
        return {"start_to_first_answer_seconds": seconds, "peak_rss_bytes": resident(page.renderer()[0])[1]}

    def _prove_page(self, page: Page) -> None:
        """Open the bundle's own page as a user does.

        Raises:
            CodedError: it refuses the bundle, or asks another server.
        """
        page.go("/")
        page.wait_for("document.documentElement.dataset.state !== 'loading'", PAGE_SECONDS)
        if page.value("document.documentElement.dataset.state") != "ready":
            reason = page.value("document.getElementById('reason').textContent")
            raise CodedError("golden", f"index.html refuses the bundle: {reason}")
        self._refuse_foreign(page)
        page.go(BLANK)

    def run(self, request: Json) -> Json:
        """Run on the arrays of one .npz file and write another."""
        site = self._loaded()
        site.given["inputs.npz"], site.taken["outputs.npz"] = Path(request["inputs"]), Path(request["outputs"])
        self._ask("run", {"inputs": f"{OWN}in/inputs.npz", "outputs": f"{OWN}out/outputs.npz"})
        return {"file": request["outputs"]}

    def tokens(self, request: Json) -> Json:
        """Token ids and token types of every text, as the page makes them."""
        return self._ask("tokens", request)

    def answers(self, request: Json) -> Json:
        """The answers of the page to a list of texts."""
        return self._ask("answers", request)

    def bench(self, request: Json) -> Json:
        """Latency of every run, with the seconds of all on the wall and of the page's process."""
        self._loaded().given["inputs.npz"] = Path(request["inputs"])
        asked = {key: request.get(key) for key in ("runs", "clients")}
        warmup = {"runs": 1, "warmup": max(0, int(request.get("warmup", 1)) - 1)}
        if request.get("warmup", 1):
            self._ask("bench", {"inputs": f"{OWN}in/inputs.npz", **warmup})
        before = self._live().renderer()[1]
        found = self._ask("bench", {"inputs": f"{OWN}in/inputs.npz", "warmup": 0, **asked})
        return {**found, "cpu_seconds": max(0.0, self._live().renderer()[1] - before)}

    def copies(self, _: Json) -> Json:
        """Copies between host and device: the WebAssembly backend has one memory."""
        return {"copies": {}}

    def soak(self, request: Json) -> Json:
        """Run many distinct shapes in the page, as `loading/soak.py` of other bundles does in its process."""
        rules, began = runtime_module("loading.soak"), time.perf_counter()
        axis_of = runtime_module("loading.interface").Axis
        axes = [axis_of(**axis) for axis in self._ask("info")["axes"]]
        seconds = float(request.get("seconds", SOAK_SECONDS))
        sizes = [rules._sizes_of(axis) for axis in axes]
        count = 1
        for values in sizes:
            count *= len(values)
        if count <= 1:
            still = {"shapes": 0, "of": count, "seconds": 0.0, "end": "fixed", "grown_bytes": 0}
            return {**still, "peak_rss_bytes": self._memory()[1]}
        largest = {axis.name: values[-1] for axis, values in zip(axes, sizes, strict=True)}
        slowest = self._timed(largest)
        first = self._memory()[0]
        held, end = [first], "all"
        for shape in rules._soak_shapes(axes, max(1.0, seconds / 20) / slowest):
            flat = max(rules.SOAK_FLAT_BYTES, held[-1] // 100)
            if len(held) > rules.SOAK_WINDOW and rules._growth(held) <= flat:
                end = "plateau"
                break
            late = time.perf_counter() - began > seconds and len(held) > rules.SOAK_LARGE
            if late or len(held) > rules.SOAK_SHAPES:
                end = "time"
                break
            self._timed(shape)
            held.append(self._memory()[0])
        self._timed(largest)
        shapes = min(count, len(held))
        window = max(1, min(rules.SOAK_WINDOW, shapes - 1))
        more = (count - shapes) * rules._growth(held) // window if end == "time" else 0
        return {
            "shapes": shapes,
            "of": count,
            "seconds": time.perf_counter() - began,
            "end": end,
            "grown_bytes": max(0, max(held) - first) + more,
            "peak_rss_bytes": self._memory()[1] + more,
        }

    def info(self, _: Json) -> Json:
        """What is loaded, on how many threads, and the greatest memory of the page's process so far."""
        return self._shown(self._ask("info"))

    def close(self, _: Json) -> Json:
        """Drop the bundle; Chromium stays."""
        if self._page is not None and self._site is not None:
            self._page.close()
            self._site.__exit__(None, None, None)
        self._page = self._site = None
        return {}

    def _timed(self, sizes: Mapping[str, int]) -> float:
        began = time.perf_counter()
        self._ask("example", {"sizes": dict(sizes)})
        return max(1e-6, time.perf_counter() - began)

    def _memory(self) -> tuple[int, int]:
        """Bytes that the page's process holds now, and at most so far."""
        now, most = resident(self._live().renderer()[0])
        self._peak = max(self._peak, most)
        return now, self._peak

    def _shown(self, info: Json) -> Json:
        version = self._browser and self._browser.chromium.version
        about = {**_PLACED, "browser": version, "load_seconds": info["seconds"].get("total")}
        return {**info, **about, "peak_rss_bytes": self._memory()[1]}

    def _ask(self, operation: str, request: Mapping[str, Any] | None = None) -> Json:
        """What the bundle's loader answers.

        Raises:
            CodedError: it refuses, in its own words; or the page asks another server.
        """
        page = self._live()
        reply = page.ask(DRIVER, {"op": operation, **(request or {})})
        self._refuse_foreign(page)
        if not reply["ok"]:
            raise CodedError(reply["error"]["code"], reply["error"]["message"])
        found: Json = reply["result"]
        return found

    def _refuse_foreign(self, page: Page) -> None:
        if page.foreign:
            raise CodedError("foreign-request", f"the page asks another server: {', '.join(page.foreign[:3])}")

    def _live(self) -> Page:
        if self._page is None:
            raise CodedError("usage", "no model is loaded. Send load first.")
        return self._page

    def _loaded(self) -> Site:
        if self._site is None:
            raise CodedError("usage", "no model is loaded. Send load first.")
        return self._site
