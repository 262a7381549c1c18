"""Runtime environments of one target's variants, and what this host can run of them."""

from __future__ import annotations

import threading
from pathlib import Path, PurePosixPath

from ortc.build.context import Context
from ortc.bundle.assemble import Made
from ortc.bundle.web_files import web_digest
from ortc.common.errors import StageError
from ortc.evaluation.footprint import Installed, installed
from ortc.execution.browser.chromium import find_chromium
from ortc.execution.code_closure import Code, code_of
from ortc.execution.processes import own_interpreter
from ortc.plan.plan import TargetPlan, VariantPlan
from ortc.spec.runtimes import pins
from ortc.spec.vocabulary import WEB

BROWSER_CODE = Code(("ortc.execution.browser.__main__",))


class Environments:
    """The runtime environments that a target's variants run in on this host.

    `runnable`: this host has the target's hardware, or a browser. `promised`: it is one of the target's platforms, too.
    `platform` is that of the host, or that of browsers.
    """

    def __init__(self, context: Context, target: TargetPlan) -> None:
        self.browser = find_chromium() if target.is_web else None
        self.platform = WEB if target.is_web else context.host.platform
        if target.is_web:
            self.runnable = self.browser is not None
        else:
            self.runnable = not target.requires_gpu or bool(context.host.gpus)
        self.promised = self.runnable and self.platform in target.platforms
        self._context = context
        self._target = target
        self._interpreters: dict[str, Path] = {}
        self._lock = threading.Lock()

    def interpreter(self, variant: VariantPlan) -> Path | None:
        """Of the variant's runtime environment; None where this host cannot run the target."""
        if not self.runnable:
            return None
        if self._target.is_web:
            # The driver of the browser is a module of ortc's own.
            return own_interpreter()
        name = variant.runtime.pins
        # Two variants that are made at the same time share the one that is made for them.
        with self._lock:
            if name not in self._interpreters:
                self._interpreters[name] = self._environment(name)
        return self._interpreters[name]

    def _environment(self, name: str) -> Path:
        # On a host that is none of the target's platforms the same runtime still checks numerics, as evidence.
        platforms = self._target.platforms if self.promised else (*self._target.platforms, self.platform)
        return self._context.runner.interpreter(name, platforms)

    def carried(self, variant: VariantPlan) -> dict[str, Path]:
        """Files of the runtime that the variant's bundle carries, by their place in it; none where it carries none."""
        found: dict[str, Path] = {}
        for package in pins(variant.runtime.pins).npm:
            with self._lock:
                place = self._context.runner.carried(package)
            found |= {f"{package.place}/{PurePosixPath(file.path).name}": place / file.path for file in package.files}
        return found

    @property
    def variables(self) -> dict[str, str]:
        """What decides answers and times here besides the host: of browsers their version, and the code that asks."""
        if self.browser is None:
            return {}
        return {"chromium": self.browser.version, "browser worker": code_of(BROWSER_CODE), "loader": web_digest()}

    def runner(self, made: Made) -> Path:
        """The interpreter of a variant on a host that can run it."""
        interpreter = self.interpreter(made.variant)
        if interpreter is None:
            lacks = "without Chromium" if self._target.is_web else "without the target's hardware"
            raise StageError(f"{self.platform} {lacks} cannot run {made.variant.name}")
        return interpreter

    def installed(self, made: Made) -> Installed | None:
        """Bytes of the packages that a variant runs on; None where this host cannot run the target."""
        interpreter = self.interpreter(made.variant)
        if self._target.is_web:
            size = pins(made.variant.runtime.pins).loader_bytes(WEB)
            return Installed(unpacked=size, kept=size)
        return None if interpreter is None else installed(interpreter, made.session.providers[0].name)
