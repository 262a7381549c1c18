"""Which shapes a soak runs, when it ends, and the memory that it says is needed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from tests.support import bundles

loader = bundles.runtime_module("loader")
soak_module = bundles.runtime_module("loading.soak")
MIB = 2**20


class Runtime:
    """A model whose process grows with the distinct shapes that it has seen, up to a bound."""

    def __init__(self, keeps: int, bound: int | None, *axes: Any) -> None:
        self.axes, self.keeps, self.bound = axes, keeps, bound
        self.seen: dict[tuple[int, ...], None] = {}

    def example(self, sizes: Mapping[str, int]) -> Mapping[str, int]:
        return sizes

    def run(self, sizes: Mapping[str, int]) -> None:
        self.seen[tuple(sizes.values())] = None

    def rss(self) -> int:
        count = len(self.seen) if self.bound is None else min(len(self.seen), self.bound)
        return 100 * MIB + count * self.keeps


def axis(name: str, least: int, most: int, multiple: int = 1) -> Any:
    return loader.Axis(name, least, least, most, multiple)


@pytest.fixture
def soaked(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    def run(runtime: Runtime, seconds: float = 3600.0) -> dict[str, Any]:
        monkeypatch.setattr(soak_module, "rss_bytes", runtime.rss)
        monkeypatch.setattr(soak_module, "peak_rss_bytes", runtime.rss)
        found: dict[str, Any] = soak_module.soak(runtime, seconds)
        return found

    return run


def test_a_cache_with_a_bound_is_filled_before_the_soak_ends(soaked: Callable[..., dict[str, Any]]) -> None:
    runtime = Runtime(MIB // 4, 300, axis("batch", 1, 16), axis("sequence", 1, 128))
    found = soaked(runtime)
    assert found["end"] == "plateau"
    assert 300 < found["shapes"] < 300 + 2 * soak_module.SOAK_WINDOW
    assert found["peak_rss_bytes"] == 100 * MIB + 300 * MIB // 4
    assert found["grown_bytes"] == 299 * MIB // 4


def test_growth_without_a_bound_is_continued_over_all_shapes(soaked: Callable[..., dict[str, Any]]) -> None:
    runtime = Runtime(MIB // 4, None, axis("batch", 1, 64), axis("sequence", 1, 512))
    found = soaked(runtime)
    assert (found["end"], found["of"]) == ("time", 64 * 512)
    assert found["shapes"] == soak_module.SOAK_SHAPES + 1
    needed = 100 * MIB + 64 * 512 * MIB // 4
    assert abs(found["peak_rss_bytes"] - needed) < needed / 50
    # Where the time is short, too.
    hurried = soaked(Runtime(MIB // 4, None, axis("batch", 1, 64), axis("sequence", 1, 512)), 0.0)
    assert hurried["end"] == "time"


def test_every_shape_of_few_is_run_once(soaked: Callable[..., dict[str, Any]]) -> None:
    runtime = Runtime(MIB, None, axis("batch", 1, 4), axis("height", 32, 128, 32))
    found = soaked(runtime)
    assert found["end"] == "all"
    assert set(runtime.seen) == set(itertools.product(range(1, 5), (32, 64, 96, 128)))
    assert found["peak_rss_bytes"] == 116 * MIB


@pytest.mark.parametrize("axes", [(), (axis("batch", 4, 4),)])
def test_a_fixed_shape_needs_none(soaked: Callable[..., dict[str, Any]], axes: tuple[Any, ...]) -> None:
    runtime = Runtime(MIB, None, *axes)
    assert soaked(runtime)["end"] == "fixed"
    assert runtime.seen == {}


def test_small_shapes_come_first_with_larger_ones_in_between() -> None:
    axes = [axis("batch", 1, 16), axis("sequence", 8, 512, 8)]
    shapes = [tuple(sizes.values()) for sizes in soak_module._soak_shapes(axes, 1.0)]
    volumes = [batch * sequence for batch, sequence in shapes]
    assert set(shapes) == set(itertools.product(range(1, 17), range(8, 513, 8)))
    assert volumes[:5] == sorted(volumes[:5])
    assert len(shapes) == len(set(shapes))
    assert max(volumes[:300]) > 5 * sorted(volumes[:300])[280]
    # What would take too long is left for the end.
    cheap = itertools.islice(soak_module._soak_shapes(axes, 0.01), 100)
    assert max(sizes["batch"] * sizes["sequence"] for sizes in cheap) < 300
