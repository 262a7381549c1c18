"""One page of headless Chromium: where it is, what it computes, which servers it and its workers ask."""

from __future__ import annotations

import json
import time
from typing import Any

from ortc.execution.browser.chromium import Browser, BrowserError, Json
from ortc.execution.script_worker import resident

_INSIDE = ("blob:", "data:", "about:")
_ATTACH = {"autoAttach": True, "waitForDebuggerOnStart": True, "flatten": True}
_STEP_SECONDS = 0.1


class Page:
    """A page of a browser, with the workers that it starts.

    `browser` is that of the page. `foreign` lists addresses of other servers that were asked for; Chromium is told to
    reach none of them.
    """

    def __init__(self, browser: Browser, origin: str) -> None:
        self.foreign: list[str] = []
        self.browser = browser
        self._origin = origin
        target = browser.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        attached = browser.call("Target.attachToTarget", {"targetId": target, "flatten": True})
        self._target, self._session = target, attached["sessionId"]
        self._call("Network.enable")
        self._call("Page.enable")
        self._call("Target.setAutoAttach", _ATTACH)

    def go(self, path: str) -> None:
        """Open a path of the site, and wait until it is loaded.

        Raises:
            BrowserError: it cannot be opened.
        """
        result = self._call("Page.navigate", {"url": f"{self._origin}{path}"})
        if result.get("errorText"):
            raise BrowserError(f"{path} cannot be opened: {result['errorText']}")
        self.wait_for("document.readyState === 'complete'", 60)

    def wait_for(self, expression: str, seconds: float) -> None:
        """Wait until an expression is true.

        Raises:
            BrowserError: it is not in that time.
        """
        deadline = time.monotonic() + seconds
        while not self.value(expression):
            if time.monotonic() > deadline:
                raise BrowserError(f"the page is not so far after {seconds:.0f} s: {expression}")
            self.browser.wait(_STEP_SECONDS)
            self._look()

    def value(self, expression: str) -> Any:
        """The value of an expression, or of what it promises.

        Raises:
            BrowserError: it throws.
        """
        asked = {"expression": expression, "awaitPromise": True, "returnByValue": True}
        number = self.browser.send("Runtime.evaluate", asked, session=self._session)
        result = self.browser.reply(number, "Runtime.evaluate", between=self._look)
        if "exceptionDetails" in result:
            details = result["exceptionDetails"]
            said = details.get("exception", {}).get("description") or details.get("text")
            raise BrowserError(f"the page fails: {said}")
        return result["result"].get("value")

    def ask(self, module: str, request: Json) -> Json:
        """What the function `reply` of a module of the site answers to a request."""
        expression = f"import({json.dumps(module)}).then((module) => module.reply({json.dumps(request)}))"
        found: Json = self.value(expression)
        return found

    def renderer(self) -> tuple[int, float]:
        """The process that computes the page, by the memory it holds: its id, and seconds it has computed."""
        found = self.browser.call("SystemInfo.getProcessInfo")["processInfo"]
        renderers = [entry for entry in found if entry["type"] == "renderer"]
        if not renderers:
            raise BrowserError("Chromium shows no process of the page")
        chosen = max(renderers, key=lambda entry: resident(int(entry["id"]))[0])
        return int(chosen["id"]), float(chosen["cpuTime"])

    def close(self) -> None:
        """Close the page."""
        self.browser.call("Target.closeTarget", {"targetId": self._target})

    def _call(self, method: str, parameters: Json | None = None) -> Json:
        result = self.browser.call(method, parameters, session=self._session)
        self._look()
        return result

    def _look(self) -> None:
        """Go through events: workers that start are watched, too, and then let go."""
        events, self.browser.events = self.browser.events, []
        for event in events:
            parameters = event.get("params", {})
            if event["method"] == "Target.attachedToTarget":
                session = parameters["sessionId"]
                for method, given in (("Network.enable", {}), ("Target.setAutoAttach", _ATTACH)):
                    self.browser.send(method, given, session=session)
                self.browser.send("Runtime.runIfWaitingForDebugger", {}, session=session)
            elif event["method"] == "Network.requestWillBeSent":
                url = str(parameters["request"]["url"])
                if not url.startswith((*_INSIDE, f"{self._origin}/")):
                    self.foreign.append(url)
