"""Measure: contenders interleaved, one process each, in rounds with a rest between.

The thread pools of ONNX Runtime and OpenMP keep spinning for a while after a run and take the next contender's cores;
several sessions in one process, or rounds without a rest, read twice the time. So: a worker process a contender, rounds
in turn, a rest before each, one run that does not count, then some that do.
"""

from __future__ import annotations

import json
import math
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Literal, NamedTuple

from ortc.crew import Loaded
from ortc.errors import StageError
from ortc.host import Host
from ortc.report import Contender, Numbers, Race
from ortc.statistics import Interval, percentile, ratio_of_rounds
from ortc.worker import Worker

REST_SECONDS = 0.15
ROUNDS = 20
RUNS = 21
"""Least per round; 20 rounds give 420 samples, and a p99 interval needs 368."""
QUICK_ROUNDS, QUICK_RUNS = 10, 41
"""Instead, in any but a full search: 410 samples with fewer rests between, and fewer runs of PyTorch."""
TURN_SECONDS = 0.1
"""A turn lasts at least this long: of a model that answers in microseconds, one hiccup of the machine in 420 samples
would make the upper bound of p99."""
MOST_RUNS = 500
REFERENCE_RUNS = 2
START_RUNS = 5
REFERENCE = "PyTorch eager"


class Turn(NamedTuple):
    """What one contender does when it is its turn: so many counted runs, by that many clients at once or by one."""

    name: str
    worker: Worker
    runs: int
    clients: int | None = None


class Entrant(NamedTuple):
    """A candidate of a race: its name, the interpreter that runs it, its bundle, and how many clients ask at once."""

    name: str
    interpreter: Path
    bundle: Path
    clients: int = 1


def race(
    entrants: list[Entrant],
    reference: Worker | None,
    inputs: Path,
    *,
    measure: Literal["latency", "throughput"] = "latency",
    shape: str,
    host: Host,
    threads: int,
    rounds: int = ROUNDS,
    runs: int = RUNS,
    loaded: Loaded | None = None,
) -> Race:
    """Race candidate bundles, and the reference when there is one, on the same inputs.

    Args:
        entrants: the candidates.
        reference: a worker that has loaded the model in PyTorch, or None.
        inputs: .npz of one request.
        measure: `latency` times every request; `throughput` times a turn and divides it by its requests.
        shape: of that request, for people.
        host: this machine.
        threads: that each contender uses.
        rounds: how many times each has its turn.
        runs: least counted runs of a turn; the reference takes fewer, as it only gives medians.
        loaded: processes that have loaded some of the bundles, and that those started here join.
    """
    with ExitStack() as stack:
        crew = loaded if loaded is not None else stack.enter_context(Loaded())
        crew.load([(entrant.name, entrant.interpreter, entrant.bundle) for entrant in entrants])
        workers = [
            stack.enter_context(crew.worker(entrant.name, entrant.interpreter, entrant.bundle)) for entrant in entrants
        ]
        turns = [
            Turn(
                entrant.name,
                worker,
                max(runs, _runs_of_a_turn(worker, inputs)),
                entrant.clients if measure == "throughput" else None,
            )
            for worker, entrant in zip(workers, entrants, strict=True)
        ]
        if reference is not None:
            turns.append(Turn(REFERENCE, reference, min(runs, REFERENCE_RUNS)))
        contenders = interleave(turns, inputs, rounds)
    return Race(
        measure=measure,
        shape=shape,
        host=host,
        threads=threads,
        contenders=contenders,
    )


def interleave(
    turns: Sequence[Turn], inputs: Path, rounds: int, *, least: int = 1, seconds: float = math.inf
) -> tuple[Contender, ...]:
    """Let loaded workers take turns on one request, with a rest and an uncounted run before each turn.

    Args:
        turns: what each does when it is its turn.
        inputs: .npz of the request.
        rounds: how many times each has its turn.
        least: rounds that are run however long they take; no other begins once `seconds` are over.
        seconds: see `least`.
    """
    times: dict[str, list[tuple[float, ...]]] = {turn.name: [] for turn in turns}
    begin = time.monotonic()
    for number in range(rounds):
        if number >= least and time.monotonic() - begin > seconds:
            break
        # The order rotates, so that no contender always follows the same one.
        first = number % len(turns)
        for turn in [*turns[first:], *turns[:first]]:
            time.sleep(REST_SECONDS)
            latencies = turn.worker.bench(inputs, runs=turn.runs, warmup=1, clients=turn.clients)
            times[turn.name].append(tuple(latencies))
    return tuple(Contender(name=name, rounds=tuple(values)) for name, values in times.items())


def _runs_of_a_turn(worker: Worker, inputs: Path) -> int:
    # Of a slow model one run tells enough.
    first = min(worker.bench(inputs, runs=1, warmup=1)) / 1000
    fastest = first if first >= TURN_SECONDS / 3 else min(worker.bench(inputs, runs=3, warmup=0)) / 1000
    return min(MOST_RUNS, int(TURN_SECONDS / fastest))


def start_times(
    interpreter: Path, bundle: Path, shape: dict[str, int], starts: int = START_RUNS
) -> tuple[list[float], int]:
    """Seconds from process start to the first answer, files verified by size and time, and the peak resident bytes.

    Raises:
        StageError: the bundle does not start.
    """
    seconds, peak = [], 0
    sizes = ",".join(f"{axis}={size}" for axis, size in shape.items())
    command = [str(interpreter), "-E", "-s", "-B", str(bundle / "runtime" / "loader.py"), "bench", "--verify", "fast"]
    for _ in range(starts):
        time.sleep(REST_SECONDS)
        started = time.monotonic()
        result = subprocess.run(
            [
                *command,
                "--no-selftest",
                "--no-warmup",
                "--runs",
                "1",
                "--warmup",
                "0",
                "--shape",
                sizes,
                "--started",
                str(started),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode != 0:
            raise StageError(f"the bundle does not start: {result.stderr.strip().splitlines()[-1:]}")
        answer = json.loads(result.stdout)["result"]
        seconds.append(float(answer["start_to_first_answer_seconds"]))
        peak = max(peak, int(answer["peak_rss_bytes"]))
    return seconds, peak


def numbers(
    outcome: Race,
    name: str,
    start: list[float],
    peak_rss_bytes: int,
    crowd: Race | None = None,
    eager_start: tuple[float, int] | None = None,
    start_peak_rss_bytes: int | None = None,
) -> Numbers:
    """What a race says of one contender.

    Args:
        outcome: the race.
        name: of the contender.
        start: seconds from process start to the first answer, of several starts.
        peak_rss_bytes: at most, over everything that was run.
        crowd: a race for throughput.
        eager_start: PyTorch's seconds and peak bytes of a start.
        start_peak_rss_bytes: the most of the contender's own starts, which is what compares with PyTorch's.
    """
    found = {contender.name: contender for contender in outcome.contenders}
    samples = found[name].samples()
    eager = found.get(REFERENCE)
    return Numbers(
        p50_ms=percentile(samples, 0.5),
        p90_ms=percentile(samples, 0.9),
        p99_ms=percentile(samples, 0.99),
        eager_p50_ms=None if eager is None else percentile(eager.samples(), 0.5),
        speedup=None if eager is None else ratio_of_rounds(eager.rounds, found[name].rounds),
        requests_per_second=None if crowd is None else _rate(crowd, name),
        start_seconds=percentile(start, 0.5),
        peak_rss_bytes=peak_rss_bytes,
        start_peak_rss_bytes=start_peak_rss_bytes,
        eager_start_seconds=None if eager_start is None else eager_start[0],
        eager_peak_rss_bytes=None if eager_start is None else eager_start[1],
    )


def _rate(crowd: Race, name: str) -> Interval:
    """Requests a second, the median over the turns of a throughput race."""
    milliseconds = percentile(next(entry for entry in crowd.contenders if entry.name == name).samples(), 0.5)
    bounds = (None if bound is None else 1000 / bound for bound in (milliseconds.high, milliseconds.low))
    low, high = bounds
    return Interval(value=1000 / milliseconds.value, low=low, high=high, samples=milliseconds.samples)
