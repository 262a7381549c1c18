"""A variant of a target in the course of a build: what was made of it, and what is known of it so far."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ortc.bundle.assemble import Made
from ortc.evaluation.report import Check, Verdict
from ortc.plan.plan import TuningPlan


@dataclass(frozen=True)
class Tried:
    """A variant that was made and checked at the level it ended at; `on_cpu` is what its graph answers on the CPU
    provider, for a target that this host cannot run."""

    made: Made
    key: str
    check: Check | None
    verdicts: tuple[Verdict, ...]
    lowered: str | None
    on_cpu: Check | None = None

    @property
    def failed(self) -> Verdict | None:
        """The first gate it did not pass."""
        return next((verdict for verdict in self.verdicts if verdict.outcome != "pass"), None)

    def with_tuning(self, tuning: TuningPlan | None) -> Tried:
        """The same graph with other session settings."""
        return replace(self, made=replace(self.made, tuning=tuning))
