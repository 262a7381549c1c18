"""The values of a tensor in JSON: lists of numbers to an array."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.bounds import LONGEST_STRING
from serving.errors import RefusedError, bad

MOST_AXES = 32
# Integers may be sent for floating-point values; nothing else changes its kind.
KINDS: dict[str, set[type]] = {"b": {bool}, "i": {int}, "u": {int}, "f": {int, float}}
WIDE: dict[str, type] = {"b": np.bool_, "i": np.int64, "u": np.uint64, "f": np.float64}


def from_json(data: object, shape: list[int], dtype: np.dtype[Any], name: str, what: str) -> NDArray[Any]:
    """The array of a list of values, flat or nested as its shape; `name` is that of the datatype.

    numpy sees values of the right kind and number only: of strings, it would make an array as wide as the longest.

    Raises:
        RefusedError: 400, they are not that.
    """
    if not isinstance(data, list):
        raise bad(f"{what}: data is not a list of values, and there is no parameter binary_data_size")
    count = math.prod(shape)
    values, sizes = _flat(data, count, what)
    if len(values) != count or (len(sizes) != 1 and sizes != shape):
        raise bad(f"{what}: shape is {shape}, data has shape {sizes}")
    if dtype.kind == "U":
        return strings(values, shape, what)
    if set(map(type, values)) - KINDS[dtype.kind]:
        raise bad(f"{what}: data holds values that are not {name}")
    try:
        if dtype.kind == "u" and values and min(values) < 0:
            raise OverflowError
        found: NDArray[Any] = np.array(values, WIDE[dtype.kind])
    except OverflowError as error:
        raise bad(f"{what}: data holds values outside {name}") from error
    check_range(found, dtype, name, what)
    with np.errstate(over="ignore"):
        array = found.astype(dtype).reshape(shape)
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise bad(f"{what}: data holds values too large for {name}")
    return array


def strings(values: Sequence[Any], shape: list[int], what: str) -> NDArray[Any]:
    """A tensor of strings, as objects: numpy's own are all as wide as the longest.

    Raises:
        RefusedError: 400, a value is no string; 413, one is too long.
    """
    if set(map(type, values)) - {str}:
        raise bad(f"{what}: data holds values that are not strings")
    if max(map(len, values), default=0) > LONGEST_STRING:
        raise RefusedError(413, "too-large", f"{what}: a string has at most {LONGEST_STRING} characters")
    array: NDArray[Any] = np.empty(len(values), dtype=object)
    array[:] = values
    return array.reshape(shape)


def _flat(data: list[Any], count: int, what: str) -> tuple[list[Any], list[int]]:
    """The innermost values and the sizes of the lists; of more than `count` values no list is made."""
    values, sizes = data, [len(data)]
    while values and type(values[0]) is list:
        lengths = set(map(len, values)) if set(map(type, values)) == {list} else set()
        if len(lengths) != 1 or len(sizes) > MOST_AXES:
            raise bad(f"{what}: data is neither flat nor a regular nesting of lists")
        sizes.append(lengths.pop())
        if len(values) * sizes[-1] > count:
            raise bad(f"{what}: data has shape {sizes} or more, which is more than its shape says")
        values = list(chain.from_iterable(values))
    if list in set(map(type, values)):
        raise bad(f"{what}: data is neither flat nor a regular nesting of lists")
    return values, sizes


def check_range(found: NDArray[Any], dtype: np.dtype[Any], name: str, what: str) -> None:
    """Raise RefusedError when there are whole numbers that the dtype does not have."""
    if dtype.kind in "iu" and found.size:
        limits = np.iinfo(dtype)
        if int(found.min()) < limits.min or int(found.max()) > limits.max:
            raise bad(f"{what}: data holds values outside {name}: {limits.min} to {limits.max}")
