"""`python -m ortc.execution.browser`: run bundles for browsers, as a worker."""

from __future__ import annotations

from ortc.execution.browser.worker import BrowserWorker
from ortc.execution.script_worker import OPERATIONS
from ortc.execution.worker_protocol import serve

if __name__ == "__main__":
    with BrowserWorker() as worker:
        serve({name: getattr(worker, name) for name in OPERATIONS})
