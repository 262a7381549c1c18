"""What is done to the variant that won: session settings that make it faster, weights packed for this processor."""

from __future__ import annotations

from collections.abc import Callable

from ortc.build.search.ranking import FIRST_ROUNDS, FIRST_RUNS, QUICK_ROUNDS
from ortc.build.search.workbench import Workbench
from ortc.build.tried import Tried
from ortc.common.errors import NotApplicable
from ortc.common.statistics import Interval, median, ratio_of_rounds
from ortc.evaluation import latency
from ortc.evaluation.gates import describe
from ortc.evaluation.noise import race_noise, starts_noise

TUNING_ROUNDS, TUNING_RUNS = 10, 8
TUNING_GAIN = 1.02
"""A tuning must be clearly more than this many times faster than the plain session, or it is noise."""
PACKING_GAIN = 1.05
"""A start with packed weights must be this many times faster to be worth their disk."""

BUSY = "session not tuned: the machine was too busy to compare sessions"


def tune(workbench: Workbench, entry: Tried, *, quick: bool) -> tuple[Tried, str | None]:
    """The winner with the session settings that make it fastest, and what they are called."""
    target = workbench.target
    if not target.tuning or target.tuned is not None:
        return entry, None
    sessions = {"plain": entry.made.variant.session}
    contenders = {"plain": entry.with_tuning(None)}
    for tuning in target.tuning:
        session = tuning.apply(entry.made.variant.session)
        if session not in sessions.values():
            sessions[tuning.name], contenders[tuning.name] = session, entry.with_tuning(tuning)
    if len(contenders) == 1:
        return contenders["plain"], None
    gains = _gains(workbench, contenders, QUICK_ROUNDS if quick else FIRST_ROUNDS, FIRST_RUNS)
    if gains is None:
        return contenders["plain"], BUSY
    contenders = {n: entry for n, entry in contenders.items() if n == "plain" or gains[n].value > 1 / TUNING_GAIN}
    if len(contenders) == 1:
        return contenders["plain"], None
    if not quick:
        gains = _gains(workbench, contenders, TUNING_ROUNDS, TUNING_RUNS)
        if gains is None:
            return contenders["plain"], BUSY
    best = max(gains, key=lambda name: gains[name].value)
    gain = gains[best]
    if gain.low is None or gain.low <= TUNING_GAIN:
        return contenders["plain"], None
    return contenders[best], f"session `{best}`"


def _gains(workbench: Workbench, contenders: dict[str, Tried], rounds: int, runs: int) -> dict[str, Interval] | None:
    """How many times faster than the plain session each of the others is; None where the machine was too busy."""
    outcome = workbench.race(list(contenders.values()), rounds, runs, names=list(contenders))
    if race_noise(outcome):
        return None
    found = {contender.name: contender.rounds for contender in outcome.contenders}
    return {name: ratio_of_rounds(found["plain"], values) for name, values in found.items() if name != "plain"}


def prepack(workbench: Workbench, entry: Tried, verify: Callable[[Tried], Tried]) -> tuple[Tried, str | None]:
    """The winner with its weights packed for this processor besides, where that is asked for, right, and faster.

    Args:
        workbench: packs and starts variants.
        entry: the variant that won.
        verify: judges a variant at every case.

    Returns:
        What ships, and what is to be said of it.
    """
    if not workbench.target.prepack:
        return entry, None
    try:
        packed = verify(workbench.pack(entry))
    except NotApplicable as error:
        return entry, f"weights not packed: {error.message}"
    if packed.failed is not None:
        return entry, f"weights not packed: {describe(packed.failed)}"
    starts = [workbench.start(candidate, latency.START_RUNS) for candidate in (entry, packed)]
    if any(map(starts_noise, starts)):
        return entry, "weights not packed: the machine was too busy to compare starts"
    before, after = (median(one.seconds) for one in starts)
    times = f"starts in {1000 * after:.0f} ms instead of {1000 * before:.0f} ms"
    if before < after * PACKING_GAIN:
        return entry, f"weights not packed: {times}"
    return packed, f"weights packed for this processor: {times}"
