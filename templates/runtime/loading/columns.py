"""Values of rows: which a column can hold, and the row that a line of a file says."""

from __future__ import annotations

import csv
import json
import math
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .interface import STRING, Tensor, text_problem

KINDS = {"U": "a string", "f": "a number", "i": "a whole number", "u": "a whole number", "b": "true or false"}
"""What a column holds, by the kind of its type."""


def parse_row(line: str, inputs: Sequence[Mapping[str, Any]]) -> Any:
    """The row that a line says.

    Args:
        line: A list or an object of JSON, or values between commas, of which strings may be in double quotes. For a
            model of one column of strings any other line is its value.
        inputs: The inputs as manifest.json has them.
    """
    kinds = [entry["dtype"] for entry in inputs for _ in range(_width(entry["shape"]))]
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    if kinds == [STRING]:
        is_row = isinstance(found, dict) and set(found) == {inputs[0]["name"]}
        return found if is_row or (isinstance(found, list) and len(found) == 1) else line
    if isinstance(found, list | dict):
        return found
    parts = line.split(",") if STRING not in kinds else next(csv.reader([line], skipinitialspace=True), [])
    # Of a row with other than the model's columns each value says what it is.
    fitting = kinds if len(kinds) == len(parts) else [""] * len(parts)
    return [part if kind == STRING else _value(part.strip()) for part, kind in zip(parts, fitting, strict=True)]


def _width(shape: Sequence[str | int]) -> int:
    """The values of an input [rows, columns] or [rows] in one row."""
    return int(shape[1]) if len(shape) > 1 else 1


def _value(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def column(tensor: Tensor, values: list[Any]) -> NDArray[Any]:
    """The values of an input in one row, [columns]."""
    kind = tensor.dtype.kind
    if kind == "U":
        return _texts(tensor, values)
    for value in values:
        plain = value.item() if isinstance(value, np.generic) else value
        if not _fits(plain, kind):
            raise InputError(f"column {tensor.name!r} holds {_shown(value)}. Send {KINDS[kind]} of {tensor.dtype}.")
    try:
        with np.errstate(over="ignore"):
            found = np.array(values).astype(tensor.dtype) if kind == "f" else np.array(values, dtype=tensor.dtype)
    except OverflowError as error:
        raise InputError(f"column {tensor.name!r} holds a number beyond {tensor.dtype}.") from error
    if kind == "f" and not np.isfinite(found).all():
        raise InputError(f"column {tensor.name!r} holds a number beyond {tensor.dtype}.")
    return found


def _texts(tensor: Tensor, values: list[Any]) -> NDArray[Any]:
    for value in values:
        if (problem := text_problem(value)) is not None:
            what = problem if isinstance(value, str) else _shown(value)
            raise InputError(f"column {tensor.name!r} holds {what}. Send a string.")
    found = np.empty(len(values), dtype=object)
    found[:] = values
    return found


def _fits(value: object, kind: str) -> bool:
    if kind == "b":
        return isinstance(value, bool)
    if isinstance(value, bool):
        return False
    if kind == "f":
        return isinstance(value, float | int) and _is_finite(value)
    return isinstance(value, int) and (kind == "i" or value >= 0)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond float64
        return False


def width(tensor: Tensor) -> int:
    """The values of an input in one row."""
    return int(tensor.shape[1] or 0) if len(tensor.shape) > 1 else 1


def expected(tensor: Tensor) -> str:
    """What an input takes of one row, in words."""
    count = width(tensor)
    return KINDS[tensor.dtype.kind] if count == 1 else f"a list of {count} {'strings' if tensor.is_text else 'numbers'}"


def _shown(value: object) -> str:
    """A value for a message; lists and objects may be deeper than `repr` goes."""
    text = reprlib.repr(value) if isinstance(value, list | tuple | Mapping) else repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"
