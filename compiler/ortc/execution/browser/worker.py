"""The operations of a bundle's worker, done by the bundle's own loader in a page of headless Chromium."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ortc.common.errors import StageError
from ortc.execution.browser.chromium import INSTALL, Browser, Json, find_chromium
from ortc.execution.browser.page import Page
from ortc.execution.browser.site import BLANK, DRIVER, OWN, Site
from ortc.execution.host import cores
from ortc.execution.script_worker import ScriptWorker, resident
from ortc.execution.worker_protocol import CodedError

PAGE_SECONDS = 600.0
"""Seconds until the page of a bundle is ready or refuses it."""


class BrowserWorker(ScriptWorker):
    """Answers requests about one bundle at a time; each public method is an operation. Use as a context manager."""

    def __init__(self) -> None:
        super().__init__()
        self._browser: Browser | None = None
        self._site: Site | None = None
        self._page: Page | None = None

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

    def first_answer(self, request: Json) -> Json:
        """{bundle, sizes} -> seconds from an empty page of an open browser to the first answer; and the peak of memory.

        On the first visit every file is fetched, compared with its digest and kept; `downloaded_bytes` are those of its
        files. `cached_seconds` are of a second visit, whose page finds them in the browser's cache and compares them
        again. The self-test is left out, as in the starts of other bundles.
        """
        page, site = self.start(Path(request["bundle"]).resolve()), self._loaded()
        seconds, peak = self._visit(request["sizes"]), resident(page.renderer()[0])[1]
        downloaded = site.bytes
        page.close()
        self._page = Page(page.browser, site.origin)
        self._page.go(BLANK)
        return {
            "start_to_first_answer_seconds": seconds,
            "cached_seconds": self._visit(request["sizes"]),
            "downloaded_bytes": downloaded,
            "peak_rss_bytes": peak,
        }

    def _visit(self, sizes: Mapping[str, int]) -> float:
        """Seconds from an empty page to the first answer."""
        began = time.monotonic()
        asked = {"verify": "full", "selftest": False, "warmup": False, "threads": cores(), "cache": True}
        self._ask("load", asked)
        self._ask("example", {"sizes": sizes})
        return time.monotonic() - began

    def _prove(self) -> None:
        """Open the bundle's own page as a user does.

        Raises:
            CodedError: it refuses the bundle, or asks another server.
        """
        page = self._live()
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

    def close(self, _: Json) -> Json:
        """Drop the bundle; Chromium stays."""
        if self._page is not None and self._site is not None:
            self._page.close()
            self._site.__exit__(None, None, None)
        self._page = self._site = None
        return {}

    def _memory(self) -> tuple[int, int]:
        """Bytes that the page's process holds now, and at most so far."""
        now, most = resident(self._live().renderer()[0])
        self._peak = max(self._peak, most)
        return now, self._peak

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

    def _given(self, inputs: str) -> str:
        self._loaded().given["inputs.npz"] = Path(inputs)
        return f"{OWN}in/inputs.npz"

    def _cpu_seconds(self) -> float:
        return self._live().renderer()[1]

    def _about(self) -> Json:
        return {"browser": self._browser and self._browser.chromium.version}
