"""The model cache on devices: budgets of host and device memory, and what makes room in them."""

from __future__ import annotations

import json
import math
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.support import bundles
from tests.support.cached_models import SECONDS, Store, cache_module, catalogue, residents

models = bundles.runtime_module("serving.models")


def on_device(store: Store, sizes: dict[str, int], **budgets: int) -> cache_module.ModelCache:
    """Models that take so much of a device, in the order that they are loaded in; 10 bytes of the host each."""
    cache = cache_module.ModelCache(store, **budgets)
    cache.learn([catalogue.Known(name, "1", Path("/nowhere"), 1, size) for name, size in sizes.items()])
    return cache


def ready(cache: cache_module.ModelCache) -> list[str]:
    return [state.name for state in cache.states() if state.state == "READY"]


def test_models_that_do_not_fit_on_the_device_together_take_turns() -> None:
    store = Store()
    cache = on_device(store, {"a": 40, "b": 40, "c": 40}, device_budget=100)
    for name, expected in (("a", "a"), ("b", "ab"), ("c", "bc"), ("b", "bc"), ("a", "ab"), ("c", "ac")):
        if (lease := cache.lease(name)) is None:
            cache.load(name)
            lease = cache.lease(name)
        cache.release(lease)
        assert ready(cache) == list(expected)
    assert {state.device_bytes for state in cache.states() if state.state == "READY"} == {40}


def test_both_budgets_hold_and_what_makes_no_room_stays() -> None:
    """`cpu` was used first, and holds nothing of the device: evicting it would not help."""
    store = Store()
    cache = on_device(store, {"cpu": 0, "a": 60, "b": 60, "c": 30}, budget=30, device_budget=100)
    for name in ("cpu", "a", "b"):
        cache.load(name)
    assert ready(cache) == ["b", "cpu"]
    cache.load("c")
    assert ready(cache) == ["b", "c", "cpu"]
    # Now the host is short, too, and its least recently used one goes.
    cache.load("a")
    assert ready(cache) == ["a", "c"]
    assert sum(state.bytes for state in cache.states()) <= 30
    assert sum(state.device_bytes for state in cache.states()) <= 100


@pytest.mark.parametrize(
    ("need", "budgets", "message"),
    [
        (101, {"device_budget": 100}, "a 1 needs 101 bytes of device memory, .* take 100. Raise --device-memory-bytes"),
        (5, {"device_budget": 100, "budget": 9}, "a 1 took 10 bytes of memory, .* 9. Raise --model-memory-bytes"),
    ],
)
def test_a_model_above_a_budget_alone_is_refused_before_another_makes_room(
    need: int, budgets: dict[str, int], message: str
) -> None:
    store = Store({"small": 2})
    cache = on_device(store, {"small": 20, "a": need}, **budgets)
    cache.load("small")
    with pytest.raises(residents.BudgetError, match=message):
        cache.load("a")
    assert ready(cache) == ["small"]


def test_a_device_is_not_promised_twice() -> None:
    """A model that was evicted holds its memory until its last request has ended, and the next waits for that."""
    store = Store()
    cache = on_device(store, {"a": 60, "b": 60}, device_budget=100)
    cache.load("a")
    lease = cache.lease("a")
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(cache.load, "b")
        while ready(cache):
            time.sleep(0.001)
        assert [thing.name for thing in store.opened] == ["a"]
        assert not loading.done()
        cache.release(lease)
        loading.result(SECONDS)
    assert (store.opened[0].closed, ready(cache)) == (1, ["b"])


@pytest.mark.parametrize("ends", [True, False])
def test_what_is_on_its_way_out_is_counted_as_room(ends: bool) -> None:
    """`a` alone makes room, once its request has ended; that the others wait for it too is no reason to evict them."""
    store = Store()
    cache = on_device(
        store, {"a": 60, "b": 20, "c": 20, "d": 60}, device_budget=100, patience=SECONDS if ends else 0.01
    )
    for name in "abc":
        cache.load(name)
    (lease,) = [cache._residents.loaded["a", "1"]]  # as `lease` gives it, which would make it the one used last
    lease.users += 1
    if ends:
        with ThreadPoolExecutor(1) as pool:
            loading = pool.submit(cache.load, "d")
            while "a" in ready(cache):
                time.sleep(0.001)
            cache.release(lease)
            loading.result(SECONDS)
        assert ready(cache) == ["b", "c", "d"]
    else:
        with pytest.raises(residents.BudgetError, match="Try again"):
            cache.load("d")
        cache.release(lease)
        assert ready(cache) == ["b", "c"]


def test_a_model_that_fails_to_close_leaves_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store()
    cache = on_device(store, {"a": 60, "b": 60}, device_budget=100, patience=0.01)
    cache.load("a")

    def close() -> None:
        raise RuntimeError("the device is gone")

    monkeypatch.setattr(store.opened[0], "close", close)
    with pytest.raises(RuntimeError, match="the device is gone"):
        cache.unload("a")
    cache.load("b")
    assert ready(cache) == ["b"]


@pytest.mark.parametrize(("budget", "taken"), [(100, 1), (None, 500), (500, 500)])
def test_a_limit_above_the_budget_is_no_need(budget: int | None, taken: int) -> None:
    store = Store()
    cache = cache_module.ModelCache(store, device_budget=budget)
    cache.learn([catalogue.Known("a", "1", Path("/nowhere"), 1, 500, True)])
    cache.load("a")
    assert cache.states()[0].device_bytes == taken


def test_a_device_that_is_not_left_is_not_waited_for_without_end() -> None:
    store = Store()
    cache = on_device(store, {"a": 60, "b": 60}, device_budget=100, patience=0.01)
    cache.load("a")
    lease = cache.lease("a")
    with pytest.raises(residents.BudgetError, match=r"still answer requests on the device\. Try again"):
        cache.load("b")
    cache.release(lease)
    cache.load("b")
    assert ready(cache) == ["b"]


CUDA = {"name": "CUDAExecutionProvider", "options": {}}


@pytest.mark.parametrize(
    ("peaks", "providers", "need"),
    [
        # The most that was measured, on whatever machine; one without a GPU says nothing.
        ([700, None, 900], [CUDA], (900, False)),
        ([0], [], (0, False)),
        ([], [CUDA], (1234, False)),
        ([None], [{**CUDA, "options": {"gpu_mem_limit": "5000"}}], (5000, True)),
        ([None], [{**CUDA, "options": {"gpu_mem_limit": str(2**64 - 1)}}], (1234, False)),
        ([], [], (0, False)),
        # What no measurement says.
        ([-5, 0, math.inf, math.nan, "900", 10**400], [CUDA], (1234, False)),
        ([-5, 700.0], [CUDA], (700, False)),
    ],
)
def test_what_a_bundle_takes_of_a_device(
    tmp_path: Path, peaks: list[object], providers: list[dict[str, object]], need: tuple[int, bool]
) -> None:
    root = bundles.linear().write(tmp_path / "bundle")
    bundles.edit_json(root / "session.json", providers=[*providers, {"name": "CPUExecutionProvider", "options": {}}])
    (root / "measurements").mkdir()
    for index, peak in enumerate(peaks):
        text = json.dumps({"numbers": {"peak_device_bytes": peak}}).replace("Infinity", "1e999")
        (root / f"measurements/{index}.json").write_text(text)
    bundles.write_json(root / "measurements/untimed.json", {"numbers": None})
    (root / "measurements/torn.json").write_text("{")
    (root / "measurements/deep.json").write_text("[" * 100_000)
    assert catalogue.device_need(root, 1234) == need


@pytest.mark.parametrize(("left", "taken"), [(0, 100), (40, 60), (None, 5)])
def test_what_a_model_took_is_by_how_much_less_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: int | None, taken: int
) -> None:
    """A device that is full afterwards has 0 bytes left, which is not to say that nobody knows."""
    root = bundles.linear().write(tmp_path / "bundle")
    told = iter([100, left])
    monkeypatch.setattr(models, "gpu_of", lambda _: 0)
    monkeypatch.setattr(models.nvml, "free_bytes", lambda _: next(told))
    opener = models.Opener(bundles.runtime_module("serving.metrics").Metrics(), models.Settings())
    served = opener(catalogue.Known("linear", "1", root, 1, 5))
    try:
        assert served.device_bytes == taken
    finally:
        served.close()
