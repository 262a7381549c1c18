"""Answer with an ONNX file exactly as it came, as a worker.

Executed by the interpreter of a pinned runtime environment. Needs onnxruntime and numpy alone. The operations are load
{model, inputs, outputs, labels, threads} and run {inputs: .npz, outputs: .npz}.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ortc.common.arrays import read_arrays, write_arrays
from ortc.execution.worker_protocol import CodedError, Json, serve

REFUSED = "refused"
"""The code of an error of ONNX Runtime, which does not open the file, or does not run it on some inputs."""


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
            raise CodedError(REFUSED, f"onnxruntime {ort.__version__}: {_line(error)}") from error
        self._inputs, self._outputs = request["inputs"], request["outputs"]
        self._labels = request["labels"]
        return {}

    def run(self, request: Json) -> Json:
        """Run the inputs of one file and write the outputs to another."""
        given = read_arrays(Path(request["inputs"]))
        feeds = {name: given[name] for name in self._inputs}
        try:
            found = self._session.run(self._outputs, feeds)
        except Exception as error:
            raise CodedError(REFUSED, _line(error)) from error
        numbers = {name: self._numbers(name, value) for name, value in zip(self._outputs, found, strict=True)}
        write_arrays(Path(request["outputs"]), numbers)
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


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


if __name__ == "__main__":
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    original = Original()
    serve({"load": original.load, "run": original.run})
