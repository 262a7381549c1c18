"""Buffers on the device of a session, which inputs and outputs stay in from run to run; CUDA graphs run over them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import Arrays
from .errors import InputError
from .interface import Interface
from .providers import CUDA, TENSORRT

GRAPH_OPTIONS = ("enable_cuda_graph", "trt_cuda_graph_enable")
NO_GRAPH = -1  # the gpu_graph_id of a run that is neither captured nor replayed
Key = tuple[tuple[int, ...], ...]


def captures_graphs(config: Mapping[str, Any]) -> bool:
    """Whether session.json has a provider capture CUDA graphs."""
    options = [entry["options"] for entry in config["providers"]]
    return any(str(o.get(k)).lower() in ("1", "true") for o in options for k in GRAPH_OPTIONS)


class Bound:
    """Buffers on the device of a session's first provider: inputs of one shape, and the outputs that they give.

    A run reads and writes nothing else, so that a CUDA graph can be captured over them, and copies nothing to or from
    the host. Not for several threads at once.
    """

    def __init__(
        self,
        session: Any,
        inputs: Mapping[str, NDArray[Any]],
        outputs: Sequence[str],
        check: Callable[[Mapping[str, NDArray[Any]]], None],
        graph: int | None = None,
    ) -> None:
        """Copy the inputs to the device and let a run give the outputs their buffers.

        Args:
            session: An InferenceSession.
            inputs: What was checked.
            outputs: The names of all outputs.
            check: Raises InputError for inputs that do not fit.
            graph: The gpu_graph_id of later runs, None where the session captures no graphs.
        """
        import onnxruntime as ort

        self._ort, self._session, self._check, self._graph = ort, session, check, graph
        self.device = "cuda" if session.get_providers()[0] in (CUDA, TENSORRT) else "cpu"
        self._binding = session.io_binding()
        self._inputs = {name: self._to_device(array) for name, array in inputs.items()}
        for name, value in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        for name in outputs:
            self._binding.bind_output(name, self.device)
        self._run(None, None if graph is None else NO_GRAPH)
        # What ONNX Runtime gave the outputs is theirs from now on.
        self._outputs = dict(zip(outputs, self._binding.get_outputs(), strict=True))
        for name, value in self._outputs.items():
            self._binding.bind_ortvalue_output(name, value)

    def _to_device(self, array: NDArray[Any]) -> Any:
        return self._ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), self.device, 0)

    def update(self, inputs: Mapping[str, NDArray[Any]]) -> None:
        """Copy other inputs into the buffers; raises InputError unless they are of the same shapes and types."""
        self._check(inputs)
        for name, array in inputs.items():
            held = list(self._inputs[name].shape())
            if list(array.shape) != held:
                raise InputError(f"input {name!r} has shape {list(array.shape)}, its buffer {held}. Bind again.")
        for name, array in inputs.items():
            self._inputs[name].update_inplace(np.ascontiguousarray(array))

    def run(self, run_options: Any = None) -> None:
        """Compute the outputs of what is in the buffers; ends when they are there."""
        self._run(run_options, self._graph)

    def _run(self, run_options: Any, graph: int | None) -> None:
        options = run_options
        if graph is not None:
            options = run_options or self._ort.RunOptions()
            options.add_run_config_entry("gpu_graph_id", str(graph))
        self._session.run_with_iobinding(self._binding, options)
        self._binding.synchronize_outputs()

    def answer(self) -> Arrays:
        """Copies of the outputs, on the host."""
        return {name: np.array(value.numpy()) for name, value in self._outputs.items()}


class Graphs:
    """The CUDA graphs of a session: captured at some shapes, each with buffers of its own, and replayed there.

    Attributes:
        enabled: Whether the session captures graphs at all.
    """

    def __init__(
        self,
        session: Any,
        interface: Interface,
        check: Callable[[Mapping[str, NDArray[Any]]], None],
        examples: Iterable[Mapping[str, NDArray[Any]]] | None,
    ) -> None:
        """`examples` are inputs of each shape to capture, None where the session captures no graphs."""
        self._session, self._interface, self._check = session, interface, check
        self.enabled = examples is not None
        # Shapes of inputs whose run is captured, and their buffers once it was.
        self._captured: dict[Key, Bound | None] = {self._key(inputs): None for inputs in examples or ()}

    def _key(self, inputs: Mapping[str, NDArray[Any]]) -> Key:
        return tuple(inputs[tensor.name].shape for tensor in self._interface.inputs)

    def run(self, inputs: Mapping[str, NDArray[Any]], names: Sequence[str], run_options: Any) -> Arrays:
        """A run that is replayed at the shapes to capture, and plain at others."""
        import onnxruntime as ort

        if self._key(inputs) not in self._captured:
            options = run_options or ort.RunOptions()
            options.add_run_config_entry("gpu_graph_id", str(NO_GRAPH))
            return dict(zip(names, self._session.run(names, inputs, options), strict=True))
        bound = self.bound(inputs)
        bound.run(run_options)
        answer = bound.answer()
        return {name: answer[name] for name in names}

    def bound(self, inputs: Mapping[str, NDArray[Any]]) -> Bound:
        """Buffers that hold these inputs: those of a shape that is captured, or new ones."""
        key = self._key(inputs)
        if key not in self._captured:
            return self._new(inputs, NO_GRAPH if self.enabled else None)
        bound = self._captured[key]
        if bound is None:
            bound = self._captured[key] = self._new(inputs, list(self._captured).index(key) + 1)
        else:
            bound.update(inputs)
        return bound

    def close(self) -> None:
        """Give the buffers up, and the session."""
        self._captured, self._session, self.enabled = {}, None, False

    def _new(self, inputs: Mapping[str, NDArray[Any]], graph: int | None) -> Bound:
        return Bound(self._session, inputs, [t.name for t in self._interface.outputs], self._check, graph)
