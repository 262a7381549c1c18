"""Noise: what says that a measurement is not one of a quiet machine. Pure functions over samples.

Bounds of the control workload were set on turns of two cores, idle and beside other work; those of modes, drift and
starts on synthetic rounds. docs/measuring.md explains all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal

from ortc.common.statistics import median
from ortc.evaluation.report import Contender, Control, Load, Race, Starts

CONTROL_SHARE = 0.9
"""Minimum share of its cores that the control workload's median turn gets on a quiet machine."""
CONTROL_SPREAD = 1.25
"""Maximum of how many times as long the third quartile of its turns takes as the first.

Quartiles, because what is claimed of a race or of starts are medians: of six turns, one interruption says nothing."""
CORE_SHARE = 0.85
"""Least part of its wall time that a contender computes: who waits for nothing uses one core at least."""
ROUND_SHARE, WEAK_ROUNDS = 0.75, 0.25
"""Rounds in which a contender used less than this of the cores of its best ones, and the share of such that is many."""
MODE_RATIO, MODE_GAP, MODE_SHARE = 1.3, 0.5, 0.2
"""Two modes: how far the medians of two groups of rounds are apart, how much of that the gap between the groups takes,
and the least share of rounds in the smaller group."""
DRIFT_RATIO, DRIFT_DEVIATIONS = 1.15, 2.6
"""Drift: how far the first and the last third of the rounds are apart, and how sure the trend is (99 %)."""
PATTERN_ROUNDS = 8
"""Rounds below which neither modes nor drift are looked for."""
START_SPREAD = 1.5
"""Most times as long that the median start takes as the fastest one."""


def race_noise(race: Race, *names: str) -> tuple[str, ...]:
    """Why the times of a race claim nothing, in sentences for people; empty on a quiet machine.

    Args:
        race: what was measured.
        names: the contenders whose times are claimed; all where none is named.
    """
    is_on_cpu = not race.host.gpus
    claimed = [one for one in race.contenders if not names or one.name in names]
    return (*control_noise(race.control), *(line for one in claimed for line in _contender(one, is_on_cpu)))


def starts_noise(starts: Starts) -> tuple[str, ...]:
    """Why the times of starts claim nothing; empty on a quiet machine."""
    return (*control_noise(starts.control), *_spread(starts.seconds))


def control_state(*controls: Control | None) -> Literal["quiet", "noisy", "none"]:
    """What control workloads say together; `none` where one was not run."""
    if any(control is None or not control.rounds for control in controls):
        return "none"
    return "noisy" if any(control_noise(control) for control in controls) else "quiet"


def control_noise(control: Control | None) -> tuple[str, ...]:
    """Why the machine was not quiet, as the control workload says; nothing where there is none."""
    if control is None or not control.rounds:
        return ()
    found = []
    share = median(
        [cpu / (wall * control.threads) for cpu, wall in zip(control.cpu_seconds, control.wall_seconds, strict=True)]
    )
    if share < CONTROL_SHARE:
        found.append(f"the control workload got {share:.0%} of {_cores(control.threads)}, below {CONTROL_SHARE:.0%}")
    turns = sorted(control.wall_seconds)
    slow, fast = turns[math.ceil(0.75 * len(turns)) - 1], turns[math.ceil(0.25 * len(turns)) - 1]
    if slow > CONTROL_SPREAD * fast:
        found.append(f"turns of the control workload vary by {slow / fast:.2f}x, above {CONTROL_SPREAD}x")
    return tuple(found)


def descheduled(contender: Contender) -> str | None:
    """Whether a contender on the CPU waited for cores, by the processor time of its process.

    What it should use is one core at least, and as many as in its best rounds.
    """
    wall, computed = contender.wall_seconds, contender.cpu_seconds
    if not computed or len(computed) != len(wall):
        return None
    share = sum(computed) / sum(wall)
    if share < CORE_SHARE:
        return f"{contender.name} computed {share:.0%} of its time, below {CORE_SHARE:.0%}"
    shares = sorted(cpu / seconds for cpu, seconds in zip(computed, wall, strict=True))
    best = max(1.0, shares[math.ceil(0.8 * len(shares)) - 1])
    weak = sum(value < ROUND_SHARE * best for value in shares)
    if weak > WEAK_ROUNDS * len(shares):
        return f"{contender.name} got less than {ROUND_SHARE:.0%} of {best:.1f} cores in {weak} of {len(shares)} rounds"
    return None


def bimodal(medians: Sequence[float]) -> tuple[float, float] | None:
    """The medians of two groups of rounds that are clearly apart; None for one group.

    Args:
        medians: one per round, in milliseconds.
    """
    ordered = sorted(medians)
    count = len(ordered)
    if count < PATTERN_ROUNDS:
        return None
    least = math.ceil(MODE_SHARE * count)
    for size in range(least, count - least + 1):
        low, high = ordered[:size], ordered[size:]
        below, above = median(low), median(high)
        if above >= MODE_RATIO * below and high[0] - low[-1] >= MODE_GAP * (above - below):
            return below, above
    return None


def drift(medians: Sequence[float]) -> float | None:
    """How many times as long the last third of the rounds takes as the first; None where there is no clear trend.

    The trend is Kendall's: the number of ordered pairs, against what chance would give (Mann, 1945).
    """
    count = len(medians)
    if count < PATTERN_ROUNDS:
        return None
    pairs = sum(
        (medians[later] > medians[earlier]) - (medians[later] < medians[earlier])
        for earlier in range(count)
        for later in range(earlier + 1, count)
    )
    deviation = math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    third = count // 3
    ratio = median(medians[-third:]) / median(medians[:third])
    is_clear = abs(pairs) > DRIFT_DEVIATIONS * deviation
    return ratio if is_clear and max(ratio, 1 / ratio) > DRIFT_RATIO else None


def beside(load: Load | None) -> str:
    """What ran beside a measurement, in one line: processes without arguments, and the load average."""
    if load is None:
        return "nothing is known of what ran beside it"
    ran = [f"{process.name} ({process.cores:.2f} cores)" for process in load.processes]
    if load.stolen >= 0.05:
        ran.append(f"other machines on the same hardware ({load.stolen:.2f} cores)")
    average = "" if load.average is None else f"; load average {load.average:.2f}"
    return f"beside it ran {', '.join(ran) or 'no process that is seen from here'}{average}"


def _contender(contender: Contender, is_on_cpu: bool) -> Iterator[str]:
    # A contender on a GPU waits for it.
    if is_on_cpu and (line := descheduled(contender)) is not None:
        yield line
    medians = [median(values) for values in contender.rounds]
    if (modes := bimodal(medians)) is not None:
        yield f"{contender.name} has two modes, {modes[0]:.3g} ms and {modes[1]:.3g} ms"
    elif (ratio := drift(medians)) is not None:
        yield f"{contender.name} drifts: the last rounds take {ratio:.2f}x the first"


def _spread(seconds: Sequence[float]) -> Iterator[str]:
    if seconds and median(seconds) > START_SPREAD * min(seconds):
        spread = median(seconds) / min(seconds)
        yield f"the median start takes {spread:.2f}x the fastest, above {START_SPREAD}x"


def _cores(count: int) -> str:
    return "its core" if count == 1 else f"its {count} cores"
