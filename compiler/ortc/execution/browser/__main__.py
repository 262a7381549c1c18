"""`python -m ortc.execution.browser`: a worker over JSON lines, or one start up to the first answer."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from ortc.execution.browser.page import resident
from ortc.execution.browser.site import DRIVER
from ortc.execution.browser.worker import BrowserWorker
from ortc.execution.host import cores
from ortc.execution.worker_protocol import serve

OPERATIONS = ("load", "run", "bench", "copies", "soak", "info", "close")


def main() -> int:
    """Serve until stdin ends, or measure one start."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--start", type=Path, metavar="BUNDLE", help="load a bundle in an open browser and answer once")
    parser.add_argument("--shape", default="", help="axis=size of that answer, with commas between")
    arguments = parser.parse_args()
    with BrowserWorker() as worker:
        if arguments.start is not None:
            sys.stdout.write(json.dumps({"result": first_answer(worker, arguments.start, arguments.shape)}) + "\n")
            return 0
        serve({name: getattr(worker, name) for name in OPERATIONS})
    return 0


def first_answer(worker: BrowserWorker, bundle: Path, shape: str) -> dict[str, Any]:
    """Seconds from an empty page of an open browser to the first answer, nothing cached; and the peak of memory.

    Every file is fetched and compared with its digest. The self-test is left out, as in the starts of other bundles.
    """
    sizes = {axis: int(size) for axis, _, size in (part.partition("=") for part in shape.split(",") if part)}
    page = worker.start(bundle.resolve())
    asked = {"verify": "full", "selftest": False, "warmup": False, "threads": cores()}
    began = time.monotonic()
    for request in ({"op": "load", **asked}, {"op": "example", "sizes": sizes}):
        reply = page.ask(DRIVER, request)
        if not reply["ok"]:
            raise SystemExit(f"{reply['error']['code']}: {reply['error']['message']}")
    seconds = time.monotonic() - began
    return {"start_to_first_answer_seconds": seconds, "peak_rss_bytes": resident(page.renderer()[0])[1]}


if __name__ == "__main__":
    sys.exit(main())
