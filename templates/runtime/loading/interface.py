"""What a model takes and gives: its inputs, its outputs, and the bounds of their dynamic axes."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import FormatError, InputError, did_you_mean
from .numerics import NanWatch

STRING = "string"  # the dtype of texts, in manifest.json and in messages


@dataclass(frozen=True)
class Axis:
    """A dynamic axis: every `multiple_of` from `min` to `max` was checked, or lies between sizes that were.

    With `terms`, axes and their factors, its size is always the sum of those and of `constant`.
    """

    name: str
    min: int
    typical: int
    max: int
    multiple_of: int = 1
    terms: tuple[tuple[str, int], ...] = ()
    constant: int = 0

    @property
    def sum(self) -> str:
        """The sum of other axes that its size always is, in words; empty for one that follows from no other."""
        parts = [name if factor == 1 else f"{factor} * {name}" for name, factor in self.terms]
        return " + ".join([*parts, *([str(self.constant)] if self.terms and self.constant else [])])

    def follows(self, sizes: Mapping[str, int]) -> int:
        """The size that follows from those of other axes."""
        return self.constant + sum(factor * sizes[name] for name, factor in self.terms)


@dataclass(frozen=True)
class Tensor:
    """An input or an output; `shape` holds axis names, fixed sizes, and for outputs None where unknown.

    `end` is a token that every row of token ids has once, before its padding. `labels` are the names of classes: of the
    last dimension of scores, or of the numbers in a tensor of whole numbers.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[str | int | None, ...]
    range: tuple[float, float] | None = None
    labels: tuple[str, ...] | None = None
    end: int | None = None

    @property
    def type(self) -> str:
        """The dtype as manifest.json has it."""
        return STRING if self.is_text else str(self.dtype)

    @property
    def is_text(self) -> bool:
        """Whether it holds strings."""
        return self.dtype.kind == "U"

    def named(self, array: NDArray[Any]) -> list[str] | None:
        """The names of the classes whose numbers an answer holds, in its order; None where it holds none."""
        if self.labels is None or array.dtype.kind not in "iu":
            return None
        return [self.labels[number] if 0 <= number < len(self.labels) else "" for number in array.ravel().tolist()]


@dataclass(frozen=True)
class Interface:
    """Inputs, outputs and dynamic axes, each in the order of manifest.json."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    axes: tuple[Axis, ...]

    @cached_property
    def bounds(self) -> dict[str, Axis]:
        """The dynamic axes by name."""
        return {axis.name: axis for axis in self.axes}

    def check(self, inputs: Mapping[str, NDArray[Any]], nan: NanWatch) -> None:
        """Raise InputError unless `inputs` holds exactly what the model takes; see `Model.check`."""
        if not isinstance(inputs, Mapping):
            raise InputError(f"inputs is a {type(inputs).__name__}. Expected a dict of name to numpy array.")
        names = [tensor.name for tensor in self.inputs]
        for name in inputs:
            if name not in names:
                hint = did_you_mean(str(name), names)
                raise InputError(f"input {name!r} is unknown. Expected {', '.join(names)}.{hint}")
        sizes: dict[str, tuple[int, str]] = {}
        for tensor in self.inputs:
            if tensor.name not in inputs:
                raise InputError(f"input {tensor.name!r} is missing. Send {tensor.type} of shape {_shape(tensor)}.")
            array = inputs[tensor.name]
            _check_type(tensor, array)
            self._check_shape(tensor, array, sizes)
            _check_values(tensor, array, nan)
        self._check_sums({name: size for name, (size, _) in sizes.items()})

    def _check_sums(self, sizes: Mapping[str, int]) -> None:
        """Raise InputError where the size of an axis is not the sum of others that it has to be."""
        for axis in self.axes:
            if axis.terms and axis.name in sizes and all(name in sizes for name, _ in axis.terms):
                wanted = axis.follows(sizes)
                if sizes[axis.name] != wanted:
                    raise InputError(f"{axis.name} is {sizes[axis.name]}. Send {axis.sum}, which is {wanted}.")

    def _check_shape(self, tensor: Tensor, array: NDArray[Any], sizes: dict[str, tuple[int, str]]) -> None:
        name = f"input {tensor.name!r}"
        if array.ndim != len(tensor.shape):
            raise InputError(f"{name} has shape {list(array.shape)}. Send {len(tensor.shape)} axes: {_shape(tensor)}.")
        for index, (size, wanted) in enumerate(zip(array.shape, tensor.shape, strict=True)):
            if isinstance(wanted, str):
                axis = self.bounds[wanted]
                if not axis.min <= size <= axis.max:
                    raise InputError(
                        f"{name} has shape {list(array.shape)}: axis {index} ({wanted}) is {size}. "
                        f"Send {axis.min} to {axis.max}."
                    )
                if size % axis.multiple_of:
                    raise InputError(
                        f"{name} has shape {list(array.shape)}: axis {index} ({wanted}) is {size}. "
                        f"Send a multiple of {axis.multiple_of}."
                    )
                known, other = sizes.setdefault(wanted, (size, tensor.name))
                if known != size:
                    raise InputError(
                        f"{name} has {wanted} {size}, input {other!r} has {wanted} {known}. Send the same in both."
                    )
            elif size != wanted:
                raise InputError(f"{name} has shape {list(array.shape)}: axis {index} is {size}. Send {wanted}.")

    def output_names(self, outputs: Sequence[str] | None = None) -> list[str]:
        """The outputs asked for, or all of them; raises InputError for one that the model does not have."""
        known = [tensor.name for tensor in self.outputs]
        if outputs is None:
            return known
        for name in outputs:
            if isinstance(outputs, str) or name not in known:
                hint = did_you_mean(str(name), known)
                raise InputError(f"outputs={outputs!r}. Expected a list out of {', '.join(known)}.{hint}")
        if not outputs:
            raise InputError(f"outputs is empty. Name some of {', '.join(known)}, or give None for all.")
        return list(outputs)

    def example(self, sizes: Mapping[str, int], golden: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Inputs of the given axis sizes (typical ones where not given); see `Model.example`.

        Args:
            sizes: By the names of axes.
            golden: Arrays to repeat or to cut to size, by the names of inputs.

        Raises:
            InputError: An axis is unknown.
        """
        for name in sizes:
            if name not in self.bounds:
                hint = did_you_mean(name, self.bounds)
                raise InputError(f"axis {name!r} is unknown. Expected {', '.join(self.bounds) or 'none'}.{hint}")
        every = {axis.name: axis.typical for axis in self.axes} | dict(sizes)
        every |= {axis.name: axis.follows(every) for axis in self.axes if axis.terms}
        generator: np.random.Generator | None = None
        made: dict[str, NDArray[Any]] = {}
        for tensor in self.inputs:
            shape = tuple(every[d] if isinstance(d, str) else int(d or 0) for d in tensor.shape)
            array = golden.get(tensor.name)
            if array is None or array.ndim != len(shape) or not array.size:
                array = np.full(shape, "") if tensor.is_text else None
            if array is None:
                low, high = tensor.range or ((1, 1) if tensor.dtype.kind != "f" else (-1.0, 1.0))
                generator = generator or np.random.default_rng(0)  # an import of its own, seldom needed
                array = generator.uniform(low, high, shape).astype(tensor.dtype)
            for axis, size in enumerate(shape):
                array = array.take(np.arange(size) % max(1, array.shape[axis]), axis=axis)
            if tensor.end is not None and array.ndim == 2 and array.size:
                low, high = tensor.range or (0, 1)
                array = np.where(array == tensor.end, low if tensor.end != low else high, array).astype(tensor.dtype)
                array[:, -1] = tensor.end
            made[tensor.name] = array
        return made

    def check_graph(self, session: Any) -> None:
        """Raise FormatError unless an InferenceSession has the inputs and the outputs that manifest.json lists."""
        for what, listed, infos in (
            ("inputs", self.inputs, session.get_inputs()),
            ("outputs", self.outputs, session.get_outputs()),
        ):
            names, found = [t.name for t in listed], [i.name for i in infos]
            if sorted(names) != sorted(found):
                raise FormatError(f"manifest.json lists the {what} {names}, the model has {found}. Build it again.")


def interface_of(manifest: Mapping[str, Any]) -> Interface:
    """The interface as manifest.json has it; KeyError, TypeError or ValueError where it is malformed."""
    axes = tuple(_axis(entry) for entry in manifest["axes"])
    inputs, outputs = (tuple(_tensor(entry) for entry in manifest[key]) for key in ("inputs", "outputs"))
    names = {axis.name for axis in axes}
    for name in (name for axis in axes for name, _ in axis.terms):
        if name not in names:
            raise ValueError(f"the size of an axis follows from {name!r}, which is no axis")
    for entry in (entry for tensor in inputs for entry in tensor.shape):
        if entry not in names and (not isinstance(entry, int) or entry < 0):
            raise ValueError(f"an input's shape holds {entry!r}, which is neither an axis nor a size")
    return Interface(inputs, outputs, axes)


def _axis(entry: Mapping[str, Any]) -> Axis:
    equals = entry.get("equals") or {"terms": ()}
    return Axis(
        str(entry["name"]),
        int(entry["min"]),
        int(entry["typical"]),
        int(entry["max"]),
        int(entry.get("multiple_of", 1)),
        tuple((str(name), int(factor)) for name, factor in equals["terms"]),
        int(equals.get("constant", 0)),
    )


def dtype_of(name: str) -> np.dtype[Any]:
    """numpy's type for a dtype of manifest.json; strings have any width."""
    return np.dtype(str if name == STRING else name)


def _tensor(entry: Mapping[str, Any]) -> Tensor:
    bounds = entry.get("range")
    if bounds is not None:
        low, high = bounds
        bounds = (low, high)
    labels = entry.get("labels")
    if labels is not None:
        labels = tuple(str(label) for label in labels)
    end = entry.get("end")
    shape = tuple(entry["shape"])
    return Tensor(
        str(entry["name"]), dtype_of(str(entry["dtype"])), shape, bounds, labels, None if end is None else int(end)
    )


def _check_type(tensor: Tensor, array: object) -> None:
    name, dtype = f"input {tensor.name!r}", tensor.dtype
    if not isinstance(array, np.ndarray) or _is_masked(array):
        raise InputError(f"{name} is a {type(array).__name__}. Send numpy.array(value, dtype={_spelled(tensor)}).")
    if tensor.is_text:
        _check_texts(name, array)
    elif array.dtype != dtype:
        raise InputError(
            f"{name} is {array.dtype}, the model takes {dtype}. Send array.astype(numpy.{dtype}) if that keeps the "
            "values."
        )


def _spelled(tensor: Tensor) -> str:
    return "str" if tensor.is_text else f"numpy.{tensor.dtype}"


def _check_texts(name: str, array: NDArray[Any]) -> None:
    """Raise InputError unless an array holds str, as numpy's own or as objects, that a string of ONNX can hold."""
    if array.dtype.kind not in "UO":
        raise InputError(f"{name} is {array.dtype}, the model takes strings. Send numpy.array(value, dtype=str).")
    for value in array.ravel().tolist():
        if (problem := text_problem(value)) is not None:
            raise InputError(f"{name} holds {problem}. Send Unicode text.")


def text_problem(value: object) -> str | None:
    """Why a value is no string of ONNX, in words; None for one that is."""
    if not isinstance(value, str):
        return f"a value that is a {type(value).__name__} and no str"
    if "\0" in value:
        return "a string with a NUL character"
    try:
        value.encode()
    except UnicodeEncodeError:
        return "a string with half of a surrogate pair"
    return None


def _check_values(tensor: Tensor, array: NDArray[Any], nan: NanWatch) -> None:
    name = f"input {tensor.name!r}"
    if tensor.range is not None and array.size:
        (low, high), least, most = tensor.range, array.min(), array.max()
        if not (low <= least and most <= high):  # written so that a NaN fails
            raise InputError(f"{name} holds values from {least} to {most}. Send values from {low} to {high}.")
    if nan.finds(tensor.name, array):
        raise InputError(f"{name} holds NaN. Send numbers.")


def _is_masked(array: NDArray[Any]) -> bool:
    # Where nobody imported numpy.ma nothing is masked; to ask for the class would import it, at every start.
    masked = sys.modules.get("numpy.ma")
    return masked is not None and isinstance(array, masked.MaskedArray)


def _shape(tensor: Tensor) -> str:
    return f"[{', '.join(str(entry) for entry in tensor.shape)}]"
