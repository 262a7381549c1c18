"""`python -m ortc.execution.browser`: run bundles for browsers, as a worker."""

from __future__ import annotations

from ortc.execution.browser.worker import BrowserWorker
from ortc.execution.worker_protocol import serve

OPERATIONS = ("load", "run", "tokens", "answers", "bench", "copies", "soak", "first_answer", "info", "close")


if __name__ == "__main__":
    with BrowserWorker() as worker:
        serve({name: getattr(worker, name) for name in OPERATIONS})
