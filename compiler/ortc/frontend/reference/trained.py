"""Hold a module to what its spec says of the weights: from a state dict, its own, none at all, or random ones.

The constructor of a module draws numbers until trained ones are loaded. Whatever is forgotten would ship as drawn.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ortc.common.errors import StageError
from ortc.frontend.reference.state import unregistered
from ortc.spec.model_sources import PyTorchSource

if TYPE_CHECKING:
    import torch

ANOTHER_SEED = 1
"""A seed besides 0, which every model is built with; as much is added to the seeds that a function sets itself."""
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
    elif source.weights == "none" and (found := list(numbers(module))):
        raise StageError(
            f"`weights: none`, but the module of `{source.entrypoint}` has {_counted(found)}",
            help="name the trained state dict: `weights: path/model.safetensors`; or write `weights: entrypoint` where "
            "the function itself gives them their values",
        )


def numbers(module: torch.nn.Module) -> Iterator[str]:
    """Names of a module's parameters and buffers, those in plain lists and mappings included."""
    yield from (name for name, _ in (*module.named_parameters(), *module.named_buffers()))
    for name, value in unregistered(module):
        parts = value.state_dict() if hasattr(value, "state_dict") else {"": value}
        yield from (f"{name}.{part}".rstrip(".") for part in parts)


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


@contextmanager
def other_seeds() -> Iterator[None]:
    """While a function runs, whatever generator it seeds gets another seed than it says: PyTorch's, NumPy's, Python's.

    A seed of its own makes the numbers of a constructor the same every time, and no more trained. What generators draw
    afterwards does not depend on what they drew meanwhile.
    """
    import numpy as np
    import torch

    class Generator(torch.Generator):
        def manual_seed(self, seed: int) -> torch.Generator:
            return super().manual_seed(_other(seed))

    class RandomState(np.random.RandomState):
        def __init__(self, seed: Any = None) -> None:
            super().__init__(_other(seed))

    replaced = (
        # `torch.manual_seed` asks this one, under whatever name a module has imported it.
        (torch.random, "default_generator", _Shifted(torch.default_generator)),
        (torch, "Generator", Generator),
        (np.random, "RandomState", RandomState),
        (np.random, "seed", _shifted(np.random.seed)),
        (np.random, "default_rng", _shifted(np.random.default_rng)),
        (random, "seed", _shifted(random.seed)),
    )
    before = [(module, name, getattr(module, name)) for module, name, _ in replaced]
    arrays, plain = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=()):
        try:
            for module, name, value in replaced:
                setattr(module, name, value)
            yield
        finally:
            for module, name, value in before:
                setattr(module, name, value)
            np.random.set_state(arrays)
            random.setstate(plain)


class _Shifted:
    """PyTorch's own generator, which gets other seeds."""

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator

    def manual_seed(self, seed: int) -> torch.Generator:
        return self._generator.manual_seed(_other(seed))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._generator, name)


def _shifted(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(seed: Any = None, *arguments: Any, **options: Any) -> Any:
        return function(_other(seed), *arguments, **options)

    return call


def _other(seed: Any) -> Any:
    """Another seed, where one is given as a number or a text."""
    if hasattr(seed, "__index__"):
        return (int(seed) + ANOTHER_SEED) % 2**32
    return f"{seed}{ANOTHER_SEED}" if isinstance(seed, str) else seed


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
            help="the entry point and its `args` must build the module that was trained",
            details=(*(f"missing: {key}" for key in missing), *(f"unknown: {key}" for key in unexpected))[:20],
        )


def _counted(names: list[str]) -> str:
    what = "parameter or buffer" if len(names) == 1 else "parameters and buffers"
    return f"{len(names)} {what}: {_listed([f'`{name}`' for name in names])}"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"


def weights_of(source: PyTorchSource, directory: Path) -> Path | None:
    """Where the weights file of a source was put, None without one."""
    return None if source.weights_file is None else directory / Path(source.weights_file).name
