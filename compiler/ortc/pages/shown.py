"""One target of a report, as the parts of its page read it."""

from __future__ import annotations

from dataclasses import dataclass

from ortc.evaluation.report import BuildReport, TargetReport
from ortc.pages.facts import Facts


@dataclass(frozen=True, slots=True)
class Shown:
    """One target of a report, and the document with its numbers."""

    report: BuildReport
    index: int
    facts: Facts

    @property
    def target(self) -> TargetReport:
        """The target itself."""
        return self.report.targets[self.index]

    @property
    def at(self) -> str:
        """The pointer of the target."""
        return f"/targets/{self.index}"
