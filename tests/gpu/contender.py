"""One contender in a process of its own: `python contender.py DESCRIPTION`, then a JSON reply for each line of stdin.

Kinds: `onnxruntime`, a bundle through its own loader, and `torch`. Needs numpy, and onnxruntime or torch.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Arrays = dict[str, Array]
Json = dict[str, Any]
Run = Callable[[], Array]
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class Contender(Protocol):
    """What both kinds offer."""

    def facts(self) -> Json:
        """Versions, and what else is worth keeping."""

    def prepare(self, inputs: Arrays, mode: str) -> Run:
        """A function that answers a request; what a caller would not pay for at every request is done here.

        Modes: `host`, from numpy to numpy with all copies; `device`, from buffers on the GPU to buffers on the GPU,
        waiting for the end of it.
        """


class Bundle:
    """A bundle of ortc, on the providers of its session.json."""

    def __init__(self, about: Json) -> None:
        root = Path(about["bundle"])
        sys.path.insert(0, str(root / "runtime"))
        import loader

        self._loader = loader
        # Every digest was compared when it was put together, and what was then changed on purpose is no other graph.
        self._model = loader.Model.load(root, verify="none", selftest=False, warmup=False, nan="allow", strict=False)
        self._root = root

    def facts(self) -> Json:
        """What the loader says, how far golden answers are off, and which nodes ran where."""
        model, golden = self._model, "pass"
        try:
            seen: Any = [{key: case[key] for key in ("name", "max_abs", "cosine")} for case in model.selftest()]
        except self._loader.GoldenError as error:
            golden, seen = str(error), []
        info = model.info()
        placed: dict[str, dict[str, int]] = {}
        for provider, _, op_type, _ in model.placement():
            counts = placed.setdefault(provider, {})
            counts[op_type] = counts.get(op_type, 0) + 1
        keys = ("versions", "providers", "placement", "load_seconds", "seconds")
        return {**{key: info[key] for key in keys}, "golden": golden, "seen": seen, "operators": placed}

    def copies(self, inputs: Arrays, scratch: Path) -> Json:
        """Copies between host and device that ONNX Runtime inserted, as they ran, by operator."""
        with self._loader.Model.load(
            self._root, verify="none", selftest=False, warmup=False, nan="allow", strict=False, profile=scratch / "run"
        ) as model:
            model.run(inputs)
            found = [node["op_type"] for node in model.executed() if node["op_type"].startswith("Memcpy")]
        return {name: found.count(name) for name in sorted(set(found))}

    def prepare(self, inputs: Arrays, mode: str) -> Run:
        """See Contender."""
        (name,) = self._model.output_names()
        if mode == "host":
            return lambda: self._model.run(inputs)[name]
        bound = self._model.bind(inputs)

        def run() -> Array:
            bound.run()
            return np.empty(0)

        return run


class Torch:
    """The model in PyTorch: a way of attention, a precision, compiled or not."""

    def __init__(self, about: Json) -> None:
        import torch
        from encoder import make
        from seeding import Weights

        self._torch, self._device = torch, about["device"]
        torch.backends.cuda.matmul.allow_tf32 = about["tf32"]
        if about["device"] == "cpu" and about["threads"]:
            torch.set_num_threads(about["threads"])
        model, self._implementation = make(about["model"]["config"], about["attention"])
        weights = Weights(about["model"]).all()
        model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()}, strict=True)
        dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[about["precision"]]
        self._model: Any = model.eval().to(device=about["device"], dtype=dtype)
        if about["compile"]:
            # One graph a shape, as an engine for fixed shapes is built, and none given up for being too many.
            for limit in ("recompile_limit", "cache_size_limit"):
                with contextlib.suppress(AttributeError):
                    setattr(torch._dynamo.config, limit, 64)
            mode = None if about["compile"] == "default" else about["compile"]
            self._model = torch.compile(self._model, mode=mode, dynamic=False)

    def facts(self) -> Json:
        """Versions and the device."""
        torch = self._torch
        found: Json = {
            "versions": {"torch": torch.__version__, "cuda": torch.version.cuda, "model": self._implementation}
        }
        if self._device == "cuda":
            found["device"] = torch.cuda.get_device_name(0)
            found["compute_capability"] = ".".join(map(str, torch.cuda.get_device_capability(0)))
            found["versions"]["cudnn"] = torch.backends.cudnn.version()
        return found

    def prepare(self, inputs: Arrays, mode: str) -> Run:
        """See Contender."""
        torch, device = self._torch, self._device
        given = [torch.from_numpy(inputs[name]) for name in INPUTS]
        held = [entry.to(device) for entry in given]

        def on_host() -> Array:
            with torch.inference_mode():
                answer: Array = self._model(*(entry.to(device) for entry in given)).float().cpu().numpy()
            return answer

        def on_device() -> Array:
            with torch.inference_mode():
                self._model(*held).float()
            if device == "cuda":
                torch.cuda.synchronize()
            return np.empty(0)

        return on_host if mode == "host" else on_device


def read_arrays(path: str) -> Arrays:
    """The arrays of an .npz file."""
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


class Server:
    """Answers requests about one contender; each public method is an operation, its parameters the request."""

    operations = ("facts", "run", "bench", "copies")

    def __init__(self, contender: Contender) -> None:
        self._contender = contender
        self._prepared: dict[tuple[str, str], Run] = {}

    def facts(self) -> Json:
        """See Contender."""
        return self._contender.facts()

    def run(self, inputs: str, outputs: str) -> Json:
        """Write the answer to an .npz file's inputs as the array `output` of another."""
        np.savez(outputs, output=self._contender.prepare(read_arrays(inputs), "host")())
        return {}

    def copies(self, inputs: str, scratch: str) -> Json:
        """See Bundle.copies; of PyTorch nothing."""
        if not isinstance(self._contender, Bundle):
            return {}
        return self._contender.copies(read_arrays(inputs), Path(scratch))

    def bench(self, inputs: str, mode: str, runs: int, warmup: int) -> Json:
        """Milliseconds of each of the runs, after those that do not count."""
        key = (inputs, mode)
        if key not in self._prepared:
            # The buffers of one shape at a time: of all together they would be the device's memory.
            self._prepared = {key: self._contender.prepare(read_arrays(inputs), mode)}
        run = self._prepared[key]
        for _ in range(warmup):
            run()
        latencies = []
        for _ in range(runs):
            began = time.perf_counter_ns()
            run()
            latencies.append((time.perf_counter_ns() - began) / 1e6)
        return {"latencies_ms": latencies}


def main() -> None:
    """Serve until stdin ends; stdout carries replies alone."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def reply(document: Json) -> None:
        replies.write(json.dumps(document) + "\n")
        replies.flush()

    try:
        about = json.loads(sys.argv[1])
        kinds: dict[str, Callable[[Json], Contender]] = {"onnxruntime": Bundle, "torch": Torch}
        server = Server(kinds[about["kind"]](about))
    except Exception as error:  # noqa: BLE001 - the boundary of the process: the driver reports it
        reply({"ok": False, "error": f"{type(error).__name__}: {error}"})
        traceback.print_exc()
        return
    reply({"ok": True, "result": {}})
    for line in sys.stdin:
        request = json.loads(line)
        try:
            operation = request.pop("op")
            if operation not in server.operations:
                raise ValueError(f"unknown operation {operation!r}")
            reply({"ok": True, "result": getattr(server, operation)(**request)})
        except Exception as error:  # noqa: BLE001 - as above
            reply({"ok": False, "error": f"{type(error).__name__}: {error}"})
            traceback.print_exc()


if __name__ == "__main__":
    main()
