"""Durations, sizes and shares as people write them in a spec: `8ms`, `1.5s`, `50MB`, `1GiB`, `10%`."""

import re
from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema

_NUMBER = re.compile(r"(?P<value>\d+(?:\.\d+)?)\s*(?P<unit>[A-Za-zµ]+)")
_SHARE = re.compile(r"(?P<value>\d+(?:\.\d+)?)\s*%", re.ASCII)
_SECONDS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0}
_MOST = 2.0**63
_BYTES = {
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
}


class QuantityError(ValueError):
    """A duration or a size that is not written as one."""


def parse_duration(value: object) -> float:
    """Seconds of a duration like `8ms`.

    Raises:
        QuantityError: not a string of a positive number and one of the units us, ms, s, min.
    """
    return _parse(value, _SECONDS, "duration", "8ms")


def parse_size(value: object) -> int:
    """Bytes of a size like `50MB` (decimal units) or `48MiB` (binary units).

    Raises:
        QuantityError: not a string of a positive number and one of the units B, kB, MB, GB, KiB, MiB, GiB.
    """
    return round(_parse(value, _BYTES, "size", "50MB"))


def parse_share(value: object) -> float:
    """A share like `5%`, between 0 and 1.

    Raises:
        QuantityError: not a string of a number from 0 to below 100 and `%`.
    """
    match = _SHARE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise QuantityError("expected a share in percent, like `10%`")
    if (share := float(match["value"]) / 100) >= 1:
        raise QuantityError("a share must be less than 100%")
    return share


def _parse(value: object, units: dict[str, float] | dict[str, int], kind: str, example: str) -> float:
    known = ", ".join(unit for unit in units if unit not in {"µs", "KB"})
    if not isinstance(value, str) or (match := _NUMBER.fullmatch(value.strip())) is None:
        raise QuantityError(f"expected a {kind} with a unit, like `{example}`; the units are {known}")
    if match["unit"] not in units:
        raise QuantityError(f"unknown unit `{match['unit']}` in this {kind}; the units are {known}")
    result = float(match["value"]) * units[match["unit"]]
    if result <= 0:
        raise QuantityError(f"a {kind} must be greater than zero")
    if result >= _MOST:
        raise QuantityError(f"this {kind} is beyond anything that could be measured")
    return result


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    WithJsonSchema({"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*(us|µs|ms|s|min)\s*$", "examples": ["8ms"]}),
]
"""Seconds, written with a unit."""

Size = Annotated[
    int,
    BeforeValidator(parse_size),
    WithJsonSchema(
        {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*(B|[kK]B|MB|GB|KiB|MiB|GiB)\s*$", "examples": ["50MB"]}
    ),
]
"""Bytes, written with a unit."""


Share = Annotated[
    float,
    BeforeValidator(parse_share),
    WithJsonSchema({"type": "string", "pattern": r"^\s*\d{1,2}(\.\d+)?\s*%\s*$", "examples": ["10%"]}),
]
"""A share between 0 and 1, written in percent."""


def format_bytes(count: int) -> str:
    """A size for people, in decimal units, as download pages state them; of any number that a document may state."""
    if count >= _MOST:
        return "more than 9 EB"
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} B"


def format_seconds(seconds: float) -> str:
    """A duration for people, with three significant digits."""
    for unit, factor in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= factor:
            return f"{_three_digits(seconds / factor)} {unit}"
    return f"{_three_digits(seconds / 1e-6)} µs"


def _three_digits(value: float) -> str:
    # `g` alone writes a thousand as 1e+03.
    return f"{value:.0f}" if value >= 99.95 else f"{value:.3g}"


def count(number: int, noun: str) -> str:
    """`1 change`, `2 changes`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
