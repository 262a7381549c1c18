"""The graph that a variant serves, as the stages after its making know it."""

from __future__ import annotations

from pydantic import Field

from ortc.common.values import Frozen
from ortc.passes.kernel_tables import Forecast

MOST_TENSORS = 32
"""Weights that are listed by name."""


class StoredTensor(Frozen):
    """A weight as a graph stores it: its name, shape, type and bytes."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int


class StoredTensors(Frozen):
    """Bytes of all weights by type, how many weights there are, and the largest of them, largest first."""

    count: int
    by_dtype: dict[str, int]
    largest: tuple[StoredTensor, ...]


class VariantGraph(Frozen):
    """The graph that a variant serves; `sha256` of its files, by which two variants are seen to be one.

    `weights` and `exact_weights` are bytes of the initializers, here and in the canonical graph; the latter is None
    where the canonical graph is quantized already, and has no exact ones.
    `shape_nodes` are names, by operator: see `ortc.passes.shape_arithmetic`. `placement` is what is foreseen of it
    on a provider whose kernels are known, None for any other.
    """

    bytes: int
    domains: dict[str, int]
    operators: dict[str, int]
    weights: int = 0
    exact_weights: int | None = 0
    sha256: str = ""
    shape_nodes: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    placement: Forecast | None = None
    tensors: StoredTensors | None = None
