"""Hold a module to what its spec says of the weights: from a state dict, its own, none at all, or random ones.

The constructor of a module draws numbers until trained ones are loaded. Whatever is forgotten would ship as drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ortc.common.errors import StageError
from ortc.frontend.reference.state import numbers
from ortc.frontend.reference.state_dicts import prefix_of
from ortc.spec.model_sources import PyTorchSource

if TYPE_CHECKING:
    import torch

MAY_BE_DRAWN = ("none", "random")
"""Values of `weights` that claim nothing of the numbers that a constructor draws."""
SHOWN = 3
"""Parameters that an error names; the count is of all."""


def give_weights(source: PyTorchSource, module: torch.nn.Module, state: Mapping[str, Any] | None) -> None:
    """Load a state dict into a module, or check that there is nothing to load.

    Args:
        source: says where the weights come from.
        module: as its entry point built it.
        state: what the weights file holds; None where `weights` names no file.

    Raises:
        StageError: the state dict does not fit, the module has numbers and the spec says that it has none, or the spec
            says nothing.
    """
    if state is not None:
        _load(source, module, state)
    elif source.weights is None:
        raise StageError(
            f"nothing says where the weights of `{source.entrypoint}` come from",
            help="give `model.weights`: a path, `entrypoint`, `none` or `random`",
        )
    elif source.weights == "none" and (found := numbers(module)):
        raise StageError(
            f"`weights: none`, but the module of `{source.entrypoint}` has {_counted(module, found)}",
            help="name the trained state dict: `weights: path/model.safetensors`; or write `weights: entrypoint` where "
            "the function itself gives them their values",
        )


def refuse_drawn(source: PyTorchSource, parts: Mapping[str, str], again: Mapping[str, str]) -> None:
    """Refuse weights that are said to be loaded, and were drawn.

    Args:
        source: says where the weights come from.
        parts: digests of all that the module computes with.
        again: the same of a module that was built with another seed.

    Raises:
        StageError: naming parts that differ.
    """
    drawn = [name for name in parts if parts[name] != again.get(name)]
    if not drawn:
        return
    shown = [f"an attribute of `{name[:-2] or 'the module'}`" if name.endswith("()") else f"`{name}`" for name in drawn]
    where = "the function loads none for them" if source.weights_file is None else f"`{source.weights}` has none"
    raise StageError(
        f"`weights: {source.weights}`, but `{source.entrypoint}` draws {_listed(shown)} at random: {where}",
        help="load trained numbers in the function, or keep them in parameters and name the state dict in "
        "`model.weights`; numbers that are random on purpose are saved with the weights as well, whatever their "
        "seed; `weights: random` builds a bundle for measuring",
    )


def _load(source: PyTorchSource, module: torch.nn.Module, state: Mapping[str, Any]) -> None:
    try:
        missing, unexpected = module.load_state_dict(state, strict=False)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise StageError(
            f"`{source.weights}` does not fit the module: {lines[-1]}",
            help="the entry point and its `args` must build the module that was trained",
            details=tuple(lines[:20]),
        ) from error
    if missing or unexpected:
        raise StageError(
            f"`{source.weights}` does not fit the module: {len(missing)} weights missing, {len(unexpected)} unknown",
            help=_help(source, missing, unexpected),
            details=(*(f"missing: {key}" for key in missing), *(f"unknown: {key}" for key in unexpected))[:20],
        )


def _help(source: PyTorchSource, missing: Sequence[str], unexpected: Sequence[str]) -> str:
    """What to do about names that differ: most often one prefix stands before all of them."""
    prefix = prefix_of(unexpected, missing)
    if prefix is None:
        return "the entry point and its `args` must build the module that was trained"
    return f"the names of its weights begin with `{prefix}`: write `strip_prefix: {source.strip_prefix or ''}{prefix}`"


def _counted(module: torch.nn.Module, names: Sequence[str]) -> str:
    registered = {name for name, _ in (*module.named_parameters(), *module.named_buffers())}
    one, many = ("parameter or buffer", "parameters and buffers")
    if not registered.issuperset(names):
        one, many = ("tensor or array", "tensors and arrays")
    return f"{len(names)} {one if len(names) == 1 else many}: {_listed([f'`{name}`' for name in names])}"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"


def weights_of(source: PyTorchSource, directory: Path) -> Path | None:
    """Where the weights file of a source was put, None without one."""
    return None if source.weights_file is None else directory / Path(source.weights_file).name
