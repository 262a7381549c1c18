"""Files of HTML in headless Chromium: what they ask for, how wide they are, what axe-core finds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ortc.common.resources import cache_root
from ortc.execution.browser.chromium import Browser
from ortc.execution.npm_package import PinnedFiles, package_files

AXE = PinnedFiles(
    "axe-core",
    "4.14.1",
    "sha512-FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==",
    {"axe.min.js": "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"},
)
SCHEMES = ("light", "dark")


class FilePage:
    """A page of a browser that shows files.

    `logged` are what Chromium says of the page: refused by its policy, failed, or of a script.
    """

    def __init__(self, browser: Browser, *, width: int, height: int = 720) -> None:
        self._browser = browser
        target = browser.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        self._session = browser.call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        for domain in ("Network", "Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._call("Emulation.setDeviceMetricsOverride", size)

    def open(self, file: Path, scheme: str = "light") -> None:
        """Show a file, with the colours that the reader prefers."""
        self._call("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
        self._browser.events.clear()
        self._call("Page.navigate", {"url": file.resolve().as_uri()})
        while self.value("document.readyState") != "complete" or self.value("location.href") == "about:blank":
            self._browser.wait(0.05)

    def value(self, expression: str) -> Any:
        """The value of an expression, or of what it promises."""
        asked = {"expression": expression, "awaitPromise": True, "returnByValue": True}
        result = self._call("Runtime.evaluate", asked)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    @property
    def requests(self) -> list[str]:
        """Addresses that the page has asked for, itself among them."""
        return [event["params"]["request"]["url"] for event in self._events("Network.requestWillBeSent")]

    @property
    def logged(self) -> list[str]:
        """What Chromium has logged of the page, and dialogs that it opened."""
        entries = [event["params"]["entry"]["text"] for event in self._events("Log.entryAdded")]
        return entries + [event["params"]["message"] for event in self._events("Page.javascriptDialogOpening")]

    def violations(self) -> list[tuple[str, list[str]]]:
        """What axe-core has against the page: its rule, and the elements."""
        axe = package_files(AXE, cache_root() / "environments") / "axe.min.js"
        self._call("Runtime.evaluate", {"expression": axe.read_text("utf-8")})
        found = self.value("axe.run().then((result) => result.violations)")
        return [(entry["id"], [node["html"][:200] for node in entry["nodes"]]) for entry in found]

    def _events(self, method: str) -> list[dict[str, Any]]:
        return [event for event in self._browser.events if event["method"] == method]

    def _call(self, method: str, parameters: dict[str, Any] | None = None) -> dict[str, Any]:
        found: dict[str, Any] = self._browser.call(method, parameters, session=self._session, seconds=60)
        return found


def bottom_of(selector: str) -> str:
    """The expression for how far down the first element of a selector ends, in pixels."""
    return f"document.querySelector({json.dumps(selector)}).getBoundingClientRect().bottom"
