"""Measure: races between candidate bundles and PyTorch, one process each, and starts.

Several sessions in one process, or turns without a rest, read twice the time: see `ortc.evaluation.turns`.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Literal, NamedTuple

from ortc.common.errors import StageError
from ortc.common.statistics import Interval, percentile, ratio_of_rounds, ratios_of_rounds
from ortc.evaluation.machine import ControlClock, Say, Watch, control_worker, exclusive
from ortc.evaluation.noise import control_state, race_noise, starts_noise
from ortc.evaluation.report import Numbers, Race, Starts
from ortc.evaluation.turns import REST_SECONDS, Turn, interleave
from ortc.execution.host import Host, cores
from ortc.execution.processes import bundled_script
from ortc.execution.worker import Worker, is_script
from ortc.execution.worker_pool import Loaded
from ortc.execution.worker_process import Json, WorkerError, answer_of

ROUNDS = 20
RUNS = 21
"""Least counted runs of a bundle's turn; 20 rounds give 420 samples, and a p99 interval needs 368."""
QUICK_ROUNDS, QUICK_RUNS = 10, 41
"""Instead, in any but a full search: 410 samples with fewer rests between."""
REFERENCE_RUNS = 3
"""Least counted runs of PyTorch's turn, which lasts as long as the bundle's: it only gives medians."""
START_RUNS = 5
REFERENCE = "PyTorch eager"


def silent(_: str) -> None:
    """Say nothing."""


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
    say: Say = silent,
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
        say: told when another measurement on this machine is waited for.
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
        with exclusive(say):
            found = interleave(turns, inputs, rounds, threads=threads)
    return Race(
        measure=measure,
        shape=shape,
        host=host,
        threads=threads,
        contenders=found.contenders,
        control=found.control,
        load=found.load,
    )


def start_times(
    interpreter: Path, bundle: Path, shape: dict[str, int], starts: int = START_RUNS, say: Say = silent
) -> Starts:
    """Time from process start to the first answer, files verified by size and time.

    Raises:
        StageError: the bundle does not start.
    """
    seconds, cached, peak, downloaded = [], [], 0, None
    with exclusive(say), control_worker() as worker:
        clock, watch = ControlClock(worker, cores()), Watch()
        for _ in range(starts):
            watch.look()
            time.sleep(REST_SECONDS)
            clock.take()
            answer = _started(interpreter, bundle, shape)
            seconds.append(float(answer["start_to_first_answer_seconds"]))
            peak = max(peak, int(answer["peak_rss_bytes"]))
            if "cached_seconds" in answer:
                cached.append(float(answer["cached_seconds"]))
                downloaded = int(answer["downloaded_bytes"])
        # What came during the last start shows in one after it.
        clock.take()
        control, load = clock.control(), watch.load()
    return Starts(
        seconds=tuple(seconds),
        peak_rss_bytes=peak,
        cached_seconds=tuple(cached),
        downloaded_bytes=downloaded,
        control=control,
        load=load,
    )


def _started(interpreter: Path, bundle: Path, shape: dict[str, int]) -> Json:
    """One start, in a process of its own.

    Raises:
        StageError: the bundle does not start.
    """
    name = "the bundle"
    try:
        if is_script(bundle):
            with Worker.for_bundle(name, interpreter, bundle) as worker:
                return worker.call("first_answer", bundle=str(bundle), sizes=shape)
        sizes = ",".join(f"{axis}={size}" for axis, size in shape.items())
        options = ["--verify", "fast", "--no-selftest", "--no-warmup", "--runs", "1", "--warmup", "0", "--shape", sizes]
        loader = bundle / "runtime" / "loader.py"
        own = bundled_script(interpreter, loader, "bench", *options)
        return answer_of(name, [*own, "--started", str(time.monotonic())])
    except WorkerError as error:
        raise StageError(f"the bundle does not start: {error.message}", details=error.details) from error


def numbers(
    outcome: Race,
    name: str,
    starts: Starts,
    peak_rss_bytes: int,
    crowd: Race | None = None,
    eager_start: Starts | None = None,
) -> Numbers:
    """What a race says of one contender.

    Args:
        outcome: the race.
        name: of the contender.
        starts: of the contender.
        peak_rss_bytes: at most, over everything that was run.
        crowd: a race for throughput.
        eager_start: PyTorch's start.
    """
    found = {contender.name: contender for contender in outcome.contenders}
    own, eager = found[name], found.get(REFERENCE)
    samples = own.samples()
    names = [contender.name for contender in (own, eager) if contender is not None]
    return Numbers(
        p50_ms=percentile(samples, 0.5),
        p90_ms=percentile(samples, 0.9),
        p99_ms=percentile(samples, 0.99),
        eager_p50_ms=None if eager is None else percentile(eager.samples(), 0.5),
        speedup=None if eager is None else ratio_of_rounds(eager.rounds, own.rounds),
        requests_per_second=None if crowd is None else _rate(crowd, name),
        start_seconds=percentile(starts.seconds, 0.5),
        cached_start_seconds=percentile(starts.cached_seconds, 0.5) if starts.cached_seconds else None,
        downloaded_bytes=starts.downloaded_bytes,
        peak_rss_bytes=peak_rss_bytes,
        start_peak_rss_bytes=starts.peak_rss_bytes,
        eager_start_seconds=None if eager_start is None else eager_start.seconds[0],
        eager_peak_rss_bytes=None if eager_start is None else eager_start.peak_rss_bytes,
        control=control_state(outcome.control, starts.control),
        noise=race_noise(outcome, name),
        speedup_noise=() if eager is None else race_noise(outcome, *names),
        rate_noise=() if crowd is None else race_noise(crowd, name),
        start_noise=starts_noise(starts),
        fastest_ms=min(samples),
        fastest_start_seconds=min(starts.seconds),
        best_ratio=None if eager is None else max(ratios_of_rounds(eager.rounds, own.rounds)),
        load=outcome.load,
    )


def samples_of(outcome: Race) -> dict[str, tuple[float, ...]]:
    """Milliseconds of every counted run of a race, by contender."""
    return {contender.name: contender.samples() for contender in outcome.contenders}


def _rate(crowd: Race, name: str) -> Interval:
    """Requests a second, the median over the turns of a throughput race."""
    milliseconds = percentile(next(entry for entry in crowd.contenders if entry.name == name).samples(), 0.5)
    bounds = (None if bound is None else 1000 / bound for bound in (milliseconds.high, milliseconds.low))
    low, high = bounds
    return Interval(value=1000 / milliseconds.value, low=low, high=high, samples=milliseconds.samples)
