"""How far the outputs are off at each case, as a heat map: by case and output, or by axis."""

from __future__ import annotations

import math
import re
from typing import Any

from ortc.evaluation.details import CaseDifference
from ortc.pages.shown import Shown

HEATS = 7
"""Colours of a cell, from 0 to one less; a cell that cannot be compared has the next."""
MOST_ROWS = 60
_COOL, _HOT = 1e-7, 1e-1
"""Errors of the first colour and of the last."""
_AXES = re.compile(r"([\w-]+)=(\d+), ([\w-]+)=(\d+)")
"""A case of two axes, as the shape matrix names it."""
Cell = dict[str, Any]


def cases(shown: Shown) -> dict[str, Any] | None:
    """Fields of the heat map; None where no case was compared."""
    found = shown.target.cases
    if not found.listed:
        return None
    outputs = list(dict.fromkeys(entry.output for entry in found.listed))
    cells: dict[str, dict[str, Cell]] = {}
    for index, entry in enumerate(found.listed):
        cells.setdefault(entry.case, {})[entry.output] = _cell(shown, index, entry)
    grid = _grid(cells, outputs)
    rows = [
        {"case": case, "cells": [by_output.get(output) for output in outputs]}
        for case, by_output in cells.items()
        if grid is None or _AXES.fullmatch(case) is None
    ]
    return {
        "outputs": outputs,
        "rows": rows[:MOST_ROWS],
        "more": max(0, len(rows) - MOST_ROWS),
        "left_out": shown.facts.known(f"{shown.at}/cases/left_out", "count") if found.left_out else None,
        "grid": grid,
    }


def heat(error: float | None) -> int | None:
    """The colour of an error: 0 up to a ten-millionth, the last from a tenth on; None where it is unknown."""
    if error is None:
        return None
    share = (math.log10(max(error, _COOL)) - math.log10(_COOL)) / (math.log10(_HOT) - math.log10(_COOL))
    return min(HEATS - 1, round(share * (HEATS - 1)))


def _cell(shown: Shown, index: int, entry: CaseDifference) -> Cell:
    """One comparison: its similarity, or its greatest difference where there is none."""
    at = f"{shown.at}/cases/listed/{index}"
    measure = next((name for name in ("cosine", "top1") if getattr(entry, name) is not None), "max_abs")
    value = getattr(entry, measure)
    error = value if value is None or measure == "max_abs" else 1 - value
    return {
        "measure": measure,
        "fact": shown.facts.number(f"{at}/{measure}", "error" if measure == "max_abs" else "accuracy"),
        "largest": shown.facts.number(f"{at}/max_abs", "error"),
        "heat": HEATS if entry.problem else heat(error),
        "problem": entry.problem,
    }


def _grid(cells: dict[str, dict[str, Cell]], outputs: list[str]) -> dict[str, Any] | None:
    """A shape matrix of two axes and one output as a grid; None for any other."""
    places = {case: match for case in cells if (match := _AXES.fullmatch(case)) is not None}
    names = {(match[1], match[3]) for match in places.values()}
    if len(outputs) != 1 or len(names) != 1:
        return None
    (down, across), *_ = names
    by_place = {(int(match[2]), int(match[4])): cells[case][outputs[0]] for case, match in places.items()}
    columns = sorted({column for _, column in by_place})
    lines = sorted({row for row, _ in by_place})
    if len(columns) < 2 or len(lines) < 2:
        return None
    rows = [{"size": line, "cells": [by_place.get((line, column)) for column in columns]} for line in lines]
    return {"down": down, "across": across, "columns": columns, "rows": rows}
