"""The state dict of a checkpoint: where it lies in the file, and what all of its names begin with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ortc.common.errors import StageError
from ortc.inspection.torch_script import TORCHSCRIPT_HELP, is_torchscript
from ortc.spec.model_sources import PyTorchSource

if TYPE_CHECKING:
    import torch

PICKLE_REASON = (
    "reading it would run code that the file carries; save the state dict with safetensors.torch.save_file(), or with "
    "torch.save() as plain tensors"
)
_DEPTH = 4
_SHOWN = 6


def read_checkpoint(path: Path) -> Any:
    """What a weights file holds: names to tensors, or a mapping with such mappings in it.

    Raises:
        StageError: unreadable, TorchScript, or a pickle of more than tensors, numbers and containers.
    """
    import pickle

    import torch

    try:
        if path.suffix == ".safetensors":
            import safetensors.torch

            return dict(safetensors.torch.load_file(path))
        if is_torchscript(path):
            raise StageError(f"`{path.name}` is TorchScript, and no state dict", help=TORCHSCRIPT_HELP)
        expect_right_sparse_tensors()
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise StageError(f"refused to read `{path.name}`: {PICKLE_REASON}", details=(reason(error),)) from error
    except StageError:
        raise
    except Exception as error:
        # safetensors raises its own bare Exception subclasses; either way the file is what is wrong.
        raise StageError(f"cannot read the weights `{path.name}`: {reason(error)}") from error


def expect_right_sparse_tensors() -> None:
    """Let PyTorch refuse sparse tensors whose indices lie beyond their sizes: it would write there."""
    import torch

    torch.sparse.check_sparse_tensor_invariants.enable()  # type: ignore[no-untyped-call]


def state_dict(source: PyTorchSource, path: Path) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """The state dict that a source means, and what somebody should know of the rest of its file.

    Args:
        source: its `weights_key` says where in the file the state dict lies, its `strip_prefix` what names begin with.
        path: of the weights file.

    Raises:
        StageError: unreadable, no state dict there, or no name with that prefix.
    """
    held = read_checkpoint(path)
    if source.weights_key is not None:
        found = _at(held, source.weights_key)
        if found is None:
            keys = f"`{path.name}` has no `{source.weights_key}`, which `weights_key` names"
            raise StageError(keys, help=_way_to(held))
        held = found
    if not is_state_dict(held):
        where = f"`{source.weights_key}` of `{path.name}`" if source.weights_key else f"`{path.name}`"
        raise StageError(f"{where} is no state dict (names to tensors): it {_described(held)}", help=_way_to(held))
    return _stripped(held, source.strip_prefix, path.name)


def is_state_dict(value: Any) -> bool:
    """Whether a value is a mapping from names to tensors, and not empty."""
    import torch

    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(name, str) and isinstance(held, torch.Tensor) for name, held in value.items())
    )


def prefix_of(names: Iterable[str], wanted: Iterable[str]) -> str | None:
    """What every wanted name has in front of it among other names, None where nothing is.

    `module.` for the names of a DataParallel module, `model._orig_mod.` for those of a compiled part of a trainer.
    """
    held, sought = set(names), sorted(wanted, key=len, reverse=True)
    if not sought:
        return None
    ends = sorted((name for name in held if name.endswith(f".{sought[0]}")), key=len)
    for name in ends:
        prefix = name.removesuffix(sought[0])
        if all(f"{prefix}{each}" in held for each in sought):
            return prefix
    return None


def _stripped(
    state: Mapping[str, torch.Tensor], prefix: str | None, file: str
) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    if prefix is None:
        return dict(state), ()
    kept = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    if not kept:
        begins = sorted({f"{name.partition('.')[0]}." for name in state if "." in name})
        raise StageError(
            f"no name in `{file}` begins with `{prefix}`, which `strip_prefix` names",
            help=f"names begin with {_listed(begins)}" if begins else "leave out `strip_prefix`",
        )
    others = [name for name in state if not name.startswith(prefix)]
    if not others:
        return kept, ()
    counted = "1 tensor is" if len(others) == 1 else f"{len(others)} tensors are"
    return kept, (f"{counted} left out of `{file}`, without the prefix `{prefix}`: {_listed(others)}",)


def _at(held: Any, key: str) -> Any:
    """What lies at names joined by dots, where names may have dots themselves; None where nothing does."""
    if not isinstance(held, Mapping):
        return None
    if key in held:
        return held[key]
    parts = key.split(".")
    for cut in range(1, len(parts)):
        found = _at(held.get(".".join(parts[:cut])), ".".join(parts[cut:]))
        if found is not None:
            return found
    return None


def _states(held: Any, depth: int = _DEPTH) -> Iterator[str]:
    """Where state dicts lie in a checkpoint, as `weights_key` names them."""
    if not isinstance(held, Mapping) or depth == 0:
        return
    for name, value in held.items():
        if isinstance(name, str):
            if is_state_dict(value):
                yield name
            yield from (f"{name}.{below}" for below in _states(value, depth - 1))


def _way_to(held: Any) -> str:
    keys = list(_states(held))
    if not keys:
        return "save the state dict alone: `torch.save(model.state_dict(), PATH)`"
    return f"write `weights_key: {keys[0]}`" if len(keys) == 1 else f"write `weights_key` with one of {_listed(keys)}"


def _described(held: Any) -> str:
    import torch

    if isinstance(held, torch.Tensor):
        return "is one tensor"
    if not isinstance(held, Mapping):
        return f"is of the type {type(held).__name__}"
    if not held:
        return "is empty"
    others = [str(name) for name, value in held.items() if not isinstance(value, torch.Tensor)]
    return f"has {_listed(others or list(map(str, held)))}"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(f'`{name}`' for name in names[:_SHOWN])}{more}"


def reason(error: Exception) -> str:
    """The kind and the first line of what a library raised."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
