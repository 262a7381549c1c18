"""Runtime environments of one target's variants, and what this host can run of them."""

from __future__ import annotations

import threading
from pathlib import Path

from ortc.build.context import Context
from ortc.bundle.assemble import Made
from ortc.common.errors import StageError
from ortc.evaluation.footprint import Installed, installed
from ortc.plan.plan import TargetPlan, VariantPlan


class Environments:
    """The runtime environments that a target's variants run in on this host.

    `runnable`: this host has the target's hardware. `promised`: it is one of the target's platforms, too.
    """

    def __init__(self, context: Context, target: TargetPlan) -> None:
        self.platform = context.host.platform
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

    def runner(self, made: Made) -> Path:
        """The interpreter of a variant on a host that can run it."""
        interpreter = self.interpreter(made.variant)
        if interpreter is None:
            raise StageError(f"{self.platform} without the target's hardware cannot run {made.variant.name}")
        return interpreter

    def installed(self, made: Made) -> Installed | None:
        """Bytes of the packages that a variant runs on; None where this host cannot run the target."""
        interpreter = self.interpreter(made.variant)
        return None if interpreter is None else installed(interpreter, made.session.providers[0].name)
