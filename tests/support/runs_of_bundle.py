"""Run a bundle from several threads of one process and say what was seen, as JSON; for environments without pytest.

    python runs_of_bundle.py BUNDLE THREADS SECONDS

Answers with `equal`: whether eight callers at once, with inputs of several sizes, got what one caller got; `processor`:
the seconds of processor time that each thread of the process used in SECONDS of one caller, the most first; and
`affinities`: the distinct sets of CPUs that a thread of the process was allowed meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any


def main(bundle: Path, threads: int, seconds: float) -> dict[str, Any]:
    sys.path.insert(0, str(bundle / "runtime"))
    import loader
    import numpy as np

    with loader.Model.load(bundle, threads=threads) as model:
        cases = [model.example({"batch": size}) for size in (1, 2, 3, 5, 8, 16)]
        alone = [model.run(case) for case in cases]

        def same(number: int) -> bool:
            index = number % len(cases)
            answer = model.run(cases[index])
            return all(np.array_equal(answer[name], alone[index][name]) for name in answer)

        with ThreadPoolExecutor(8) as callers:
            equal = all(callers.map(same, range(200)))
        affinities: set[tuple[int, ...]] = set()
        before, end = _processor_seconds(), time.monotonic() + seconds
        watcher = threading.Thread(target=_watch, args=(affinities, end))
        watcher.start()
        while time.monotonic() < end:
            model.run(cases[-1])
        watcher.join()
        used = {task: after - before.get(task, 0.0) for task, after in _processor_seconds().items()}
        return {
            "equal": equal,
            "processor": sorted(used.values(), reverse=True),
            "affinities": sorted(affinities),
            "info": model.info(),
        }


def _watch(affinities: set[tuple[int, ...]], end: float) -> None:
    """Threads are bound while they work, and only then."""
    while time.monotonic() < end:
        for task in Path("/proc/self/task").iterdir():
            with contextlib.suppress(ProcessLookupError):
                affinities.add(tuple(sorted(os.sched_getaffinity(int(task.name)))))
        time.sleep(0.001)


def _processor_seconds() -> dict[str, float]:
    """By thread. One that ends between the listing and the reading (the callers of before) is left out."""
    seconds: dict[str, float] = {}
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            seconds[task.name] = int((task / "schedstat").read_text().split()[0]) / 1e9
    return seconds


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))))
