"""The trade of size and latency against accuracy, as a plot: the same trade, the same bytes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ortc.bundle.render import template_environment
from ortc.evaluation.trade import Trade, TradePoint
from ortc.plan.precision_mix import IN

LEFT, TOP, WIDTH, HEIGHT, GAP = 92, 84, 330, 250, 100
LEAST = 1e-6
"""What is nearer to 1 is drawn here: the scale is logarithmic."""
LABEL = 12
"""Pixels between two labels."""


def gate_of(trade: Trade) -> str | None:
    """The gate that a trade is drawn by: the one whose limit the variant as a whole is furthest from; None without
    any."""

    def excess(gate: str) -> float:
        missed = [_error(point.accuracy[gate]) for point in trade.points if gate in point.accuracy]
        return max(missed, default=0.0) / _error(trade.limits[gate])

    return max(sorted(trade.limits), key=excess, default=None)


def trade_svg(trade: Trade, title: str) -> str | None:
    """Bytes, and milliseconds where they were measured, against the error of every mix; None where there is no gate.

    The vertical axis is 1 - accuracy, logarithmic, better at the bottom. Circles are hollow where the samples are those
    of calibration.
    """
    gate = gate_of(trade)
    if gate is None:
        return None
    points = [point for point in trade.points if gate in point.accuracy]
    limit = _error(trade.limits[gate])
    errors = [*(_error(point.accuracy[gate]) for point in points), limit]
    low, high = math.floor(math.log10(min(errors))), math.ceil(math.log10(max(errors)) + 1e-9)

    def across(value: float) -> float:
        return round(TOP + HEIGHT * (high - math.log10(value)) / (high - low), 1)

    panels: list[dict[str, Any]] = []
    for name, unit, value_of in _MEASURES:
        shown = [(point, value) for point in points if (value := value_of(point)) is not None]
        if shown:
            left = LEFT + len(panels) * (WIDTH + GAP)
            panel = _panel(left, [value for _, value in shown])
            panels.append(
                panel
                | {
                    "title": f"{name} against the error of {gate}",
                    "unit": unit,
                    "rows": [{"at": across(10.0**e), "text": f"1e{e}"} for e in range(low, high + 1)],
                    "limit": across(limit),
                    "limit_text": f"{gate} >= {trade.limits[gate]:g}",
                    "dots": _dots(shown, gate, panel["scale"], across, left + WIDTH),
                }
            )
    return (
        template_environment()
        .get_template("trade.svg.j2")
        .render(
            title=title,
            subtitle="1 - accuracy, lower is better; hollow: calibration samples, filled: held-out samples; "
            f"labels: nodes {IN[trade.precision]}",
            panels=panels,
            width=LEFT + len(panels) * (WIDTH + GAP),
            height=TOP + HEIGHT + 52,
        )
    )


_MEASURES: tuple[tuple[str, str, Callable[[TradePoint], float | None]], ...] = (
    ("Size", "MB", lambda point: point.bytes / 1e6),
    ("Latency", "ms, median", lambda point: point.p50_ms),
)


def _panel(left: int, values: Sequence[float]) -> dict[str, Any]:
    low, high = min(values), max(values)
    margin = (high - low) * 0.08 or abs(high) * 0.05 or 1.0
    low, high = low - margin, high + margin

    def scale(value: float) -> float:
        return round(left + WIDTH * (value - low) / (high - low), 1)

    ticks = [low + (high - low) * share for share in (0.1, 0.3, 0.5, 0.7, 0.9)]
    return {
        "left": left,
        "right": left + WIDTH,
        "top": TOP,
        "bottom": TOP + HEIGHT,
        "scale": scale,
        "columns": [{"at": scale(value), "text": f"{value:.3g}"} for value in ticks],
    }


def _dots(
    shown: Sequence[tuple[TradePoint, float]],
    gate: str,
    scale: Callable[[float], float],
    across: Callable[[float], float],
    right: int,
) -> list[dict[str, Any]]:
    dots: list[dict[str, Any]] = []
    labels: list[tuple[float, float]] = []
    for point, value in shown:
        x, y = scale(value), across(_error(point.accuracy[gate]))
        # A label that would lie on another one goes without; the tip has all of it.
        free = all(abs(x - other) > 2.5 * LABEL or abs(y - height) > LABEL for other, height in labels)
        if free:
            labels.append((x, y))
        kind = ("pass" if point.passes else "fail") + (" calibration" if point.data == "calibration" else "")
        dots.append(
            {
                "kind": kind,
                "x": x,
                "y": y,
                "text": str(point.reduced) if free else "",
                "text_x": x + 8 if x < right - 30 else x - 22,
                "text_y": y - 5,
                "tip": f"{point.name}: {gate} {point.accuracy[gate]:.5f}, {value:.4g} ({point.data} samples)",
            }
        )
    return dots


def _error(accuracy: float) -> float:
    return max(1 - accuracy, LEAST)
