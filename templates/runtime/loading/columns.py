"""Values of rows: which a column can hold, and the row that a line of a file says."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .interface import Tensor

KINDS = {"f": "a number", "i": "a whole number", "u": "a whole number", "b": "true or false"}
"""What a column holds, by the kind of its type."""


def parse_row(line: str) -> Any:
    """The row that a line says: a list or an object of JSON, or values between commas."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, list | dict) else [_value(part.strip()) for part in line.split(",")]


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
    return int(tensor.shape[1] or 0)


def expected(tensor: Tensor) -> str:
    """What an input takes of one row, in words."""
    count = width(tensor)
    return KINDS[tensor.dtype.kind] if count == 1 else f"a list of {count} numbers"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"
