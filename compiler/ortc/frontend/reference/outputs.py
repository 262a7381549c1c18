"""What a forward() gives, as named tensors, however deep they lie."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ortc.common.errors import StageError
from ortc.common.texts import shown

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Flattened:
    """Tensors by name, and what else there was: `logits` and `cache (DynamicCache)`, for instance."""

    tensors: dict[str, torch.Tensor]
    others: tuple[str, ...]


def flatten(result: Any, names: tuple[str, ...] | None) -> Flattened:
    """The tensors of a result by stable names.

    Keys of mappings and fields of dataclasses and named tuples are names; items of a sequence are numbered from 0. A
    name inside of another is joined with a point: `hidden_states.0`. A result that is a tensor is `output`, and the
    items of one that is a plain sequence are `output_0`, `output_1`, ...; such a result takes the names of the spec
    instead, in order, when they are as many as its tensors. None is left out.

    Args:
        result: of forward().
        names: of `export.outputs`, or None.

    Raises:
        StageError: two tensors come to have one name.
    """
    import torch

    found: dict[str, torch.Tensor] = {}
    others: list[str] = []
    for name, value in _leaves(result, "", top=True):
        if isinstance(value, torch.Tensor):
            if name in found:
                raise StageError(
                    f"forward() gives two outputs of the name `{shown(name)}`",
                    help="rename one of them: a name inside of another is joined with a point",
                )
            found[name] = value
        elif value is not None:
            others.append(f"{name} ({type(value).__name__})")
    nameless = isinstance(result, torch.Tensor) or (_is_sequence(result) and not hasattr(result, "_fields"))
    if nameless and names is not None and len(names) == len(found) and not set(names) <= found.keys():
        found = dict(zip(names, found.values(), strict=True))
    return Flattened(found, tuple(others))


def _leaves(value: Any, name: str, *, top: bool = False) -> Iterator[tuple[str, Any]]:
    items = _items(value)
    if items is None:
        yield name or "output", value
        return
    for key, item in items:
        inner = f"output_{key}" if top and isinstance(key, int) and _is_sequence(value) else str(key)
        yield from _leaves(item, f"{name}.{inner}" if name else inner)


def _items(value: Any) -> list[tuple[Any, Any]] | None:
    """Names or numbers and what they stand for; None for what is no container."""
    if isinstance(value, Mapping):
        return list(value.items())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(entry.name, getattr(value, entry.name)) for entry in dataclasses.fields(value)]
    if hasattr(value, "_fields"):
        return list(zip(value._fields, value, strict=True))
    return list(enumerate(value)) if _is_sequence(value) else None


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def named_alike(answers: Sequence[str] | None, outputs: Sequence[str]) -> dict[str, int]:
    """Places of a model's outputs by the names that answers have.

    Args:
        answers: of an ONNX file that was made of the model; None where outputs have their own names.
        outputs: of the model.

    Raises:
        StageError: neither are the names those of outputs, nor are there as many.
    """
    if answers is None:
        return {name: place for place, name in enumerate(outputs)}
    if set(answers) <= set(outputs):
        return {name: outputs.index(name) for name in answers}
    if len(answers) == len(outputs):
        return {name: place for place, name in enumerate(answers)}
    raise StageError(
        f"the ONNX file gives {', '.join(map(shown, answers))}, and the PyTorch model {', '.join(map(shown, outputs))}",
        help="name the model's outputs in the order of the file's in `model.reference.outputs`, or keep fewer of the "
        "file's in `export.outputs`",
    )
