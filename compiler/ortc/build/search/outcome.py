"""What a search gives: the variant that ships, with what was measured of it, and what stands against the others."""

from __future__ import annotations

from dataclasses import dataclass, field

from ortc.build.search.choice import Ranking
from ortc.build.tried import Tried
from ortc.evaluation.report import Decision, Elsewhere, Numbers, Race, Verdict
from ortc.evaluation.trade import Trade


@dataclass(frozen=True)
class Outcome:
    """What the search found out about the variant that ships.

    `race` and `numbers` are None where this host cannot run the target; `timed` are the verdicts on its times.
    """

    winner: Tried
    reason: str
    race: Race | None = None
    numbers: Numbers | None = None
    timed: tuple[Verdict, ...] = ()
    ranking: Ranking | None = None
    elsewhere: tuple[Elsewhere, ...] = ()


@dataclass
class Rejected:
    """What a search has found against variants so far: decisions by name, failed variants, trade-offs of mixes."""

    decisions: dict[str, Decision]
    failed: list[Tried] = field(default_factory=list)
    trades: list[Trade] = field(default_factory=list)
