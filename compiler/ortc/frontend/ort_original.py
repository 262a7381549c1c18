"""Answer with an ONNX file exactly as it came: `python original.py` serves requests on stdin.

Executed by the interpreter of a pinned runtime environment. Needs onnxruntime and numpy alone. The protocol is that of
`ortc.execution.worker_protocol`; the operations are load {model, inputs, outputs, labels, threads} and run {inputs:
.npz, outputs: .npz}.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

Json = dict[str, Any]


class RefusedError(Exception):
    """ONNX Runtime does not open the file, or does not run it on some inputs."""


class Original:
    """One file on the CPU without any graph optimization."""

    def __init__(self) -> None:
        self._session: Any = None
        self._inputs: list[str] = []
        self._outputs: list[str] = []
        self._labels: dict[str, list[str]] = {}

    def load(self, request: Json) -> Json:
        """Open the file; `inputs` and `outputs` are the names that the bundle will have, `labels` those of classes."""
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        # A session keeps memory for every shape that it has seen.
        options.enable_mem_pattern = False
        options.enable_cpu_mem_arena = False
        options.intra_op_num_threads = request["threads"]
        try:
            self._session = ort.InferenceSession(request["model"], options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise RefusedError(f"onnxruntime {ort.__version__}: {_line(error)}") from error
        self._inputs, self._outputs = request["inputs"], request["outputs"]
        self._labels = request["labels"]
        return {}

    def run(self, request: Json) -> Json:
        """Run the inputs of one file and write the outputs to another."""
        arrays = _arrays()
        given = arrays.read_arrays(Path(request["inputs"]))
        feeds = {name: given[name] for name in self._inputs}
        try:
            found = self._session.run(self._outputs, feeds)
        except Exception as error:
            raise RefusedError(_line(error)) from error
        numbers = {name: self._numbers(name, value) for name, value in zip(self._outputs, found, strict=True)}
        arrays.write_arrays(Path(request["outputs"]), numbers)
        return {}

    def _numbers(self, name: str, value: Any) -> Any:
        """An output as a bundle gives it: classes by their numbers, and the maps of ZipMap as rows of scores."""
        import numpy as np

        labels = self._labels.get(name)
        if labels is None:
            return value
        if isinstance(value, list):
            rows = [{str(key): score for key, score in row.items()} for row in value]
            return np.array([[row[label] for label in labels] for row in rows], np.float32).reshape(-1, len(labels))
        if value.dtype.kind in "OUS":
            numbers = {label: number for number, label in enumerate(labels)}
            return np.vectorize(numbers.__getitem__, otypes=[np.int64])(value.astype(str))
        return value


def _arrays() -> Any:
    """The compiler's module for files of arrays, which needs numpy; the package around it is not installed here."""
    from importlib.util import module_from_spec, spec_from_file_location

    place = Path(__file__).parents[1] / "common" / "arrays.py"
    spec = spec_from_file_location("arrays", place)
    if spec is None or spec.loader is None:
        raise ImportError(f"{place} is not there")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def answer(original: Original, line: str) -> Json:
    """The reply to one request line."""
    try:
        request = json.loads(line)
        operation = {"load": original.load, "run": original.run}[request["op"]]
        return {"ok": True, "result": operation(request)}
    except RefusedError as error:
        return {"ok": False, "error": {"code": "refused", "message": str(error)}}
    except Exception as error:  # noqa: BLE001  # the boundary of the process: the compiler reports it
        return {"ok": False, "error": {"code": "internal", "message": f"{type(error).__name__}: {error}"}}


def main() -> None:
    """Serve until stdin ends. Whatever libraries print goes to stderr; stdout carries replies alone."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    original = Original()
    for line in sys.stdin:
        replies.write(json.dumps(answer(original, line)) + "\n")
        replies.flush()


if __name__ == "__main__":
    main()
