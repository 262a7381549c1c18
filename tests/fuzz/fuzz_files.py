"""Mutate files of every kind that ortc parses: `python tests/fuzz/fuzz_files.py [COUNT] [KIND...]`, 20,000 of each.

Whatever a file holds, a reader gives a value or one of its documented errors, within a second of processor time and
without memory of its own. An input follows from the kind, the seed and its number, so that a run which stopped goes on
where it was, and any input can be made again: `--show KIND NUMBER` writes it to .fuzz/input. The state of a run is in
.fuzz/files.json; record_files.json keeps the result of the last run that found nothing.
"""

from __future__ import annotations

import datetime as dt
import gc
import importlib.metadata
import json
import platform
import random
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from file_kinds import ROOT, SUFFIXES, Kind, kinds

COUNT = 20_000
SEED = 14
MOST_SECONDS = 1.0
HANG_SECONDS = 60
"""Of processor time; ten times as long on the clock, on a machine that does other work."""
MOST_GROWN = 256 * 2**20
"""Bytes that the process may hold more at its peak than after the first inputs of a kind."""
PART = 500
WORK = ROOT / ".fuzz"
RECORD = Path(__file__).with_name("record_files.json")


class BrokenRuleError(Exception):
    """A reader raised another error than it documents, took too long, or took memory."""


def made(name: str, kind: Kind, number: int) -> bytes:
    """An input by its number."""
    chance = random.Random(f"{SEED} {name} {number}")  # noqa: S311 - for tests
    return kind.change(chance.choice(kind.seeds), chance)


def one(name: str, kind: Kind, number: int, scratch: Path) -> tuple[str, float]:
    """What became of an input, and the seconds of processor time that its readers took.

    Raises:
        BrokenRuleError: a reader broke a rule.
    """
    path = scratch / f"input{SUFFIXES.get(name, '.json')}"
    path.write_bytes(made(name, kind, number))
    outcome, began = "read", time.process_time()
    for reader, documented in kind.readers:
        try:
            reader(path)
        except documented:
            outcome = "refused"
        except Exception as error:
            raise BrokenRuleError(f"{name} {number}: {type(error).__name__}: {str(error)[:200]}") from error
    seconds = time.process_time() - began
    if seconds > MOST_SECONDS:
        raise BrokenRuleError(f"{name} {number}: {seconds:.2f} s of processor time")
    return outcome, seconds


def peak() -> int:
    """The most bytes that the process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def fuzz(name: str, kind: Kind, count: int, state: dict[str, Any], scratch: Path, save: Callable[[], None]) -> None:
    """Go on with a kind until so many inputs have been read.

    Raises:
        BrokenRuleError: a reader broke a rule.
    """
    entry = state.setdefault(name, {"inputs": 0, "outcomes": {}, "seconds": 0.0, "slowest_seconds": 0.0, "grown": 0})
    start = None
    while entry["inputs"] < count:
        began, outcomes = time.monotonic(), Counter(entry["outcomes"])
        for number in range(entry["inputs"], min(count, entry["inputs"] + PART)):
            _limit(HANG_SECONDS)
            outcome, seconds = one(name, kind, number, scratch)
            _limit(0)
            outcomes[outcome] += 1
            entry["slowest_seconds"] = max(entry["slowest_seconds"], round(seconds, 3))
        entry["inputs"] = sum(outcomes.values())
        entry["outcomes"] = dict(outcomes)
        entry["seconds"] = round(entry["seconds"] + time.monotonic() - began, 1)
        gc.collect()
        start = peak() if start is None else start
        entry["grown"] = max(entry["grown"], peak() - start)
        entry["peak_memory_mb"] = peak() // 2**20
        save()
        if entry["grown"] > MOST_GROWN:
            raise BrokenRuleError(f"{name}: the process grew by {entry['grown'] // 2**20} MiB")


def _limit(seconds: int) -> None:
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.alarm(10 * seconds)


def _hang(_signal: int, _frame: FrameType | None) -> None:
    raise BrokenRuleError(f"no answer in {HANG_SECONDS} s")


def main() -> int:
    """Fuzz the kinds that are named, or all; returns 1 where a rule was broken."""
    words = sys.argv[1:]
    with tempfile.TemporaryDirectory() as place:
        scratch = Path(place)
        known = kinds(scratch)
        if words[:1] == ["--show"]:
            WORK.mkdir(exist_ok=True)
            (WORK / "input").write_bytes(made(words[1], known[words[1]], int(words[2])))
            return 0
        count = int(words.pop(0)) if words and words[0].isdigit() else COUNT
        WORK.mkdir(exist_ok=True)
        kept = WORK / "files.json"
        state = json.loads(kept.read_bytes()) if kept.is_file() else {}
        (scratch / "pyproject.toml").touch()
        for number in (signal.SIGALRM, signal.SIGPROF):
            signal.signal(number, _hang)
        for name in words or known:
            try:
                fuzz(name, known[name], count, state, scratch, lambda: kept.write_text(json.dumps(state), "utf-8"))
            except BrokenRuleError as error:
                sys.stderr.write(f"{error}\n")
                if error.__cause__ is not None:
                    import traceback

                    traceback.print_exception(error.__cause__)
                return 1
            sys.stdout.write(f"{name}: {json.dumps(state[name])}\n")
            sys.stdout.flush()
        if all(state.get(name, {}).get("inputs", 0) >= COUNT for name in known):
            RECORD.write_text(json.dumps(record(state), indent=2) + "\n", "utf-8")
            kept.unlink()
    return 0


def record(state: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a whole run."""
    packages = ("ortc", "numpy", "onnx", "onnx-ir", "pydantic")
    return {
        "format_version": 1,
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "seed": SEED,
        "kinds": state,
        "limits": {"processor_seconds": MOST_SECONDS, "grown_bytes": MOST_GROWN},
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in packages},
        },
    }


if __name__ == "__main__":
    sys.exit(main())
