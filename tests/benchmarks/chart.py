"""Bar charts as SVG: the same data, the same bytes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jinja2

ROW, BAR, LABELS, PANEL, GAP, TOP = 16, 11, 190, 230, 18, 62
VALUE = 62
"""Pixels kept free for the number after a bar."""


@dataclass(frozen=True)
class Bar:
    """One bar, its text and its interval; `value` is None where there is nothing to show."""

    label: str
    value: float | None
    text: str
    kind: Literal["ours", "fp32", "reduced"]
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Panel:
    """Bars on one scale. All panels of a chart have the same labels."""

    title: str
    bars: tuple[Bar, ...]


def chart(title: str, subtitle: str, panels: tuple[Panel, ...], columns: int) -> str:
    """An SVG of panels in a grid; labels stand left of the first column."""
    placed = []
    rows = -(-len(panels) // columns)
    height_of_panel = 20 + ROW * len(panels[0].bars)
    for index, panel in enumerate(panels):
        x = LABELS + (index % columns) * (PANEL + GAP)
        y = TOP + (index // columns) * (height_of_panel + GAP)
        ends = [end for bar in panel.bars for end in (bar.value, *(bar.interval or ())) if end is not None]
        scale = (PANEL - VALUE) / max(ends, default=1.0)
        bars = []
        for number, bar in enumerate(panel.bars):
            top = y + 10 + ROW * number
            length = (bar.value or 0.0) * scale
            ends_at = max([length, *(end * scale for end in bar.interval or ())])
            bars.append(
                {
                    "label": bar.label if index % columns == 0 else "",
                    "label_x": x - 8,
                    "kind": bar.kind,
                    "y": top,
                    "height": BAR,
                    "width": f"{length:.1f}",
                    "middle": top + BAR / 2,
                    "interval": bar.interval and [f"{x + end * scale:.1f}" for end in bar.interval],
                    "text": bar.text,
                    "text_x": f"{x + ends_at + 5:.1f}",
                    "text_y": top + BAR - 1,
                }
            )
        bottom = y + 10 + ROW * len(panel.bars)
        placed.append({"title": panel.title, "x": x, "y": y, "top": y + 6, "bottom": bottom, "bars": bars})
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("chart.svg.j2").render(
        title=title,
        subtitle=subtitle,
        panels=placed,
        width=LABELS + columns * (PANEL + GAP),
        height=TOP + rows * (height_of_panel + GAP),
    )
