"""Race: one process a contender, rounds in turn, a rest before each turn, one run that does not count.

The thread pools of ONNX Runtime, OpenMP and TBB keep spinning for a while after a run and take the next contender's
cores; rests and processes of their own keep contenders apart, and the order rotates so that none always follows the
same one. Each contender's answers are compared with PyTorch's first.
"""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import records
from catalogue import EAGER, Model
from runners import Absent, Entrant, entrants, inputs_of, say

from ortc.common.arrays import Array, Arrays, write_arrays
from ortc.common.errors import StageError
from ortc.common.statistics import median
from ortc.evaluation.compare import compare
from ortc.execution.host import Host
from ortc.execution.worker import Worker

REST_SECONDS = 0.15
TURN_SECONDS = 0.4
"""A turn's counted runs last about this long, and are at least one and at most `MOST_RUNS`."""
MOST_RUNS = 50


def race(
    model: Model,
    shape: tuple[int, ...],
    names: tuple[str, ...],
    *,
    host: Host,
    threads: int,
    rounds: int,
    seconds: float,
) -> None:
    """Add rounds to the record of a model and shape until it has as many as wanted or the time is over.

    A contender that is not the one of the record (another artifact or environment) starts anew: what the record has of
    it goes.

    Args:
        model, shape: what to race on.
        names: the contenders; PyTorch eager always takes part.
        host: this machine.
        threads: of every contender.
        rounds: how many rounds of exactly these contenders the record shall have.
        seconds: after this much racing no further round begins.
    """
    label = model.label(shape)
    path = records.place(host.fingerprint(), "race", model.name, label)
    document = records.read(path) or {}
    ready: list[Entrant] = []
    absent: dict[str, str] = dict(document.get("absent", {}))
    for entry in entrants(model, shape, names, threads):
        if isinstance(entry, Absent):
            say(f"  {entry.name}: {entry.reason}")
            absent[entry.name] = entry.reason
        else:
            ready.append(entry)
    document = _header(model, shape, host, threads, absent, document, ready)
    if _rounds_of({entry.name for entry in ready}, document) >= rounds:
        say(f"  {rounds} rounds are there")
        return
    with ExitStack() as stack:
        inputs = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "inputs.npz"
        write_arrays(inputs, inputs_of(model, shape, padded=False))
        workers = _opened(stack, model, shape, ready, document)
        runs = {name: runs_of_a_turn(worker, inputs) for name, worker in workers.items()}
        say("  runs a turn: " + ", ".join(f"{name} {count}" for name, count in runs.items()))
        have = _rounds_of(set(workers), document)
        deadline = time.monotonic() + seconds
        while have < rounds and time.monotonic() < deadline:
            document["rounds"].append(_round(workers, runs, inputs, have))
            have += 1
            # Kept at once: what is interrupted goes on from here.
            records.write(path, document)
        for name, worker in workers.items():
            document["contenders"][name]["peak_rss_bytes"] = int(worker.call("info")["peak_rss_bytes"])
        records.write(path, document)
    middle = {name: median([v for turn in document["rounds"] for v in turn.get(name, ())]) for name in workers}
    say(f"  {have} of {rounds} rounds; p50 ms: " + ", ".join(f"{name} {value:.1f}" for name, value in middle.items()))


def _round(workers: dict[str, Worker], runs: dict[str, int], inputs: Path, number: int) -> dict[str, list[float]]:
    """The latencies, in milliseconds, of a turn of each contender; another one begins each round."""
    order, turn = list(workers), dict[str, list[float]]()
    start = number % len(order)
    for name in order[start:] + order[:start]:
        time.sleep(REST_SECONDS)
        turn[name] = [round(value, 4) for value in workers[name].bench(inputs, runs=runs[name], warmup=1)]
    return {name: turn[name] for name in order}


def scheduling() -> str:
    """How this process and those that it starts are scheduled: `normal`, `nice -5`, `real-time`."""
    if os.sched_getscheduler(0) in (os.SCHED_FIFO, os.SCHED_RR):
        return "real-time"
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    return f"nice {nice}" if nice else "normal"


def _rounds_of(names: set[str], document: dict[str, Any]) -> int:
    """How many rounds exactly these contenders have run."""
    return sum(names == set(turn) for turn in document["rounds"])


def _kept(document: dict[str, Any], ready: list[Entrant], threads: int) -> dict[str, Any]:
    """Contenders and rounds of the record, without what it holds of contenders that have changed since."""
    known = document.get("contenders", {}) if document.get("threads", threads) == threads else {}
    changed = {e.name for e in ready if e.name not in known or known[e.name]["identity"] != e.facts["identity"]}
    kept = [{name: v for name, v in turn.items() if name in known} for turn in document.get("rounds", [])]
    kept = [{name: v for name, v in turn.items() if name not in changed} for turn in kept]
    contenders = {name: facts for name, facts in known.items() if name not in changed}
    return {"contenders": contenders, "rounds": [turn for turn in kept if len(turn) > 1]}


def _opened(
    stack: ExitStack, model: Model, shape: tuple[int, ...], ready: list[Entrant], document: dict[str, Any]
) -> dict[str, Worker]:
    """Start every contender, and compare the answers of those that the record does not know with PyTorch eager's."""
    known = document["contenders"]
    questions = {"full": inputs_of(model, shape, padded=False)}
    if "attention_mask" in questions["full"]:
        questions["padded"] = inputs_of(model, shape, padded=True)
    everybody_known = all(entrant.name in known for entrant in ready)
    expected: dict[str, Array] = {}
    workers: dict[str, Worker] = {}
    for entrant in ready:
        worker = stack.enter_context(entrant.open())
        try:
            entrant.load(worker)
            if everybody_known or (expected and entrant.name in known):
                workers[entrant.name] = worker
                continue
            answers = {case: entrant.answer(worker, arrays) for case, arrays in questions.items()}
        except StageError as error:
            if entrant.name == EAGER:
                raise
            say(f"  {entrant.name}: {error.message}")
            document["absent"][entrant.name] = error.message
            continue
        # PyTorch eager is the first.
        expected = expected or answers
        known[entrant.name] = {**entrant.facts, **_accuracy(questions, expected, answers)}
        workers[entrant.name] = worker
    return workers


def _accuracy(
    questions: dict[str, Arrays], expected: dict[str, Array], answers: dict[str, Array]
) -> dict[str, float | str | None]:
    """The worst of all questions, to three digits and six places."""
    differences = [
        compare("output", expected[case], answers[case], arrays.get("attention_mask"))
        for case, arrays in questions.items()
    ]
    return {
        "max_abs": float(f"{max(difference.max_abs for difference in differences):.3g}"),
        "cosine": round(min(difference.cosine or 0.0 for difference in differences), 6),
        "problem": next((difference.problem for difference in differences if difference.problem), None),
    }


def runs_of_a_turn(worker: Worker, inputs: Path) -> int:
    """Counted runs of a turn, which fill about `TURN_SECONDS`."""
    # The first run of a shape allocates, and compiles where there is a compiler.
    slow = worker.bench(inputs, runs=1, warmup=0)[0] / 1000
    if slow < 5 * TURN_SECONDS:
        slow = min(worker.bench(inputs, runs=2, warmup=1)) / 1000
    return max(1, min(MOST_RUNS, round(TURN_SECONDS / slow)))


def _header(
    model: Model,
    shape: tuple[int, ...],
    host: Host,
    threads: int,
    absent: dict[str, str],
    document: dict[str, Any],
    ready: list[Entrant],
) -> dict[str, Any]:
    """The record of a race before its next round."""
    return {
        "kind": "race",
        "model": model.name,
        "shape": dict(zip(model.axes, shape, strict=True)),
        "host": host.model_dump(mode="json"),
        "threads": threads,
        "scheduling": sorted({scheduling(), *document.get("scheduling", [])}),
        "rest_seconds": REST_SECONDS,
        "absent": {name: reason for name, reason in absent.items() if name not in {e.name for e in ready}},
        **_kept(document, ready, threads),
    }
