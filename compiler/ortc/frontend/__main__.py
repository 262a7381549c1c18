"""`python -m ortc.frontend`: serve one model over JSON lines on stdin and stdout.

The protocol is that of `ortc.execution.worker_protocol`; tensors travel in .npz files. Operations: load, export,
compile, run, bench, texts, tokens, answers, info.
"""

from __future__ import annotations

import gc
import json
import re
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from ortc.common.arrays import read_arrays, write_arrays
from ortc.common.errors import StageError
from ortc.execution.worker_protocol import serve
from ortc.frontend.file_operations import FileOperations
from ortc.frontend.reference.state_dicts import expect_right_sparse_tensors
from ortc.frontend.text_operations import TextOperations
from ortc.plan.plan import ExportPlan, ModelPlan
from ortc.spec.model_sources import PyTorchSource

if TYPE_CHECKING:
    import torch

    from ortc.frontend.reference.model import Reference, Tensors

Json = dict[str, Any]


class Server:
    """One process, one model."""

    def __init__(self) -> None:
        self.reference: Reference | None = None
        self.export_plan: ExportPlan | None = None
        self.root: Path | None = None
        self.load_seconds = 0.0
        self.answers: dict[str, int] = {}
        self.is_repeatable = False
        self.source: ModelPlan | None = None
        self.directory = Path()
        self.operations: dict[str, Callable[[Json], Json]] = {
            "load": self.load,
            "build": self.build,
            "state": self.state,
            "export": self.export,
            "compile": self.compile,
            "run": self.run,
            "bench": self.bench,
            **TextOperations(self).operations,
            **FileOperations(self).operations,
            "info": self.info,
        }

    def load(self, request: Json) -> Json:
        """{model, export, directory, root, threads, other, answers} -> interface, sizes, what its entry point opened.

        With `other`, every random number that the entry point draws is another. `answers` are the names of the outputs
        that `run` gives, where they are called as in an ONNX file that was made of the model.
        """
        import torch

        from ortc.execution.files_opened import Recorder
        from ortc.frontend.reference.load import load
        from ortc.frontend.reference.outputs import named_alike

        torch.set_num_threads(int(request["threads"]))
        expect_right_sparse_tensors()
        begin = time.perf_counter()
        source: ModelPlan = TypeAdapter[ModelPlan](ModelPlan).validate_json(json.dumps(request["model"]))
        self.export_plan = ExportPlan.model_validate(request["export"])
        directory = Path(request["directory"])
        self.source, self.directory = source, directory
        self.root = Path(request["root"])
        with _numbers(other=bool(request.get("other"))), Recorder(directory) as recorder:
            self.reference = load(source, directory, self.root, self.export_plan)
        self.load_seconds = time.perf_counter() - begin
        self.answers = named_alike(request.get("answers"), self.reference.outputs)
        return {
            "inputs": [tensor.model_dump(mode="json") for tensor in self.reference.inputs],
            "outputs": list(self.reference.outputs),
            "parameters": self.reference.parameters,
            "weight_bytes": self.reference.weight_bytes,
            "notes": list(self.reference.notes),
            "opened": recorder.opened().model_dump(mode="json") if source.source == "pytorch" else None,
        }

    def build(self, request: Json) -> Json:
        """{model, directory, root, other} -> {"parts", "opaque", "opened"} of a module, which is not kept.

        With `other`, every random number that the entry point draws is another.
        """
        import torch

        from ortc.execution.files_opened import Recorder
        from ortc.frontend.reference.custom import build_module

        expect_right_sparse_tensors()
        source = PyTorchSource.model_validate(request["model"])
        directory = Path(request["directory"])
        with _numbers(other=request["other"]), Recorder(directory) as recorder:
            torch.manual_seed(0)
            module, _ = build_module(source, directory, Path(request["root"]))
        return {**_state(module, Path(request["root"])), "opened": recorder.opened().model_dump(mode="json")}

    def state(self, request: Json) -> Json:
        """{} -> {"parts": …, "opaque": …}, digests of all that the module computes with."""
        reference, _ = self.loaded()
        return _state(reference.original, self.root)

    def export(self, request: Json) -> Json:
        """{exporter, output} -> what was written, see ortc.frontend.export.

        Raises:
            NotRepeatableError: the model has a state, or draws random numbers, which no graph does.
        """
        from ortc.frontend.export import export
        from ortc.frontend.reference.model import example_inputs, other_inputs
        from ortc.frontend.reference.repeatable import check_repeatable

        reference, plan = self.loaded()
        if not self.is_repeatable:
            inputs, others = example_inputs(reference.inputs, plan), other_inputs(reference.inputs, plan)
            check_repeatable(reference.module, inputs, reference.outputs, others)
            self.is_repeatable = True
        return export(reference, plan, request["exporter"], Path(request["output"])).model_dump(mode="json")

    def compile(self, request: Json) -> Json:
        """{inputs: .npz} -> {"seconds": …} of torch.compile for inputs of these very shapes; later runs use its code.

        Raises:
            StageError: it cannot, for want of a C++ compiler or for what the model does.
        """
        import torch

        reference, _ = self.loaded()
        tensors = self._tensors(request["inputs"])
        begin = time.perf_counter()
        try:
            # One shape a process: code for any shape would be slower than what somebody who tunes would run.
            reference.module.compile(dynamic=False)
            with torch.inference_mode():
                reference.module(*tensors)
        except Exception as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            raise StageError(
                f"torch.compile fails: {lines[0] if lines else type(error).__name__}", details=tuple(lines[1:12])
            ) from error
        return {"seconds": time.perf_counter() - begin}

    def run(self, request: Json) -> Json:
        """{inputs: .npz, outputs: .npz} -> nothing; outputs are written by name."""
        reference, _ = self.loaded()
        tensors = self._tensors(request["inputs"])
        try:
            outputs = reference.module(*tensors)
        except Exception as error:
            shapes = ", ".join(str(list(tensor.shape)) for tensor in tensors)
            raise StageError(
                f"the model fails in PyTorch on inputs of shape {shapes}: {type(error).__name__}: {error}",
                help="its code depends on a size that `export.dynamic_axes` declares as dynamic: change the code "
                "or the bounds",
            ) from error
        arrays = {name: outputs[place].numpy() for name, place in self.answers.items()}
        write_arrays(Path(request["outputs"]), arrays)
        return {}

    def bench(self, request: Json) -> Json:
        """{inputs: .npz, warmup, runs} -> {"latencies_ms": […], "wall_seconds", "cpu_seconds"}.

        A run takes arrays and gives arrays, as one of a bundle does: forward() with the conversions to and from
        tensors, which copy nothing. The seconds are of all counted runs, and of what this process computed meanwhile.
        """
        import torch

        reference, _ = self.loaded()
        arrays = read_arrays(Path(request["inputs"]))
        inputs = [arrays[tensor.name] for tensor in reference.inputs]
        module, convert = reference.module, torch.from_numpy
        latencies = []
        with torch.inference_mode():
            for _ in range(int(request.get("warmup", 0))):
                module(*map(convert, inputs))
            begin, computed = time.perf_counter_ns(), time.process_time_ns()
            for _ in range(int(request["runs"])):
                began = time.perf_counter_ns()
                _answer = [value.numpy() for value in module(*map(convert, inputs))]
                latencies.append((time.perf_counter_ns() - began) / 1e6)
            computed, wall = time.process_time_ns() - computed, time.perf_counter_ns() - begin
        return {"latencies_ms": latencies, "wall_seconds": wall / 1e9, "cpu_seconds": computed / 1e9}

    def info(self, request: Json) -> Json:
        """Versions, threads, load time in seconds and peak resident memory in bytes."""
        import torch

        return {
            "versions": {"torch": torch.__version__, "python": sys.version.split()[0]},
            "threads": torch.get_num_threads(),
            "load_seconds": self.load_seconds,
            "peak_rss_bytes": peak_rss_bytes(),
        }

    def loaded(self) -> tuple[Reference, ExportPlan]:
        """The model, and how it is exported; StageError where none is loaded."""
        if self.reference is None or self.export_plan is None:
            raise StageError("no model is loaded")
        return self.reference, self.export_plan

    def _tensors(self, path: str) -> Tensors:
        import torch

        reference, _ = self.loaded()
        arrays = read_arrays(Path(path))
        return tuple(torch.from_numpy(arrays[tensor.name]) for tensor in reference.inputs)


def _numbers(*, other: bool) -> AbstractContextManager[None]:
    """Random numbers as they are drawn, or other ones."""
    if not other:
        return nullcontext()
    # Before anything is replaced: inputs that ortc makes are the same.
    import ortc.frontend.samples.inputs  # noqa: F401
    from ortc.frontend.reference.randomness import other_random_numbers

    return other_random_numbers()


def _state(module: torch.nn.Module, root: Path | None) -> Json:
    from ortc.frontend.reference.state import module_state

    found = module_state(module, root)
    return {"parts": found.parts, "opaque": list(found.opaque)}


def peak_rss_bytes(status: Path = Path("/proc/self/status")) -> int:
    """The most memory this process held resident.

    VmHWM and not ru_maxrss: Linux carries the peak of the process that forked and executed us into ru_maxrss.
    """
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status.read_text("utf-8"), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


if __name__ == "__main__":
    # What is imported for an export stays: to look through it again and again for garbage takes a second.
    gc.set_threshold(50_000, 20, 100)
    serve(Server().operations)
