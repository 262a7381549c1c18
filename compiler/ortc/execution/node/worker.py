"""The operations of a bundle's worker, done by the bundle's own loader in a process of Node."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ortc.common.errors import StageError
from ortc.common.resources import templates_dir
from ortc.execution.node.program import INSTALL, Node, find_node
from ortc.execution.script_worker import Json, ScriptWorker, resident
from ortc.execution.worker_process import WorkerError, WorkerProcess
from ortc.execution.worker_protocol import CodedError


class NodeWorker(ScriptWorker):
    """Answers requests about one bundle at a time; each public method is an operation. Use as a context manager."""

    def __init__(self) -> None:
        super().__init__()
        self._process: WorkerProcess | None = None
        self._node: Node | None = None

    def start(self, bundle: Path) -> None:
        """A process of Node that has loaded nothing.

        Raises:
            StageError: there is no Node.
        """
        self._node = find_node()
        if self._node is None:
            raise StageError("there is no Node.js on this machine", help=INSTALL)
        driver = templates_dir() / "drivers" / "node.mjs"
        process = WorkerProcess("Node", [str(self._node.program), str(driver), str(bundle.resolve())])
        self._process = self._open.enter_context(process)

    def first_answer(self, request: Json) -> Json:
        """{bundle, sizes} -> seconds from the start of a process to the first answer; and the peak of memory.

        Every file is compared with its digest. The self-test is left out, as in the starts of other bundles.
        """
        began = time.monotonic()
        self.start(Path(request["bundle"]))
        self._ask("load", {"verify": "full", "selftest": False, "warmup": False})
        self._ask("example", {"sizes": request["sizes"]})
        seconds = time.monotonic() - began
        return {"start_to_first_answer_seconds": seconds, "peak_rss_bytes": self._memory()[1]}

    def run(self, request: Json) -> Json:
        """Run on the arrays of one .npz file and write another."""
        self._ask("run", {"inputs": request["inputs"], "outputs": request["outputs"]})
        return {"file": request["outputs"]}

    def close(self, _: Json) -> Json:
        """End the process of Node."""
        if self._process is not None:
            self._process.__exit__(None, None, None)
        self._process = None
        return {}

    def _prove(self) -> None:
        """Nothing: users load a bundle as ortc does."""

    def _given(self, inputs: str) -> str:
        return inputs

    def _cpu_seconds(self) -> float:
        return float(self._ask("clock")["cpu_seconds"])

    def _memory(self) -> tuple[int, int]:
        now, most = resident(self._live().identifier)
        self._peak = max(self._peak, most)
        return now, self._peak

    def _about(self) -> Json:
        return {}

    def _ask(self, operation: str, request: Mapping[str, Any] | None = None) -> Json:
        try:
            return self._live().call(operation, **(request or {}))
        except WorkerError as error:
            raise CodedError(error.code, error.message) from error

    def _live(self) -> WorkerProcess:
        if self._process is None:
            raise CodedError("usage", "no model is loaded. Send load first.")
        return self._process
