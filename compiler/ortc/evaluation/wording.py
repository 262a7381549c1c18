"""Verdicts in words: numbers with their units, in as many digits as tell them from their limits."""

from __future__ import annotations

from collections.abc import Callable

from ortc.common.units import format_bytes, format_seconds
from ortc.evaluation.gate_table import Bounds, Comparison, Unit, gate_of


def observed(value: float | None, interval: Bounds | None, limit: float | None, unit: Unit, gate: str) -> str:
    """What was seen; an interval as `[low, high]`, and of a value that is only bounded `at least`."""
    if value is None:
        low = None if interval is None else interval[0]
        return "" if low is None else f"at least {_text(unit, gate)(low)}"
    if interval is not None:
        text = _text(unit, gate)
        return f"{text(value)} [{', '.join('?' if bound is None else text(bound) for bound in interval)}]"
    row = gate_of(gate)
    if unit == "" and not row.is_significant:
        return value_text(value, limit, row.places)
    return _pair(value, limit, unit, gate)[0]


def required(comparison: Comparison, value: float | None, limit: float, unit: Unit, gate: str) -> str:
    """The promise: a comparison and a limit."""
    row = gate_of(gate)
    if unit == "times":
        text = f"{limit:g}x"
    elif unit != "" or row.is_significant:
        text = _pair(limit if value is None else value, limit, unit, gate)[1]
    else:
        text = format(limit, row.limit_format or (".15g" if comparison == ">=" else ".5g"))
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
    row = gate_of(gate)
    return "{:.3g}".format if row.is_significant else f"{{:.{row.places}f}}".format
