"""Verdicts in words: numbers with their units, in as many digits as tell them from their limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from ortc.common.units import format_bytes, format_seconds

Unit = Literal["", "seconds", "bytes", "times", "nodes"]
"""Of a value and its limit; "" of numbers without one, like a cosine."""
Comparison = Literal["<=", ">="]
Bounds = tuple[float | None, float | None]
_SIGNIFICANT = ("max_abs", "batch_invariance")
"""Gates whose numbers are shown with three significant digits, whatever their size."""
_PLACES = {"metric": 4, "top1_agreement": 4}
"""Decimal places of gates that have others than five."""


def observed(value: float | None, interval: Bounds | None, limit: float | None, unit: Unit, gate: str) -> str:
    """What was seen; an interval as `[low, high]`, and of a value that is only bounded `at least`."""
    if value is None:
        low = None if interval is None else interval[0]
        return "" if low is None else f"at least {_text(unit, gate)(low)}"
    if interval is not None:
        text = _text(unit, gate)
        return f"{text(value)} [{', '.join('?' if bound is None else text(bound) for bound in interval)}]"
    if unit == "" and not _is_significant(gate):
        return value_text(value, limit, _PLACES.get(_plain(gate), 5))
    return _pair(value, limit, unit, gate)[0]


def required(comparison: Comparison, value: float | None, limit: float, unit: Unit, gate: str) -> str:
    """The promise: a comparison and a limit."""
    if unit == "times":
        text = f"{limit:g}x"
    elif unit != "" or _is_significant(gate):
        text = _pair(limit if value is None else value, limit, unit, gate)[1]
    elif _plain(gate) == "metric":
        text = f"{limit:.4f}"
    else:
        text = f"{limit:.15g}" if comparison == ">=" else f"{limit:.5g}"
    return f"{comparison} {text}"


def value_text(value: float, limit: float | None, places: int) -> str:
    """A number with as many decimal places, from `places` on, as put it on the side of the limit that it is on."""
    if limit is None:
        return f"{value:.{places}f}"
    for digits in range(places, 17):
        text = f"{value:.{digits}f}"
        if (float(text) >= limit) == (value >= limit) and (float(text) <= limit) == (value <= limit):
            return text
    return repr(value)


def _pair(value: float, limit: float | None, unit: Unit, gate: str) -> tuple[str, str]:
    """A value and its limit, told apart where they differ."""
    text = _text(unit, gate)
    if limit is None:
        return text(value), ""
    if unit == "bytes" and value != limit and text(value) == text(limit):
        return f"{value:,.0f} bytes", f"{limit:,.0f} bytes"
    return text(value), text(limit)


def _text(unit: Unit, gate: str) -> Callable[[float], str]:
    match unit:
        case "seconds":
            return format_seconds
        case "bytes":
            return lambda value: format_bytes(round(value))
        case "times":
            return "{:.2f}x".format
        case "nodes":
            return lambda value: f"{value:.0f} node" if value == 1 else f"{value:.0f} nodes"
    return "{:.3g}".format if _is_significant(gate) else f"{{:.{_PLACES.get(_plain(gate), 5)}f}}".format


def _is_significant(gate: str) -> bool:
    return _plain(gate) in _SIGNIFICANT


def _plain(gate: str) -> str:
    return gate.removeprefix("teacher ").partition(" on ")[0]
