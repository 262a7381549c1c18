"""How much memory a model comes to need, run after run at ever other shapes."""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .interface import Axis
from .machine import peak_rss_bytes, rss_bytes
from .model import Model

SOAK_SECONDS = 15.0
"""How long a soak may take, and one large run more."""
SOAK_WINDOW = 128
"""Shapes over which resident memory has to stay the same before a soak ends."""
SOAK_SHAPES = 2048
"""The most distinct shapes of a soak."""
SOAK_LARGE = 16
"""After so many small shapes comes a larger one."""
SOAK_FLAT_BYTES = 2**20


def soak(model: Model, seconds: float = SOAK_SECONDS) -> dict[str, Any]:
    """Run many distinct shapes in this process: runtimes keep something for every shape that they have seen.

    Small shapes come first, which cost little time, with larger ones in between and the largest one at the end. The
    soak ends when resident memory grew by at most 1 MiB (or 1 %) over the last 128 shapes, when every shape was run,
    or when the time is over.

    Args:
        model: what to run.
        seconds: that it may take.

    Returns:
        `shapes` that were run and how many there are, `seconds`, the `end` (`plateau`, `all`, `time` or `fixed`), bytes
        that resident memory grew by, and `peak_rss_bytes`: the most that any shape may need. Where memory still grew at
        the end, the growth of the last shapes is continued over all that were not run.
    """
    began = time.perf_counter()
    count = math.prod(len(_sizes_of(axis)) for axis in model.axes)
    if count <= 1:
        still = {"shapes": 0, "of": count, "seconds": 0.0, "end": "fixed", "grown_bytes": 0}
        return {**still, "peak_rss_bytes": peak_rss_bytes()}
    largest = {axis.name: _sizes_of(axis)[-1] for axis in model.axes}
    slowest = _timed_run(model, largest)
    first, resident, end = rss_bytes(), [rss_bytes()], "all"
    for sizes in _soak_shapes(model.axes, max(1.0, seconds / 20) / slowest):
        if len(resident) > SOAK_WINDOW and _growth(resident) <= max(SOAK_FLAT_BYTES, resident[-1] // 100):
            end = "plateau"
            break
        late = time.perf_counter() - began > seconds and len(resident) > SOAK_LARGE
        if late or len(resident) > SOAK_SHAPES:
            end = "time"
            break
        _timed_run(model, sizes)
        resident.append(rss_bytes())
    _timed_run(model, largest)
    # The largest shape was the first one, too.
    shapes = min(count, len(resident))
    rest = count - shapes
    more = 0
    if end == "time":
        window = min(SOAK_WINDOW, shapes - 1)
        more = rest * _growth(resident) // max(1, window)
    return {
        "shapes": shapes,
        "of": count,
        "seconds": time.perf_counter() - began,
        "end": end,
        "grown_bytes": max(0, max(resident) - first) + more,
        "peak_rss_bytes": peak_rss_bytes() + more,
    }


def _growth(resident: Sequence[int]) -> int:
    """Bytes that resident memory grew by over the last shapes, by the most of either half of them."""
    window = resident[-SOAK_WINDOW - 1 :]
    half = len(window) // 2
    return max(0, max(window[half:]) - max(window[:half])) * 2


def _timed_run(model: Model, sizes: Mapping[str, int]) -> float:
    inputs = model.example(sizes)
    began = time.perf_counter()
    model.run(inputs)
    return max(1e-6, time.perf_counter() - began)


def _sizes_of(axis: Axis) -> range:
    first = -(-axis.min // axis.multiple_of) * axis.multiple_of
    return range(first, axis.max + 1, axis.multiple_of)


def _soak_shapes(axes: Sequence[Axis], affordable: float) -> Iterator[dict[str, int]]:
    """Distinct shapes from the smallest on, with larger ones of at most this share of the largest in between."""
    sizes = [_sizes_of(axis) for axis in axes]
    whole = math.prod(values[-1] for values in sizes)
    start = (0,) * len(sizes)

    def volume(place: tuple[int, ...]) -> int:
        return math.prod(values[index] for values, index in zip(sizes, place, strict=True))

    larger = [tuple((len(values) - 1) * step // SOAK_LARGE for values in sizes) for step in range(1, SOAK_LARGE)]
    larger = [place for place in larger if volume(place) <= affordable * whole]
    queue, seen, given = [(volume(start), start)], {start}, set[tuple[int, ...]]()
    while queue:
        chosen = [heapq.heappop(queue)[1]]
        if len(given) % SOAK_LARGE == SOAK_LARGE - 1 and larger:
            chosen.append(larger.pop(0))
        for place in chosen:
            if place not in given:
                given.add(place)
                yield {axis.name: values[index] for axis, values, index in zip(axes, sizes, place, strict=True)}
        for dimension, values in enumerate(sizes):
            place = tuple(index + (at == dimension) for at, index in enumerate(chosen[0]))
            if place[dimension] < len(values) and place not in seen:
                seen.add(place)
                heapq.heappush(queue, (volume(place), place))
