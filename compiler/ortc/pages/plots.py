"""The plots of a target: variants, latencies beside PyTorch's, and the trade-off of precision."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ortc.evaluation.details import Histogram
from ortc.evaluation.gate_table import gate_of
from ortc.evaluation.report import Decision, Numbers
from ortc.evaluation.trade import Trade
from ortc.pages.drawing import BAD, GOOD, INK, OTHER, OWN, PAPER, SOFT, annotate, drawn, label, logarithmic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LEAST_ERROR = 1e-9
"""What is nearer to the reference is drawn here: the scale is logarithmic."""
_MANY = 10
_STEPS = ((2.5, (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9)), (8, (1, 1.5, 2, 3, 5, 7)), (1000, (1, 2, 5)))
"""Ticks of a decade, up to a ratio of the ends of the axis."""


def accuracy_gate(decisions: Sequence[Decision]) -> str | None:
    """The gate that most variants were checked by; of equals the one that stands first in the table of gates."""
    counts = Counter(gate for decision in decisions for gate in decision.accuracy if gate_of(gate).is_headline)
    counts = counts or Counter(gate for decision in decisions for gate in decision.accuracy)
    return max(counts, key=lambda gate: (counts[gate], gate == "cosine", gate == "nrmse"), default=None)


def error_of(gate: str, value: float) -> float:
    """How far a value of a gate is from a perfect one; 0 is perfect."""
    return value if gate_of(gate).comparison == "<=" else 1 - value


class _Point(NamedTuple):
    """A variant in a panel: median milliseconds, and what it is drawn against."""

    time: float
    height: float
    name: str
    is_selected: bool


def variants_plot(name: str, decisions: Sequence[Decision]) -> str | None:
    """Median latency against error, and against size; None where fewer than two variants were timed."""
    timed = [decision for decision in decisions if decision.p50_ms]
    if len(timed) < 2:
        return None
    gate = accuracy_gate(timed)
    errors = [
        _point(decision, max(error_of(gate, decision.accuracy[gate]), _LEAST_ERROR))
        for decision in timed
        if gate is not None and gate in decision.accuracy
    ]
    sizes = [_point(decision, decision.bytes / 1e6) for decision in timed if decision.bytes]

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        _scatter(left, errors)
        if gate is not None and errors:
            left.set_ylabel(f"error: {label(_error_name(gate))}")
            _pad_errors(left, [point.height for point in errors])
        else:
            left.text(0.5, 0.5, "no timed variant was checked", ha="center", transform=left.transAxes)
        _scatter(right, sizes)
        right.set_ylabel("size of the model, MB")
        right.set_ylim(0, 1.2 * max((point.height for point in sizes), default=1.0))
        figure.draw_without_rendering()
        for axes, points in ((left, errors), (right, sizes)):
            annotate(axes, [(point.time, point.height, point.name) for point in points])

    return drawn(f"{name}-variants", "Variants: median latency against error, and against size", draw)


def _point(decision: Decision, height: float) -> _Point:
    return _Point(decision.p50_ms or 0.0, height, decision.variant, decision.outcome == "selected")


def _error_name(gate: str) -> str:
    return gate if gate_of(gate).comparison == "<=" else f"1 - {gate}"


def _scatter(axes: Axes, points: Sequence[_Point]) -> None:
    for point in points:
        color = GOOD if point.is_selected else SOFT
        fill = GOOD if point.is_selected else PAPER
        axes.plot([point.time], [point.height], "o", color=color, markerfacecolor=fill, markersize=7)
    axes.set_xlabel("median latency, ms")
    times = [point.time for point in points]
    if times and max(times) > _MANY * min(times):
        axes.set_xscale("log")
        logarithmic(axes.xaxis)
    elif times:
        axes.set_xlim(0, 1.35 * max(times))


def _pad_errors(axes: Axes, errors: Sequence[float]) -> None:
    low, high = math.log10(min(errors)), math.log10(max(errors))
    margin = max(1.0, (high - low) * 0.15)
    axes.set_yscale("log")
    logarithmic(axes.yaxis)
    axes.set_ylim(10 ** (low - margin), 10 ** (high + margin))


def latency_plot(name: str, found: Histogram, numbers: Numbers) -> str:
    """The latencies of the bundle and of PyTorch: the share of runs in bins of equal ratio."""
    marks = ((numbers.p50_ms.value, "p50"), (numbers.p99_ms.value, "p99"))
    return _distribution(f"{name}-latency", "Distribution of latencies of the bundle and of PyTorch", found, marks)


def pair_plot(name: str, found: Histogram) -> str:
    """The latencies of two bundles."""
    return _distribution(f"{name}-latency", "Distributions of latencies of A and of B", found, ())


def _distribution(name: str, described: str, found: Histogram, marks: Sequence[tuple[float, str]]) -> str:
    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for contender, color in zip(found.contenders, (OWN, OTHER), strict=False):
            shares = [100 * count / max(1, contender.samples) for count in contender.counts]
            axes.stairs(shares, found.edges_ms, color=color, fill=True, alpha=0.25, linewidth=0)
            axes.stairs(shares, found.edges_ms, color=color, linewidth=1.5, label=label(contender.name))
        for value, text in marks:
            axes.axvline(value, color=INK, linewidth=0.8, linestyle="--")
            axes.annotate(
                text,
                (value, 1),
                xycoords=("data", "axes fraction"),
                xytext=(3, -9),
                textcoords="offset points",
                fontsize=9,
            )
        axes.set_xscale("log")
        axes.set_xlabel("latency of one run, ms")
        axes.set_ylabel("share of runs, %")
        axes.set_ylim(bottom=0)
        _plain_ticks(axes, found.edges_ms[0], found.edges_ms[-1])
        axes.legend(loc="upper right")

    return drawn(name, described, draw)


def _plain_ticks(axes: Axes, low: float, high: float) -> None:
    """Round ticks, as many as the axis has room for, written as numbers."""
    from matplotlib.ticker import FixedLocator, NullFormatter

    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = next((steps for span, steps in _STEPS if high / low < span), (1,))
    ticks = [step * 10.0**decade for decade in decades for step in steps if low <= step * 10.0**decade <= high]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_formatter(NullFormatter())


def trade_plot(name: str, trade: Trade) -> str | None:
    """Size against error of each mix of precisions; None where no gate has a limit."""
    gate = next(iter(sorted(trade.limits)), None)
    points = [point for point in trade.points if gate is not None and gate in point.accuracy]
    if gate is None or not points:
        return None
    errors = [max(error_of(gate, point.accuracy[gate]), _LEAST_ERROR) for point in points]
    limit = max(error_of(gate, trade.limits[gate]), _LEAST_ERROR)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for point, error in zip(points, errors, strict=True):
            color = GOOD if point.passes else BAD
            filled = point.data == "held out"
            axes.plot(
                [point.bytes / 1e6], [error], "o", color=color, markerfacecolor=color if filled else PAPER, markersize=7
            )
        axes.axhline(limit, color=INK, linewidth=0.8, linestyle="--", label="limit")
        _pad_errors(axes, [*errors, limit])
        axes.set_xlabel("size of the model, MB")
        axes.set_ylabel(f"error: {label(_error_name(gate))}")
        axes.legend(loc="best")
        figure.draw_without_rendering()
        annotate(
            axes,
            [
                (point.bytes / 1e6, error, f"{point.reduced} reduced")
                for point, error in zip(points, errors, strict=True)
            ],
        )

    return drawn(f"{name}-trade", f"Trade-off of {label(trade.variant)}: size against error", draw)
