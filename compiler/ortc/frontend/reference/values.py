"""Notice code that a trace cannot follow: a condition or a number taken from the value of a tensor.

TorchScript's tracer records the way that one example took. Where that way depends on sizes alone, the shape matrix
shows whether it is the same everywhere; where it depends on values, no number of samples would.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

READERS = ("__bool__", "__int__", "__float__", "__index__", "__complex__", "item", "tolist", "numpy", "__array__")
"""Methods of a tensor that take its value out of what is traced."""
SIZES = frozenset({"aten::size", "aten::numel", "aten::dim", "prim::shape", "prim::Constant", "prim::GetAttr"})
"""Nodes whose results depend on no value of an input."""


@contextmanager
def watch_values(inputs: int) -> Iterator[list[str]]:
    """While tracing inside, collect the places in the code that read values computed from the model's inputs.

    Args:
        inputs: how many tensors the model takes; the trace lists them first, then the weights.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    readers = {getattr(torch.Tensor, name) for name in READERS}
    places: dict[str, None] = {}

    class Watch(TorchFunctionMode):
        def __torch_function__(
            self,
            func: Callable[..., Any],
            types: Iterable[type],
            args: tuple[Any, ...] = (),
            kwargs: Mapping[str, Any] | None = None,
        ) -> Any:
            if func in readers and torch._C._is_tracing() and _depends_on_inputs(args[0], inputs):
                places[_place(Path(torch.__file__).parent)] = None
            return func(*args, **(kwargs or {}))

    found: list[str] = []
    try:
        with Watch():
            yield found
    finally:
        found.extend(places)


def _depends_on_inputs(tensor: Any, inputs: int) -> bool:
    import torch

    pending = [torch._C._get_value_trace(tensor)]  # type: ignore[attr-defined]
    seen: set[str] = set()
    while pending:
        value = pending.pop()
        if value.debugName() in seen:
            continue
        seen.add(value.debugName())
        node = value.node()
        if node.kind() == "prim::Param":
            if value.debugName() in [output.debugName() for output in node.outputs()][:inputs]:
                return True
        elif node.kind() not in SIZES:
            pending.extend(node.inputs())
    return False


def _place(torch_directory: Path) -> str:
    """The innermost line of code that is neither torch's nor ours."""
    frames = traceback.extract_stack()
    own = Path(__file__)
    for frame in reversed(frames):
        path = Path(frame.filename)
        if path != own and torch_directory not in path.parents:
            return f'File "{frame.filename}", line {frame.lineno}, in {frame.name}: {frame.line}'
    return "unknown place"
