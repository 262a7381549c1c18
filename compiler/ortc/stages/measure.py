"""Measure: races between candidate bundles and PyTorch, one process each, and starts.

Several sessions in one process, or turns without a rest, read twice the time: see `ortc.stages.turns`.
"""

from __future__ import annotations

import json
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Literal, NamedTuple

from ortc.crew import Loaded
from ortc.errors import StageError
from ortc.host import Host
from ortc.report import Numbers, Race
from ortc.stages.turns import REST_SECONDS, Turn, interleave
from ortc.statistics import Interval, percentile, ratio_of_rounds
from ortc.worker import Worker

ROUNDS = 20
RUNS = 21
"""Least counted runs of a bundle's turn; 20 rounds give 420 samples, and a p99 interval needs 368."""
QUICK_ROUNDS, QUICK_RUNS = 10, 41
"""Instead, in any but a full search: 410 samples with fewer rests between."""
REFERENCE_RUNS = 3
"""Least counted runs of PyTorch's turn, which lasts as long as the bundle's: it only gives medians."""
START_RUNS = 5
REFERENCE = "PyTorch eager"


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
        runs: least counted runs of a candidate's turn; the reference's turn lasts as long, with as many runs as fit.
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
                runs,
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
