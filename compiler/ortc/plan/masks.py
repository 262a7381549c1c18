"""The input that says which positions of a request are padding."""

from __future__ import annotations

from collections.abc import Iterable

from ortc.plan.plan import InputPlan

ATTENTION_MASK = "attention_mask"
"""The name of a mask that needs no declaration: 1 at positions that are read."""


def mask_of(tensors: Iterable[InputPlan]) -> InputPlan | None:
    """Return the mask [batch, positions] among a model's inputs: the declared one, else `attention_mask`."""
    found = [tensor for tensor in tensors if len(tensor.shape) == 2]
    named = [tensor for tensor in found if tensor.name == ATTENTION_MASK]
    return next((tensor for tensor in (*(tensor for tensor in found if tensor.mask is not None), *named)), None)
