"""The interface between a search and whatever makes, races and checks the variants of a target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from ortc.build.search.precision_ladder import Sensitivity
from ortc.build.tried import Tried
from ortc.evaluation.report import Race, Starts
from ortc.plan.plan import Plan, Shape, TargetPlan, TuningPlan, VariantPlan
from ortc.spec.profile import GraphLevel


class Workbench(Protocol):
    """Whatever a search asks of one target.

    Attributes:
        plan: of the build.
        target: whose variants are searched.
        platform: of this host, or that of browsers.
        runnable: whether this host can run the target.
        promised: whether it is one of the target's platforms, too.
    """

    @property
    def plan(self) -> Plan: ...

    @property
    def target(self) -> TargetPlan: ...

    @property
    def platform(self) -> str: ...

    @property
    def runnable(self) -> bool: ...

    @property
    def promised(self) -> bool: ...

    def note(self, text: str) -> None:
        """Tell a line of progress."""

    def make(self, variant: VariantPlan, level: GraphLevel, tuning: TuningPlan | None = None) -> Tried:
        """Make a variant at a graph level, and judge its size; a variant that cannot be made has failed."""

    def make_each(self, variants: Sequence[VariantPlan], level: GraphLevel, tuning: TuningPlan | None) -> list[Tried]:
        """Make variants, several at a time."""

    def glance_each(self, entries: Sequence[Tried]) -> list[Tried]:
        """Run made variants once each, several at a time: a variant that does not load has failed."""

    def end_makers(self) -> None:
        """Give back what making took; more can be made afterwards."""

    def unload(self) -> None:
        """End the processes of the variants that stayed loaded."""

    def judge(self, entry: Tried) -> Tried:
        """Check a variant at every case, at its own graph level; on the CPU provider where the target cannot run."""

    def verify(self, entry: Tried) -> Tried:
        """Check a variant at every case, and lower its graph level where only that makes it wrong."""

    def race(
        self,
        entries: Sequence[Tried],
        rounds: int,
        runs: int,
        *,
        with_reference: bool = False,
        shape: Shape | None = None,
        names: Sequence[str] | None = None,
        quantity: Literal["latency", "throughput"] | None = None,
        stay_loaded: bool = False,
    ) -> Race:
        """Time variants against each other; see `ortc.build.races.race`.

        `stay_loaded`: in the processes that have loaded them, which go on, and not in new ones.
        """

    def start(self, entry: Tried, starts: int) -> Starts:
        """Time starts of a variant's bundle."""

    def reference_start(self) -> Starts | None:
        """Time one start of PyTorch; None where the model is not PyTorch's."""

    def pack(self, entry: Tried) -> Tried:
        """The variant with its weights packed for this processor besides, to be judged again.

        Raises:
            NotApplicable: there is nothing to pack, or nothing that this machine could pack it for.
        """

    def sensitivity(self, entry: Tried) -> Sensitivity:
        """Measure which nodes of a variant cost accuracy.

        Raises:
            StageError: a graph cannot be made or run.
        """

    def environment_bytes(self, entry: Tried) -> int:
        """Bytes of a variant's unpacked packages; 0 where this host cannot run the target."""
