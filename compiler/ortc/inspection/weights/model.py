"""Weights, who reads them, and what is certain to ship of them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from ortc.spec.quantization import Quantization, WeightQuantization

Reader = frozenset[str]
"""The ONNX operators, one of which reads a weight; several where that depends on the exporter."""

_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 4}
"""Bytes of a weight that is not quantized, by what a variant computes in; never more than the model itself has."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Some weights of a model that are alike."""

    elements: int
    itemsize: int
    """Bytes of an element as the reference computes with it."""
    readers: frozenset[Reader] | None = None
    """Who reads them; None where that is not known."""


@dataclass(frozen=True, slots=True)
class Found:
    """The weights of a model."""

    weights: tuple[Weights, ...]
    certain_share: float = 1.0
    """The part that ships whatever the model's code does with its files."""

    @property
    def elements(self) -> int:
        """How many there are."""
        return sum(item.elements for item in self.weights)


class Variant(Protocol):
    """What a profile and a plan both say of a variant."""

    @property
    def precision(self) -> str:
        """What it computes in."""

    @property
    def quantization(self) -> Quantization | None:
        """How its weights become integers."""


def least_bytes(found: Found, variant: Variant) -> int:
    """Bytes below which no graph of a variant can be, if all weights ship.

    A weight that somebody reads whose operator type is not quantized stays as it is. Of weights whose readers are not
    known, all are taken to be quantized.
    """
    return sum(math.ceil(item.elements * _each(item, variant)) for item in found.weights)


def _each(item: Weights, variant: Variant) -> float:
    how = variant.quantization
    if how is not None and (item.readers is None or all(reader & set(how.operators) for reader in item.readers)):
        return how.bits / 8 if isinstance(how, WeightQuantization) else 1
    return min(item.itemsize, _BYTES[variant.precision])


@dataclass(frozen=True, slots=True)
class Tensor:
    """A stored tensor; tensors of one storage are kept once."""

    storage: object
    elements: int
    itemsize: int


@dataclass(frozen=True, slots=True)
class Operation:
    """One node of a graph: values by name, and which of its inputs it reads as weights."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: Mapping[str, Reader]
    by_shape: bool = False
    """Its result depends on sizes alone, and may become a constant."""
    same_elements: bool = False
    """Its result has the elements of its first input, in another order or of another type."""


def shipped(
    tensors: Mapping[str, Tensor], operations: Iterable[Operation], inputs: Collection[str], outputs: Collection[str]
) -> tuple[Weights, ...]:
    """The weights that no optimizer can do without.

    Those are the ones that a matrix product, a convolution, an embedding or a recurrence applies to what comes from an
    input, on the way to an output that is kept. Whatever is added, scaled or normalized with can be folded into them,
    and what is computed of constants alone can be smaller than the constants.

    Args:
        tensors: Stored tensors by the names of their values.
        operations: Sorted so that what computes a value comes before what reads it.
        inputs: Names of the values that are fed.
        outputs: Names of the values that are kept.
    """
    ordered = tuple(operations)
    origin = {name: name for name in tensors}
    fed = set(inputs)
    for operation in ordered:
        if not operation.by_shape and any(name in fed for name in operation.inputs):
            fed.update(operation.outputs)
        elif operation.same_elements and operation.inputs and operation.inputs[0] in origin:
            origin |= dict.fromkeys(operation.outputs, origin[operation.inputs[0]])
    wanted = set(outputs)
    readers: dict[object, set[Reader]] = {}
    counted: dict[object, Tensor] = {}
    for operation in reversed(ordered):
        if not wanted.intersection(operation.outputs):
            continue
        wanted.update(operation.inputs)
        if not fed.intersection(operation.inputs):
            continue
        for value in operation.inputs:
            if (name := origin.get(value)) is None:
                continue
            tensor, reader = tensors[name], operation.weights.get(value)
            # Who reads it otherwise needs it as it is.
            readers.setdefault(tensor.storage, set()).add(reader or frozenset())
            if reader is not None:
                others = counted.get(tensor.storage, tensor)
                counted[tensor.storage] = min(tensor, others, key=lambda item: item.elements * item.itemsize)
    return tuple(
        Weights(tensor.elements, tensor.itemsize, frozenset(readers[storage])) for storage, tensor in counted.items()
    )
