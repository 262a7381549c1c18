"""Turns: contenders interleaved in rounds, each for at least the same time after the same rest and warm-up.

The thread pools of ONNX Runtime and OpenMP keep spinning for a while after a run and take the next contender's cores,
so each turn begins with a rest. The first runs after a rest are slow and vary most: threads have to wake up, and on a
busy machine one run of two may wait a hundred times its own duration for a core. So every contender runs uncounted for
a while, and then counts as many runs as fill the same minimum time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ortc.evaluation.machine import ControlClock, Watch, control_worker
from ortc.evaluation.report import Contender, Control, Load
from ortc.execution.worker import Timed, Worker

REST_SECONDS = 0.15
"""Before every turn of every contender."""
TURN_SECONDS = 0.1
"""The counted runs of a turn last at least this long. Of a model that answers in microseconds, one hiccup of the
machine in 420 samples would make the upper bound of p99."""
WARM_SECONDS = 0.01
"""Uncounted runs before the counted ones last at least this long; there is always one."""
PROBE_SECONDS = 0.02
PROBE_RUNS = 5
"""Before the first round, runs of a contender until this time is over or this many are done, for its duration."""
KEPT_RUNS = 500
"""Samples that are kept of a turn, evenly spaced among its counted runs."""
MAX_RUNS = 100_000
"""Counted runs of one request to a worker, at most."""
MIN_MILLISECONDS = 1e-3
"""A run that seems shorter is taken to be as long: clocks have a resolution."""


class Turn(NamedTuple):
    """One contender of a race: at least so many counted runs a turn, by that many clients at once or by one."""

    name: str
    worker: Worker
    runs: int = 1
    clients: int | None = None


class Interleaved(NamedTuple):
    """Contenders with their rounds, the control workload's turns, and what ran beside."""

    contenders: tuple[Contender, ...]
    control: Control
    load: Load


@dataclass
class _Contestant:
    """A contender under way: its shortest run so far and its latest runs' mean, in seconds, and its turns."""

    turn: Turn
    fastest: float
    mean: float
    timed: list[Timed] = field(default_factory=list)

    def take(self, inputs: Path, seconds: float) -> None:
        """Warm up, and count runs until they lasted `seconds`."""
        least, warmup = self.turn.runs, counted_runs(self.mean, WARM_SECONDS, 1)
        done: list[Timed] = []
        left = seconds
        while not done or left > 0:
            # The mean and not the shortest run: beside other work one run may take a hundred times the other.
            runs = counted_runs(self.mean, left, least)
            timed = self.turn.worker.turn(inputs, runs=runs, warmup=warmup, clients=self.turn.clients)
            done.append(timed)
            seconds_each = [max(value, MIN_MILLISECONDS) / 1000 for value in timed.latencies_ms]
            self.fastest = min(self.fastest, *seconds_each)
            self.mean = sum(seconds_each) / len(seconds_each)
            # A duration that was found in a bad moment is too long for this one, and the runs end too early.
            left, least, warmup = left - timed.wall_seconds, 1, 0
        self.timed.append(joined(done))

    def contender(self) -> Contender:
        """The rounds, thinned, with the clocks of each."""
        processor = [timed.cpu_seconds for timed in self.timed]
        return Contender(
            name=self.turn.name,
            rounds=tuple(thinned(timed.latencies_ms) for timed in self.timed),
            wall_seconds=tuple(timed.wall_seconds for timed in self.timed),
            cpu_seconds=tuple(value for value in processor if value is not None) if None not in processor else (),
        )


def joined(parts: Sequence[Timed]) -> Timed:
    """One turn of parts that follow each other."""
    processor = [part.cpu_seconds for part in parts if part.cpu_seconds is not None]
    return Timed(
        latencies_ms=tuple(value for part in parts for value in part.latencies_ms),
        wall_seconds=sum(part.wall_seconds for part in parts),
        cpu_seconds=sum(processor) if len(processor) == len(parts) else None,
    )


def counted_runs(duration: float, seconds: float, least: int) -> int:
    """Runs of a duration that fill a time, in seconds: the number of counted runs of a turn.

    Args:
        duration: of one run.
        seconds: what the runs last at least.
        least: runs, however long they take.
    """
    return max(least, min(MAX_RUNS, math.ceil(seconds / duration)))


def turn_seconds(turns: Sequence[Turn], durations: Sequence[float], seconds: float) -> float:
    """The minimum time of every turn of a race: `seconds`, or what the fastest contender needs for all of its runs.

    A slow contender, whose runs of one turn take longer, gets no fewer than its own least.
    """
    fastest = min(durations)
    return max(seconds, fastest * max(turn.runs for turn in turns))


def thinned(samples: Sequence[float], kept: int = KEPT_RUNS) -> tuple[float, ...]:
    """At most `kept` of the samples, evenly spaced, so that percentiles stay what they are."""
    count = len(samples)
    if count <= kept:
        return tuple(samples)
    return tuple(samples[index * count // kept] for index in range(kept))


def interleave(
    turns: Sequence[Turn],
    inputs: Path,
    rounds: int,
    *,
    threads: int,
    turn: float | None = None,
    least: int = 1,
    seconds: float = math.inf,
) -> Interleaved:
    """Let loaded workers take turns on one request.

    A turn is a rest, the control workload, uncounted runs, and counted runs. Their number follows from the mean of the
    contender's latest runs: they fill the minimum time of a turn, which is the same for all contenders.

    Args:
        turns: the contenders.
        inputs: .npz of the request.
        rounds: how many turns each has.
        threads: that each contender may use, and the control workload uses.
        turn: minimum seconds of the counted runs of a turn; TURN_SECONDS when None.
        least: rounds that are run however long they take; no other begins once `seconds` are over.
        seconds: see `least`.
    """
    with control_worker() as worker:
        clock, watch = ControlClock(worker, threads), Watch()
        contenders = take_turns(turns, inputs, rounds, watch.look, clock.take, turn=turn, least=least, seconds=seconds)
        return Interleaved(contenders, clock.control(), watch.load())


def take_turns(
    turns: Sequence[Turn],
    inputs: Path,
    rounds: int,
    look: Callable[[], None],
    before: Callable[[], None],
    *,
    turn: float | None = None,
    least: int = 1,
    seconds: float = math.inf,
) -> tuple[Contender, ...]:
    """The turns of `interleave`; `look` is called before the rest of each, and `before` after it."""
    contestants = [_Contestant(entry, *_durations(entry, inputs)) for entry in turns]
    minimum = turn_seconds(turns, [entry.fastest for entry in contestants], TURN_SECONDS if turn is None else turn)
    begin = time.monotonic()
    for number in range(rounds):
        if number >= least and time.monotonic() - begin > seconds:
            break
        # The order rotates, so that no contender always follows the same one.
        first = number % len(contestants)
        for contestant in [*contestants[first:], *contestants[:first]]:
            look()
            time.sleep(REST_SECONDS)
            before()
            contestant.take(inputs, minimum)
    return tuple(contestant.contender() for contestant in contestants)


def _durations(turn: Turn, inputs: Path) -> tuple[float, float]:
    """Seconds of the shortest of a few runs, and their mean, after one that warms up."""
    time.sleep(REST_SECONDS)
    begin = time.monotonic()
    found = list(turn.worker.bench(inputs, runs=1, warmup=1))
    for _ in range(PROBE_RUNS - 1):
        if time.monotonic() - begin > PROBE_SECONDS:
            break
        found += turn.worker.bench(inputs, runs=3, warmup=0)
    seconds = [max(value, MIN_MILLISECONDS) / 1000 for value in found]
    return min(seconds), sum(seconds) / len(seconds)
