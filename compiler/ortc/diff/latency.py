"""How fast two bundles are: by the measurements that they carry, or in a race on this host."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from pydantic import BaseModel

from ortc.bundle.supply_chain.companions import companions
from ortc.bundle.verify import request_of
from ortc.common.arrays import write_arrays
from ortc.common.errors import StageError
from ortc.common.plain_files import read_plain
from ortc.common.statistics import Interval, percentile, ratio_of_rounds
from ortc.common.values import Timed
from ortc.diff.bundles import Bundle
from ortc.diff.numerics import A, B, Runnable
from ortc.diff.report import HostTimings, RaceResult, Timing
from ortc.evaluation import latency
from ortc.evaluation.details import Histogram, histogram
from ortc.evaluation.machine import Say
from ortc.evaluation.noise import race_noise
from ortc.execution.host import Host, cores
from ortc.execution.worker_process import WorkerError
from ortc.plan.plan import Shape


class _Numbers(BaseModel):
    p50_ms: Interval
    p90_ms: Interval
    p99_ms: Interval
    start_seconds: Interval
    peak_rss_bytes: int
    requests_per_second: Interval | None = None


class _Machine(BaseModel):
    cpu: str
    cores: int
    gpus: tuple[str, ...]


class _Contender(BaseModel):
    name: str
    rounds: tuple[tuple[Timed, ...], ...]


class _Race(BaseModel):
    shape: str
    threads: int
    contenders: tuple[_Contender, ...] = ()


class _Measurement(BaseModel):
    """What is read of a file of measurements/; what else it holds is not compared."""

    host: _Machine
    numbers: _Numbers | None
    race: _Race | None


def timings(before: Bundle, after: Bundle, say: Say = latency.silent) -> tuple[HostTimings, ...]:
    """The measurements of both bundles, by hardware fingerprint.

    Args:
        before: one bundle.
        after: the other bundle.
        say: told which measurements beside a signed bundle are left out because no signature covers them.

    Raises:
        StageError: a file of measurements/ cannot be read.
    """
    old, new = _measurements(before, say), _measurements(after, say)
    found = []
    for fingerprint in sorted(old.keys() | new.keys()):
        pair = old.get(fingerprint), new.get(fingerprint)
        one, other = (None if entry is None else _timing(entry) for entry in pair)
        machine = next(entry.host for entry in pair if entry is not None)
        if one is None and other is None:
            continue
        comparable = None
        if one is None or other is None:
            comparable = f"only {A if other is None else B} was measured on this hardware"
        elif one.shape != other.shape:
            comparable = f"A was measured at {one.shape}, B at {other.shape}"
        elif one.threads != other.threads:
            comparable = f"A was measured with {one.threads} threads, B with {other.threads}"
        found.append(
            HostTimings(
                fingerprint=fingerprint,
                cpu=machine.cpu,
                cores=machine.cores,
                gpus=machine.gpus,
                before=one,
                after=other,
                comparable=comparable,
                latencies=_both(*pair) if comparable is None else None,
            )
        )
    return tuple(found)


def _measurements(bundle: Bundle, say: Say) -> dict[str, _Measurement]:
    found = {}
    usable = companions(bundle.path)
    if (told := usable.note(str(bundle.path))) is not None:
        say(told)
    for path in (bundle.path / name for name in usable.measurements):
        try:
            found[path.stem] = _Measurement.model_validate(json.loads(read_plain(path)))
        except (OSError, ValueError, RecursionError) as error:
            raise StageError(f"{path} is no measurement that this ortc reads: {error}") from error
    return found


def _both(before: _Measurement | None, after: _Measurement | None) -> Histogram | None:
    """The latencies of both bundles; None where one of them carries no samples."""
    samples = {name: _samples(found) for name, found in ((A, before), (B, after))}
    return histogram(samples) if all(samples.values()) else None


def _samples(found: _Measurement | None) -> tuple[float, ...]:
    """Milliseconds of every run of the bundle itself."""
    contenders = () if found is None or found.race is None else found.race.contenders
    own = next((contender for contender in contenders if contender.name != latency.REFERENCE), None)
    return () if own is None else tuple(value for values in own.rounds for value in values)


def _timing(found: _Measurement) -> Timing | None:
    """None where checks were made and nothing was timed."""
    numbers, race = found.numbers, found.race
    if numbers is None or race is None:
        return None
    return Timing(
        shape=race.shape,
        threads=race.threads,
        p50_ms=numbers.p50_ms,
        p90_ms=numbers.p90_ms,
        p99_ms=numbers.p99_ms,
        start_seconds=numbers.start_seconds.value,
        peak_rss_bytes=numbers.peak_rss_bytes,
        requests_per_second=numbers.requests_per_second,
    )


def race(before: Runnable, after: Runnable, host: Host, say: Say = latency.silent) -> RaceResult:
    """Both in turns, on one request of the shape that B is promised at.

    Raises:
        StageError: one of them fails.
    """
    promised = after.bundle.manifest.promises.at
    shape = Shape(sizes=tuple(promised.items()))
    with tempfile.TemporaryDirectory(prefix="ortc-diff-") as scratch:
        request = Path(scratch) / "inputs.npz"
        write_arrays(request, request_of(after.bundle.path, after.bundle.manifest))
        entrants = [latency.Entrant(one.side, one.interpreter, one.bundle.path) for one in (before, after)]
        try:
            outcome = latency.race(entrants, None, request, shape=str(shape), host=host, threads=cores(), say=say)
        except WorkerError as error:
            if error.code != "input":
                raise
            return RaceResult(skipped=f"A does not take B's inputs at {shape}: {error.message}")
    rounds = {contender.name: contender.rounds for contender in outcome.contenders}
    samples = {contender.name: contender.samples() for contender in outcome.contenders}
    return RaceResult(
        fingerprint=host.fingerprint(),
        cpu=host.cpu,
        shape=str(shape),
        threads=outcome.threads,
        before_p50_ms=percentile(samples[A], 0.5),
        after_p50_ms=percentile(samples[B], 0.5),
        before_p99_ms=percentile(samples[A], 0.99),
        after_p99_ms=percentile(samples[B], 0.99),
        speedup=ratio_of_rounds(rounds[A], rounds[B]),
        noise=race_noise(outcome),
        latencies=histogram(samples),
    )
