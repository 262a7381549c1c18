"""Find modules that do not answer equal inputs equally: a graph has neither their state nor their dice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ortc.common.errors import StageError
from ortc.frontend.reachable.arrays import tensor_digest

if TYPE_CHECKING:
    import torch

SEEDS = 8
"""Runs of a module that draws random numbers, to see whether they matter: some only skip layers in training by them."""


class NotRepeatableError(StageError):
    """Two runs of the model on equal inputs differ."""


def check_repeatable(
    module: torch.nn.Module,
    inputs: Sequence[torch.Tensor],
    outputs: Sequence[str],
    others: Sequence[Sequence[torch.Tensor]] = (),
) -> None:
    """Run a module in eval mode twice on equal inputs, and compare outputs, buffers and parameters bit by bit.

    Args:
        module: gives a tuple of tensors.
        inputs: small ones; they are not changed.
        outputs: names of the tensors that it gives.
        others: inputs of other shapes, which may switch something that later answers depend on.

    Raises:
        NotRepeatableError: naming the buffer that forward() changes, or the output that differs, and why.
    """
    before = _tensors(module)
    with _dice() as were_thrown:
        first = _answers(module, inputs)
        after = _tensors(module)
        second = _answers(module, inputs)
        random = were_thrown()
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    if changed:
        raise NotRepeatableError(
            f"forward() changes `{_named(changed[0])}`"
            + (f" and {len(changed) - 1} more" if len(changed) > 1 else "")
            + ": what the model answers depends on earlier calls",
            help="a graph keeps nothing from one call to the next: write to buffers only when `self.training` is true"
            + _left_training(module),
        )
    differing = [name for name, one, other in zip(outputs, first, second, strict=True) if one != other]
    if not differing and random:
        differing = _by_seed(module, inputs, outputs)
    if differing:
        kind = "forward() draws random numbers" if random else "forward() keeps something between calls"
        raise NotRepeatableError(
            f"output `{differing[0]}` differs between two runs on equal inputs: {kind}",
            help=(
                "draw random numbers only when `self.training` is true, or take them as an input"
                if random
                else "a graph keeps nothing from one call to the next: give the state as an input and an output"
            )
            + _left_training(module),
        )
    _check_after_others(module, inputs, outputs, first, others)


def _check_after_others(
    module: torch.nn.Module,
    inputs: Sequence[torch.Tensor],
    outputs: Sequence[str],
    first: list[str],
    others: Sequence[Sequence[torch.Tensor]],
) -> None:
    """Run the module at other shapes, and compare its answers to the first inputs with those that it gave before."""
    before = _settings(module)
    with _dice():
        for other in others:
            try:
                module(*(tensor.clone() for tensor in other))
            except Exception:  # noqa: BLE001, S112 - the reference runs at this shape as well, and says what fails
                continue
        again = _answers(module, inputs)
    differing = [name for name, one, other in zip(outputs, first, again, strict=True) if one != other]
    if not differing:
        return
    after = _settings(module)
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    shapes = "; ".join(str([list(tensor.shape) for tensor in other]) for other in others)
    raise NotRepeatableError(
        f"output `{differing[0]}` differs after a run on inputs of other shapes ({shapes}): forward() keeps something "
        "between calls" + (f", and changes `{_named(changed[0])}`" if changed else ""),
        help="a graph keeps nothing from one call to the next: decide by the inputs of each call alone"
        + _left_training(module),
    )


def _by_seed(module: torch.nn.Module, inputs: Sequence[torch.Tensor], outputs: Sequence[str]) -> list[str]:
    """Outputs that random numbers decide."""
    import random

    import numpy as np
    import torch

    with _dice():
        answers = []
        for seed in range(SEEDS):
            torch.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed)  # what the module may draw from
            answers.append(_answers(module, inputs))
    return [name for index, name in enumerate(outputs) if len({answer[index] for answer in answers}) > 1]


@contextmanager
def _dice() -> Iterator[Any]:
    """Gives what says whether random numbers were drawn; afterwards the generators are as they were."""
    import pickle
    import random

    import numpy as np
    import torch

    states = torch.get_rng_state(), random.getstate(), np.random.get_state()
    of_numpy = pickle.dumps(states[2])

    def were_thrown() -> bool:
        return (
            not torch.equal(states[0], torch.get_rng_state())
            or states[1] != random.getstate()
            or of_numpy != pickle.dumps(np.random.get_state())
        )

    try:
        yield were_thrown
    finally:
        torch.set_rng_state(states[0])
        random.setstate(states[1])
        np.random.set_state(states[2])


def _answers(module: torch.nn.Module, inputs: Sequence[torch.Tensor]) -> list[str]:
    return [tensor_digest(tensor) for tensor in module(*(tensor.clone() for tensor in inputs))]


def _settings(module: torch.nn.Module) -> dict[str, str]:
    """Attributes of a module and its parts that are plain values, by name."""
    return {
        f"{place}.{key}".lstrip("."): repr(value)
        for place, part in module.named_modules()
        for key, value in vars(part).items()
        if value is None or isinstance(value, bool | int | float | str)
    }


def _tensors(module: torch.nn.Module) -> dict[str, str]:
    named = (*module.named_buffers(remove_duplicate=False), *module.named_parameters(remove_duplicate=False))
    return {name: tensor_digest(tensor) for name, tensor in named}


def _left_training(module: torch.nn.Module) -> str:
    """What to say of modules that stay in training mode after eval()."""
    left = [f"`{_named(name)}` ({type(part).__name__})" for name, part in module.named_modules() if part.training]
    return f"; in training mode in spite of eval(): {', '.join(left[:3])}" if left else ""


def _named(name: str) -> str:
    """A name as the user's module has it, without the wrapper's."""
    return name.removeprefix("model.")
