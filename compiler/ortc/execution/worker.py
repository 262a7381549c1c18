"""The compiler's worker processes: a bundle's own loader, the PyTorch reference, and what makes and observes graphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Self

from ortc.common.arrays import Arrays, read_arrays, write_arrays
from ortc.common.disk import room, temporary
from ortc.execution.processes import bundled_script, module_elsewhere, own_environment, own_module
from ortc.execution.worker_process import WorkerProcess

BROWSER = "ortc.execution.browser"
"""The program that runs bundles for browsers."""
NODE = "ortc.execution.node"
"""The program that runs bundles for Node."""

OFFLINE = {"HF_HUB_OFFLINE": "1"}
"""Variables of a process that may read a model's files and get no others."""


class Timed(NamedTuple):
    """Counted runs of one turn: milliseconds of each, seconds of all, and what the process computed meanwhile.

    `cpu_seconds`, of all its threads, is None where the loader is of an older bundle and does not say it.
    """

    latencies_ms: tuple[float, ...]
    wall_seconds: float
    cpu_seconds: float | None


def is_script(bundle: Path) -> bool:
    """Whether the loader of a bundle is written in JavaScript: for browsers or for Node."""
    return (bundle / "runtime" / "loader.mjs").is_file()


def is_for_browsers(bundle: Path) -> bool:
    """Whether a bundle has a page."""
    return is_script(bundle) and (bundle / "index.html").is_file()


def is_for_node(bundle: Path) -> bool:
    """Whether a bundle is a package for Node."""
    return is_script(bundle) and not is_for_browsers(bundle)


def place_of(bundle: Path) -> str:
    """What runs a bundle whose loader is written in JavaScript, in a word."""
    return "browsers" if is_for_browsers(bundle) else "Node"


class Worker(WorkerProcess):
    """A process that serves one model. Use as a context manager."""

    @classmethod
    def for_bundle(cls, name: str, interpreter: Path, bundle: Path) -> Self:
        """A worker that runs a bundle's loader in its own environment; those for browsers and Node there."""
        if is_script(bundle):
            module = BROWSER if is_for_browsers(bundle) else NODE
            return cls(name, own_module(module), environment=own_environment())
        loader = bundle / "runtime" / "loader.py"
        return cls(name, bundled_script(interpreter, loader, "worker"))

    @classmethod
    def emulated(cls, name: str, command: Sequence[str], environment: Mapping[str, str], bundle: Path) -> Self:
        """A worker that runs a bundle's loader under an emulator: a command that starts Python, and its variables."""
        return cls(name, [*command, str(bundle / "runtime" / "loader.py"), "worker"], environment=environment)

    @classmethod
    def for_reference(cls, environment: Mapping[str, str] | None = None) -> Self:
        """A worker that runs the model in PyTorch, with the compiler's own environment and some more of it."""
        return cls(
            "PyTorch",
            own_module("ortc.frontend"),
            environment=own_environment({**OFFLINE, **(environment or {})}),
        )

    @classmethod
    def for_original(cls, name: str, interpreter: Path) -> Self:
        """A worker that answers with an ONNX file as it came, in a runtime environment of its own."""
        return cls(name, module_elsewhere(interpreter, "ortc.frontend.ort_original"))

    @classmethod
    def for_making(cls, name: str) -> Self:
        """A worker that makes graphs of variants, with the compiler's own environment."""
        return cls(name, own_module("ortc.passes"), environment=own_environment())

    @classmethod
    def for_optimizing(cls, interpreter: Path) -> Self:
        """A worker that optimizes graphs, in the runtime environment that will run them."""
        return cls("ONNX Runtime's optimizer", module_elsewhere(interpreter, "ortc.passes.ort_optimize"))

    @classmethod
    def for_packing(cls, interpreter: Path) -> Self:
        """A worker that packs weights for this processor, in the runtime environment that will read them."""
        return cls("ONNX Runtime", module_elsewhere(interpreter, "ortc.passes.ort_prepack"))

    @classmethod
    def for_observing(cls, interpreter: Path) -> Self:
        """A worker that finds the ranges of a graph's tensors, in a runtime environment."""
        return cls("the calibrator", module_elsewhere(interpreter, "ortc.passes.quantization.ort_observe"))

    @classmethod
    def for_images(cls) -> Self:
        """A worker that prepares images with a model's image processor, with the compiler's own environment."""
        return cls(
            "the image processor",
            own_module("ortc.frontend.samples.image_worker"),
            environment=own_environment(OFFLINE),
        )

    @classmethod
    def for_runtime_facts(cls) -> Self:
        """A worker that looks at the ONNX Runtime beside the compiler."""
        facts = own_module("ortc.passes.ort_facts")
        return cls("ONNX Runtime", facts, environment=own_environment(), seconds=60)

    def run(self, inputs: Arrays) -> Arrays:
        """One inference; arrays travel through files."""
        directory = Path(self._scratch.name)
        with room(temporary()):
            write_arrays(directory / "inputs.npz", inputs)
        self.call("run", inputs=str(directory / "inputs.npz"), outputs=str(directory / "outputs.npz"))
        return read_arrays(directory / "outputs.npz")

    def bench(self, inputs: Path, *, runs: int, warmup: int, clients: int | None = None) -> list[float]:
        """Latencies, in milliseconds, of `runs` inferences after `warmup` uncounted ones.

        With `clients`, that many ask at once, `runs` times each, and the one answer is the milliseconds of all by the
        number of requests.
        """
        return list(self.turn(inputs, runs=runs, warmup=warmup, clients=clients).latencies_ms)

    def turn(self, inputs: Path, *, runs: int, warmup: int, clients: int | None = None) -> Timed:
        """The same with the clocks of the counted runs."""
        crowd = {} if clients is None else {"clients": clients}
        answer = self.call("bench", inputs=str(inputs), runs=runs, warmup=warmup, **crowd)
        latencies = tuple(float(value) for value in answer["latencies_ms"])
        wall = answer.get("wall_seconds")
        if wall is None:
            wall = sum(latencies) / 1000 * (1 if clients is None else runs * clients)
        processor = answer.get("cpu_seconds")
        return Timed(latencies, float(wall), None if processor is None else float(processor))
