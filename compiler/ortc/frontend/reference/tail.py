"""What follows a model, as modules of PyTorch: pooling, further layers, normalization.

They are exported with the model, so that the graph that ships has them at every precision, and they are a part of the
reference. The formulas are those of sentence-transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ortc.common.errors import StageError
from ortc.inspection.recipe import HELP, Dense, LayerNorm, Normalize, Pooling, Recipe, Step
from ortc.spec.interface import Pool, TextInterface

if TYPE_CHECKING:
    import torch

LEAST = 1e-9
"""Least divisor of a mean, for rows in which everything is masked."""
NORM_LEAST = 1e-12
"""Least length that a vector is divided by."""


def steps_of(recipe: Recipe | None, interface: object) -> tuple[Step, ...]:
    """Return the steps after the model: those of the repository, with those that the spec replaces."""
    steps = () if recipe is None else recipe.steps
    if not isinstance(interface, TextInterface):
        return steps
    if interface.pooling is not None:
        steps = (Pooling(modes=(interface.pooling,)), *(step for step in steps if not isinstance(step, Pooling)))
    if interface.normalize is not None:
        steps = tuple(step for step in steps if not isinstance(step, Normalize))
        steps = (*steps, Normalize()) if interface.normalize else steps
    if steps and not isinstance(steps[0], Pooling):
        raise StageError(
            "`interface.normalize` needs pooling, which the repository does not have",
            help="add `pooling` to `model.interface`",
        )
    return steps


def build_activation(function: str) -> torch.nn.Module:
    """Build the function over a classifier's logits [batch, classes]: `softmax` or `sigmoid`."""
    import torch

    return torch.nn.Softmax(dim=-1) if function == "softmax" else torch.nn.Sigmoid()


def build_tail(steps: Sequence[Step], directory: Path, *, random: bool) -> torch.nn.Module:
    """Build the steps as one module, called with hidden states [batch, sequence, hidden] and the attention mask.

    Args:
        steps: pooling first.
        directory: the model's files, with the weights of the layers.
        random: leave the weights of the layers as their constructors draw them.

    Raises:
        StageError: a file of weights is missing, or does not fit.
    """
    import torch

    class Tail(torch.nn.Module):
        """The steps in their order."""

        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.ModuleList(_layer(step, directory, random=random) for step in steps[1:])

        def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            modes = steps[0].modes if isinstance(steps[0], Pooling) else ()
            vector = torch.cat([POOLS[mode](hidden, mask) for mode in modes], dim=-1)
            for layer in self.layers:
                vector = layer(vector)
            return vector

    return Tail().eval()


def _layer(step: Step, directory: Path, *, random: bool) -> torch.nn.Module:
    import torch

    if isinstance(step, Dense):
        layer: torch.nn.Module = _dense(step)
    elif isinstance(step, LayerNorm):
        layer = _norm(step)
    elif isinstance(step, Normalize):
        return _unit()
    else:
        raise AssertionError(step)
    if not random:
        state = _state(directory / step.weights)
        expected = {name: tuple(value.shape) for name, value in layer.state_dict().items()}
        found = {name: tuple(value.shape) for name, value in state.items()}
        if expected != found:
            raise StageError(f"{step.weights}: expected weights {expected}, found {found}", help=HELP)
        layer.load_state_dict({name: value.to(torch.float32) for name, value in state.items()})
    return layer


def _state(path: Path) -> Mapping[str, Any]:
    import torch
    from safetensors.torch import load_file

    if not path.is_file():
        raise StageError(f"`{path.parent.name}/{path.name}` is missing", help="list it in `model.files`")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state: Mapping[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # Whatever is wrong with a file of weights.
        raise StageError(f"`{path.parent.name}/{path.name}` cannot be read: {error}") from error
    return state


def _dense(step: Dense) -> torch.nn.Module:
    import torch

    class DenseLayer(torch.nn.Module):
        """A linear layer, its activation, and the input added where the step says so."""

        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(step.in_features, step.out_features, bias=step.bias)
            self.activation: torch.nn.Module = getattr(torch.nn, step.activation)()
            if step.residual and step.in_features != step.out_features:
                self.residual = torch.nn.Linear(step.in_features, step.out_features, bias=False)

        def forward(self, vector: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.activation(self.linear(vector))
            if step.residual:
                result = result + (vector if step.in_features == step.out_features else self.residual(vector))
            return result

    return DenseLayer()


def _norm(step: LayerNorm) -> torch.nn.Module:
    import torch

    class NormLayer(torch.nn.Module):
        """A normalization over the features."""

        def __init__(self) -> None:
            super().__init__()
            self.norm = torch.nn.LayerNorm(step.dimension)

        def forward(self, vector: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.norm(vector)
            return result

    return NormLayer()


def _unit() -> torch.nn.Module:
    import torch

    class Unit(torch.nn.Module):
        """The vector divided by its length; written out, since the operator for it needs opset 18."""

        def forward(self, vector: torch.Tensor) -> torch.Tensor:
            return vector / (vector * vector).sum(dim=-1, keepdim=True).sqrt().clamp(min=NORM_LEAST)

    return Unit()


def _summed(hidden: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The sum of the unmasked vectors, and how many there are, at least LEAST."""
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(dim=1), weights.sum(dim=1).clamp(min=LEAST)


def _mean(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    total, count = _summed(hidden, mask)
    return total / count


def _mean_sqrt(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    total, count = _summed(hidden, mask)
    return total / count.sqrt()


def _max(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    import torch

    keep = mask.unsqueeze(-1) != 0
    return torch.where(keep, hidden, torch.full_like(hidden, float("-inf"))).amax(dim=1)


def _weighted(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mean with weights 1, 2, 3 and so on, from the first unmasked token."""
    positions = _positions(hidden, mask)
    weights = mask.to(hidden.dtype) * (positions + 1 - _first(mask)).to(hidden.dtype)
    weights = weights.unsqueeze(-1)
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=LEAST)


def _cls(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The first unmasked vector: some tokenizers pad on the left."""
    return _at(hidden, _first(mask))


def _last(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The last unmasked vector; zeros in a row in which everything is masked."""
    positions = _positions(hidden, mask)
    last = (positions * (mask != 0)).amax(dim=1, keepdim=True)
    return _at(hidden, last) * (mask != 0).any(dim=1, keepdim=True).to(hidden.dtype)


def _positions(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.arange(hidden.shape[1], device=mask.device, dtype=torch.int64).unsqueeze(0)


def _first(mask: torch.Tensor) -> torch.Tensor:
    """The index of the first unmasked token, [batch, 1]; 0 where everything is masked."""
    import torch

    return (mask != 0).to(torch.int32).argmax(dim=1, keepdim=True)


def _at(hidden: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    import torch

    places = index.to(torch.int64).unsqueeze(-1).expand(-1, 1, hidden.shape[-1])
    return torch.gather(hidden, 1, places).squeeze(1)


POOLS: Mapping[Pool, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_sqrt,
    "max": _max,
    "weightedmean": _weighted,
    "cls": _cls,
    "lasttoken": _last,
}
