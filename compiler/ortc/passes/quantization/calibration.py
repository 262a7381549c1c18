"""Calibration: the ranges that activations take on real samples, for static quantization.

The compiler writes the graph with outputs for the least, the greatest and the mean square value of every channel;
ort_observe.py runs it, in the target's runtime environment, sample by sample. No activation leaves that process, and
weights stay where they are.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from ortc.common.arrays import Array, Arrays, read_arrays, write_arrays
from ortc.common.errors import StageError
from ortc.execution.worker import Worker
from ortc.execution.worker_process import WorkerError
from ortc.passes.canonical import MODEL_FILE, write_beside
from ortc.passes.quantization.quantizable import Observed, observed

if TYPE_CHECKING:
    import onnx_ir as ir

Method = Literal["minmax", "percentile", "entropy", "moving-average"]
PERCENTILE = 99.999
"""Of a tensor's values that `percentile` covers on either side, in per cent; as ONNX Runtime's own calibrator."""


@dataclass(frozen=True)
class Range:
    """What a tensor was seen to hold: least and greatest value and mean square of each channel, float32."""

    minimum: Array
    maximum: Array
    power: Array

    @property
    def reach(self) -> Array:
        """The greatest absolute value of each channel."""
        return np.maximum(np.abs(self.minimum), np.abs(self.maximum))


@dataclass(frozen=True)
class Ranges:
    """Ranges by the tensors' names, and how they were found."""

    tensors: Mapping[str, Range]
    method: Method
    samples: int

    def save(self, path: Path) -> None:
        """Write an .npz file; equal ranges give equal bytes."""
        entries = list(self.tensors.values())
        arrays = {
            "names": np.array(list(self.tensors), np.str_),
            "channels": np.array([len(entry.minimum) for entry in entries], np.int64),
            "minimum": np.concatenate([np.zeros(0, np.float32), *(entry.minimum for entry in entries)]),
            "maximum": np.concatenate([np.zeros(0, np.float32), *(entry.maximum for entry in entries)]),
            "power": np.concatenate([np.zeros(0, np.float32), *(entry.power for entry in entries)]),
            "method": np.array(self.method),
            "samples": np.array(self.samples),
        }
        write_arrays(path, arrays)

    @classmethod
    def load(cls, path: Path) -> Ranges:
        """Read what `save` wrote."""
        arrays = read_arrays(path)
        tensors = _split(arrays["names"].tolist(), arrays["channels"], arrays)
        return cls(tensors=tensors, method=arrays["method"].item(), samples=int(arrays["samples"]))


def calibrate(
    interpreter: Path,
    source: Path,
    samples: Sequence[Path],
    output: Path,
    *,
    operators: Iterable[str],
    method: Method = "minmax",
    threads: int = 0,
) -> Ranges:
    """Find the ranges that `quantize_static` needs for these operators, and keep them in `output`.

    Args:
        interpreter: of the target's runtime environment.
        source: directory with the graph.
        samples: .npz files with all inputs of the graph; each is one run.
        output: the .npz file that Ranges.load reads.
        operators: types of nodes that will be quantized.
        method: `minmax` covers everything seen, `percentile` all but the outermost 0.001 % of a tensor's values on
            either side, `entropy` what 8 bits tell most of, `moving-average` what a sample holds on average.
        threads: for the runs; 0 leaves it to ONNX Runtime.

    Raises:
        StageError: there are no samples, the graph does not run on one, or a value is not finite.
    """
    import onnx_ir as ir

    if not samples:
        raise StageError("calibration needs samples", help="name a file of real inputs in `accuracy.samples`")
    model = ir.load(source / MODEL_FILE)
    tensors = observed(model, operators)
    if not tensors:
        ranges = Ranges({}, method, 0)
        ranges.save(output)
        return ranges
    with tempfile.TemporaryDirectory(prefix="ortc-calibrate-") as scratch:
        graph, found = Path(scratch) / "observed.onnx", Path(scratch) / "found.npz"
        _write_observed(model, tensors, graph, with_values=method in ("percentile", "entropy"))
        opening = {
            "model": str(graph),
            "folder": str(source.absolute()),
            "tensors": [tensor.name for tensor in tensors],
            "method": method,
            "percentile": PERCENTILE,
            "threads": threads,
        }
        _observe(interpreter, opening, samples, found)
        arrays = read_arrays(found)
    entries = _split([tensor.name for tensor in tensors], [tensor.channels for tensor in tensors], arrays)
    ranges = Ranges(entries, method, len(samples))
    ranges.save(output)
    return ranges


def _split(names: Sequence[str], channels: Sequence[int] | Array, arrays: Arrays) -> dict[str, Range]:
    """Ranges from the ends of all channels of all tensors, one tensor after the other."""
    ends = np.cumsum(channels).astype(int)
    parts = {name: slice(end - size, end) for name, size, end in zip(names, channels, ends, strict=True)}
    kinds = ("minimum", "maximum", "power")
    return {name: Range(*(arrays[kind][part] for kind in kinds)) for name, part in parts.items()}


def _observe(interpreter: Path, opening: Mapping[str, object], samples: Sequence[Path], output: Path) -> None:
    with Worker.for_observing(interpreter) as worker:
        try:
            worker.call("open", **opening)
            for sample in samples:
                worker.call("add", sample=str(sample.absolute()))
            worker.call("save", output=str(output))
        except WorkerError as error:
            raise StageError(f"calibration fails: {error.message}", help=error.help, details=error.details) from error


def _write_observed(model: ir.Model, tensors: Sequence[Observed], path: Path, *, with_values: bool) -> None:
    """Write the graph with what Range holds of each channel as its outputs, external weights by reference."""
    import onnx_ir as ir

    found = {value.name: value for node in model.graph for value in node.outputs}
    found |= {value.name: value for value in model.graph.inputs}
    model.graph.outputs.clear()

    def constant(name: str, content: list[int]) -> ir.Value:
        value = ir.Value(name=name, const_value=ir.tensor(content, dtype=ir.DataType.INT64, name=name))
        model.graph.initializers.setdefault(name, value)
        return model.graph.initializers[name]

    def append(operator: str, inputs: list[ir.Value], name: str, attributes: dict[str, list[int] | int]) -> ir.Value:
        output = ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT))
        model.graph.append(ir.node(operator, inputs, attributes, outputs=[output], name=name))
        return output

    for tensor in tensors:
        sizes = [0, tensor.channels, -1] if tensor.axis == 1 else [-1, tensor.channels]
        axes = [0, 2] if tensor.axis == 1 else [0]
        shape = constant(f"ortc/shape/{'_'.join(map(str, sizes))}", sizes)
        flat = append("Reshape", [found[tensor.name], shape], f"{tensor.name}/flat", {})
        square = append("Mul", [flat, flat], f"{tensor.name}/square", {})
        kinds = (("minimum", "ReduceMin", flat), ("maximum", "ReduceMax", flat), ("power", "ReduceMean", square))
        for end, operator, source in kinds:
            # From opset 18 on the axes are an input.
            if model.opset_imports[""] >= 18:
                inputs, attributes = [source, constant(f"ortc/axes/{len(axes)}", axes)], {}
            else:
                inputs, attributes = [source], {"axes": axes}
            value = append(operator, inputs, f"{tensor.name}/{end}", {**attributes, "keepdims": 0})
            value.shape = ir.Shape([tensor.channels])
            model.graph.outputs.append(value)
        if with_values:
            model.graph.outputs.append(flat)
    write_beside(model, path)
