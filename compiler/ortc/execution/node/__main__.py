"""`python -m ortc.execution.node`: run bundles for Node, as a worker."""

from __future__ import annotations

from ortc.execution.node.worker import NodeWorker
from ortc.execution.script_worker import OPERATIONS
from ortc.execution.worker_protocol import serve

if __name__ == "__main__":
    with NodeWorker() as worker:
        serve({name: getattr(worker, name) for name in OPERATIONS})
