"""Draw other random numbers than the seeds of a function say, whatever draws them.

A seed of its own makes the numbers of a constructor the same every time, and no more trained. So the numbers are
changed where they are drawn: in every random operator of PyTorch, and in the generators of NumPy and of Python.
"""

from __future__ import annotations

import functools
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

ANOTHER_SEED = 1
"""How much is added to seeds; ortc itself builds every model with the seed 0."""
_SEEDS = 3_141_592_653
"""Where the seeds of PyTorch's operators begin, within the 32 bits that its generator takes."""
_CLASSES = ("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64", "SeedSequence", "RandomState")


class _OtherNumbers(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Gives every random operator a generator of its own."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._drawn = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # PyTorch would import its compiler, for seconds, to exclude this class from compilation.
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        names = [argument.name for argument in func._schema.arguments]
        # Not every random operator has the tag.
        if torch.Tag.nondeterministic_seeded not in func.tags and "generator" not in names:
            return func(*args, **given)
        device = next((value.device for value in (*args, *given.values()) if isinstance(value, torch.Tensor)), None)
        device = torch.device(given.get("device") or "cpu") if device is None else device
        if device.type == "meta":
            return func(*args, **given)
        self._drawn += 1
        seed = _SEEDS + self._drawn
        if "generator" not in names:
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else ()):
                torch.manual_seed(seed)
                return func(*args, **given)
        generator, place = torch.Generator(device).manual_seed(seed), names.index("generator")
        if place < len(args):
            return func(*args[:place], generator, *args[place + 1 :], **given)
        return func(*args, **{**given, "generator": generator})


class _StandIn(type):
    """The class of a generator whose instances are those of the generator that it stands for as well."""

    def __instancecheck__(cls, value: Any) -> bool:
        known = cls.__dict__.get("stands_for")
        return super().__instancecheck__(value) if known is None else isinstance(value, known)


def _with_other_seeds(kind: Any) -> Any:
    def start(self: Any, seed: Any = None, *arguments: Any, **options: Any) -> None:
        for name in ("seed", "entropy"):
            if name in options:
                options[name] = _other(options[name])
        kind.__init__(self, *(() if seed is None else (_other(seed),)), *arguments, **options)

    def set_state(self: Any, state: Any, *arguments: Any) -> None:
        kind.set_state(self, state, *arguments)
        kind.random_sample(self)

    def reseed(self: Any, seed: Any = None) -> None:
        kind.seed(self, _other(seed))

    body: dict[str, Any] = {"__init__": start, "stands_for": kind, "__module__": kind.__module__}
    if hasattr(kind, "set_state"):
        body |= {"set_state": set_state, "seed": reseed}
    return _StandIn(kind.__name__, (kind,), body)


def _replacements() -> Iterator[tuple[Any, str, Any]]:
    for name in _CLASSES:
        kind = getattr(np.random, name)
        stand_in = _with_other_seeds(kind)
        for owner in (np.random, sys.modules[kind.__module__]):
            yield owner, name, stand_in
    shifted = _first_shifted(np.random.default_rng)
    set_state = _drawing(np.random.set_state, np.random.random_sample)
    for owner in (np.random, np.random._generator):
        yield owner, "default_rng", shifted
    for owner in (np.random, np.random.mtrand):
        yield owner, "seed", _first_shifted(np.random.seed)
        yield owner, "set_state", set_state
    seed, state = random.Random.seed, random.Random.setstate

    def reseed(self: random.Random, a: Any = None, version: int = 2) -> None:
        seed(self, _other(a), version)

    def setstate(self: random.Random, given: Any) -> None:
        state(self, given)
        self.random()

    # The methods of the class: `from random import Random` may have been long ago.
    yield random.Random, "seed", reseed
    yield random.Random, "setstate", setstate
    whole = random._inst  # the generator of the module's functions
    yield random, "seed", functools.partial(reseed, whole)
    yield random, "setstate", functools.partial(setstate, whole)


@contextmanager
def other_random_numbers() -> Iterator[None]:
    """While a function runs, every random number that it draws is another one than its seeds say.

    Names that were imported before keep the generators that they had. So the function's module is imported inside. What
    generators draw afterwards does not depend on what they drew meanwhile.
    """
    arrays, plain = np.random.get_state(), random.getstate()
    before: list[tuple[Any, str, Any]] = []
    try:
        for owner, name, value in list(_replacements()):
            before.append((owner, name, vars(owner)[name]))
            setattr(owner, name, value)
        with torch.random.fork_rng(devices=()), _OtherNumbers():
            yield
    finally:
        for owner, name, value in reversed(before):
            setattr(owner, name, value)
        np.random.set_state(arrays)
        random.setstate(plain)


def _first_shifted(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(seed: Any = None, *arguments: Any, **options: Any) -> Any:
        return function(_other(seed), *arguments, **options)

    return call


def _drawing(function: Callable[..., Any], draw: Callable[[], Any]) -> Callable[..., Any]:
    """Set a state, and go one number on."""

    @functools.wraps(function)
    def call(*arguments: Any) -> None:
        function(*arguments)
        draw()

    return call


def _other(seed: Any) -> Any:
    """Another seed, where one is given as a number, a text, or several numbers."""
    if isinstance(seed, str):
        return f"{seed}{ANOTHER_SEED}"
    if isinstance(seed, bytes | bytearray):
        return bytes(seed) + b"\1"
    if isinstance(seed, float):
        return seed + ANOTHER_SEED
    if isinstance(seed, list | tuple):
        return [*map(_other, seed)]
    if isinstance(seed, np.ndarray) and seed.ndim:
        return [_other(int(value)) for value in seed.ravel()]
    if hasattr(seed, "__index__"):
        return (int(seed) + ANOTHER_SEED) % 2**32
    return seed
