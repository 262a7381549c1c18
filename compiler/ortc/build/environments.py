"""Runtime environments of one target's variants, and what this host can run of them."""

from __future__ import annotations

import threading
from pathlib import Path

from ortc.build.context import Context
from ortc.bundle.assemble import Made
from ortc.bundle.script_files import script_digest
from ortc.common.errors import StageError
from ortc.evaluation.budget_gates import absent_here
from ortc.evaluation.footprint import Installed, installed
from ortc.execution.browser.chromium import find_chromium
from ortc.execution.code_closure import Code, code_of
from ortc.execution.node.program import find_node
from ortc.execution.processes import own_interpreter
from ortc.plan.plan import TargetPlan, VariantPlan
from ortc.spec.runtimes import pins
from ortc.spec.vocabulary import WEB

BROWSER_CODE = Code(("ortc.execution.browser.__main__",))
NODE_CODE = Code(("ortc.execution.node.__main__",))


class Environments:
    """The runtime environments that a target's variants run in on this host.

    `runnable`: this host has the target's hardware, or a browser, or Node. `promised`: it is one of the target's
    platforms, too.
    `platform` is that of the host, or that of browsers.
    """

    def __init__(self, context: Context, target: TargetPlan) -> None:
        self.browser = find_chromium() if target.is_web else None
        self.platform = WEB if target.is_web else context.host.platform
        self.node = find_node() if target.is_node else None
        if target.is_web:
            self.runnable = self.browser is not None
        elif target.is_node:
            # Bundles carry the native library of their own platforms alone.
            self.runnable = self.node is not None and self.platform in target.platforms
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
        if self._target.is_javascript:
            # What drives the browser or Node is a module of ortc's own.
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
            found |= {to: place / path for to, path in package.placed(self._target.platforms).items()}
        return found

    @property
    def variables(self) -> dict[str, str]:
        """What decides answers and times here besides the host: browser or Node by version, and the code that asks."""
        if self.browser is not None:
            said = {"chromium": self.browser.version, "browser worker": code_of(BROWSER_CODE)}
        elif self.node is not None:
            said = {"node": self.node.version, "node worker": code_of(NODE_CODE)}
        else:
            return {}
        return {**said, "loader": script_digest(is_web=self._target.is_web)}

    def runner(self, made: Made) -> Path:
        """The interpreter of a variant on a host that can run it."""
        interpreter = self.interpreter(made.variant)
        if interpreter is None:
            lacks = absent_here(self._target)
            raise StageError(f"{self.platform} cannot run {made.variant.name}: {lacks}")
        return interpreter

    def installed(self, made: Made) -> Installed | None:
        """Bytes of the packages that a variant runs on; None where this host cannot run the target."""
        interpreter = self.interpreter(made.variant)
        if self._target.is_javascript:
            size = pins(made.variant.runtime.pins).loader_bytes(
                self.platform if self.promised else self._target.platforms[0]
            )
            return Installed(unpacked=size, kept=size)
        return None if interpreter is None else installed(interpreter, made.session.providers[0].name)
