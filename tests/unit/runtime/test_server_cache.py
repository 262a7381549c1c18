"""The model cache: one load for all who ask, eviction by last use, replacement under requests."""

from __future__ import annotations

import json
import math
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.support import bundles
from tests.support.cached_models import SECONDS, Store, cache_module, catalogue, known, loader, residents

backoff, versions = bundles.runtime_module("serving.backoff"), bundles.runtime_module("serving.versions")


def made(store: Store, *names: str, budget: int | None = None) -> cache_module.ModelCache:
    cache = cache_module.ModelCache(store, budget=budget)
    cache.learn([known(*name.split(":")) for name in names])
    return cache


def test_versions_are_ordered_as_people_do() -> None:
    ordered = ["0.9", "1.0.0-alpha", "1.0.0-rc.1", "1.0.0-rc.2", "1.0.0", "1.0.0.1", "1.0.2", "1.0.10", "2", "10"]
    shuffled = ordered[::-1]
    assert sorted(shuffled, key=catalogue.version_key) == ordered


def test_a_thing_is_opened_once_however_many_ask() -> None:
    store = Store()
    store.gate.clear()
    cache = made(store, "a")
    with ThreadPoolExecutor(16) as pool:
        loads = [pool.submit(cache.load, "a") for _ in range(16)]
        while cache.states()[0].state != "LOADING":
            time.sleep(0.001)
        store.gate.set()
        for load in loads:
            load.result(SECONDS)
    assert len(store.opened) == 1
    assert cache.lease("a").loaded is store.opened[0]


def test_a_load_that_fails_fails_for_all_who_wait_and_may_be_tried_again() -> None:
    store = Store()
    store.failing.add("a")
    cache = made(store, "a")
    for _ in range(2):
        with pytest.raises(loader.GoldenError):
            cache.load("a")
        assert cache.states() == [cache_module.State("a", "1", "UNAVAILABLE", "loading failed")]
    store.failing.clear()
    cache.load("a")
    assert cache.states() == [cache_module.State("a", "1", "READY", bytes=10)]


def test_what_was_not_used_for_longest_makes_room() -> None:
    store = Store()
    cache = made(store, "a", "b", "c", budget=25)
    for name in ("a", "b"):
        cache.load(name)
    cache.release(cache.lease("a"))
    cache.load("c")
    assert [(thing.name, thing.closed) for thing in store.opened] == [("a", 0), ("b", 1), ("c", 0)]
    assert cache.lease("b") is None  # to be loaded again, which makes room in turn
    cache.load("b")
    assert {thing.name for thing in cache.leased()} == {"b", "c"}


def test_measured_sizes_count_and_what_cannot_fit_is_refused() -> None:
    store = Store({"big": 100, "a": 10})
    cache = made(store, "a", "big", budget=50)
    cache.load("a")
    with pytest.raises(residents.BudgetError, match="took 100 bytes of memory"):
        cache.load("big")
    assert store.opened[-1].closed == 1
    assert store.opened[0].closed == 0
    cache.learn([known("a"), known("huge", "1", 51)])
    with pytest.raises(residents.BudgetError, match="51 bytes of weights"):
        cache.load("huge")
    assert len(store.opened) == 2  # by its weights alone: it was not even opened


def test_what_is_in_use_is_closed_by_its_last_user() -> None:
    store = Store()
    cache = made(store, "a")
    cache.load("a")
    first, second = cache.lease("a"), cache.lease("a")
    cache.unload("a")
    assert cache.states() == [cache_module.State("a", "1", "UNAVAILABLE", "unloaded")]
    with pytest.raises(versions.UnknownModelError, match="unloaded"):
        cache.lease("a")
    cache.release(first)
    assert store.opened[0].closed == 0
    cache.release(second)
    assert store.opened[0].closed == 1
    cache.load("a", newest=True)
    assert cache.lease("a").loaded is store.opened[1]


def test_a_new_version_takes_over_when_it_is_loaded_and_not_before() -> None:
    store = Store()
    cache = made(store, "a:1")
    cache.load("a", newest=True)
    cache.learn([known("a", "1"), known("a", "2")])
    assert cache.versions("a") == ["1", "2"]
    assert cache.lease("a").loaded.version == "1"
    cache.load("a", newest=True)
    assert cache.lease("a").loaded.version == "2"
    assert cache.lease("a", "1") is None  # to be loaded again


def test_a_version_that_was_never_loaded_takes_over_from_no_loaded_one() -> None:
    """A corrupt newer bundle appears, and the repository is listed: the model that works goes on."""
    store = Store()
    store.failing.add("a:2")
    cache = made(store, "a:1")
    cache.load("a", for_request=True)
    cache.learn([known("a", "1"), known("a", "2")])
    assert cache.lease("a").loaded.version == "1"
    with pytest.raises(loader.GoldenError):
        cache.load("a", newest=True)
    assert cache.lease("a").loaded.version == "1"
    store.failing.clear()
    cache.load("a", newest=True)
    assert cache.lease("a").loaded.version == "2"


def test_a_loaded_model_outlives_the_directory_that_it_came_from() -> None:
    cache = made(Store(), "a:1", "b:1")
    cache.load("a", newest=True)
    cache.learn([])
    assert cache.lease("a").loaded.version == "1"
    with pytest.raises(versions.UnknownModelError):
        cache.lease("b")


def test_an_older_version_leaves_when_a_newer_one_takes_over() -> None:
    store = Store()
    cache = made(store, "a:1", "a:2", "b:1")
    cache.load("b")
    cache.load("a", "1")
    lease = cache.lease("a")
    cache.load("a", newest=True)
    assert [thing.closed for thing in store.opened] == [0, 0, 0]  # a request still runs on it
    cache.release(lease)
    assert [(thing.name, thing.version, thing.closed) for thing in store.opened] == [
        ("b", "1", 0), ("a", "1", 1), ("a", "2", 0)
    ]  # fmt: skip


def test_an_older_version_that_requests_name_stays_until_it_is_unloaded() -> None:
    store = Store()
    cache = made(store, "a:1", "a:2")
    cache.load("a", "1")
    cache.release(cache.lease("a", "1"))
    cache.load("a", newest=True)
    assert [thing.closed for thing in store.opened] == [0, 0]
    cache.unload("a", "1")
    assert [thing.closed for thing in store.opened] == [1, 0]
    with pytest.raises(versions.UnknownModelError, match="unloaded"):
        cache.lease("a", "1")
    assert cache.lease("a").loaded.version == "2"


def test_the_version_that_is_unloaded_is_no_longer_the_one_for_all() -> None:
    store = Store()
    cache = made(store, "a:1", "a:2")
    cache.load("a", "1")
    cache.lease("a", "1")
    cache.load("a", newest=True)
    cache.unload("a", "2")
    assert cache.lease("a").loaded.version == "1"
    cache.unload("a", "1")
    with pytest.raises(versions.UnknownModelError, match="unloaded"):
        cache.lease("a")
    with pytest.raises(versions.UnknownModelError):
        cache.unload("a", "3")
    cache.load("a", newest=True)
    assert cache.lease("a").loaded.version == "2"


def test_a_model_that_is_unloaded_while_it_is_loaded_is_not_kept() -> None:
    store = Store()
    store.gate.clear()
    cache = made(store, "a")
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(cache.load, "a")
        while cache.states()[0].state != "LOADING":
            time.sleep(0.001)
        cache.unload("a")
        store.gate.set()
        loading.result(SECONDS)
    assert store.opened[0].closed == 1
    with pytest.raises(versions.UnknownModelError, match="unloaded"):
        cache.lease("a")


def test_requests_do_not_repeat_a_load_that_failed_at_once() -> None:
    now = [0.0]
    store = Store()
    store.failing.add("a")
    cache = cache_module.ModelCache(store, clock=lambda: now[0])
    cache.learn([known("a")])
    pauses = []
    for _ in range(12):
        with pytest.raises(loader.GoldenError):
            cache.load("a", for_request=True)
        tried = store.tried
        for _ in range(10):
            with pytest.raises(backoff.FailedBeforeError, match="wrong answers") as caught:
                cache.load("a", for_request=True)
        assert store.tried == tried
        pauses.append(caught.value.seconds)
        now[0] += caught.value.seconds
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]
    store.failing.clear()
    cache.load("a")  # by hand: at once
    assert cache.lease("a") is not None


def test_a_bundle_that_was_replaced_is_tried_at_once() -> None:
    store = Store()
    store.failing.add("a")
    cache = made(store, "a")
    with pytest.raises(loader.GoldenError):
        cache.load("a", for_request=True)
    store.failing.clear()
    cache.learn([known("a")])
    with pytest.raises(backoff.FailedBeforeError):
        cache.load("a", for_request=True)
    cache.learn([catalogue.Known("a", "1", Path("/nowhere"), 1, stamp=(1, 2, 3))])
    cache.load("a", for_request=True)


def test_only_models_that_are_there_are_labels_of_metrics() -> None:
    cache = made(Store(), "a:1", "a:2")
    found = [cache.labels(*asked) for asked in (("a", None), ("a", "1"), ("a", "9"), ("x" * 5000, "1"))]
    assert found == [("a", "2"), ("a", "1"), ("a", ""), ("", "")]


def test_the_version_that_took_over_stays_the_one_when_it_is_evicted() -> None:
    store = Store()
    cache = made(store, "a:1", "a:2", "b:1", budget=20)
    cache.load("a", newest=True)
    cache.load("a", "1")
    cache.load("b")
    assert cache.lease("a") is None  # never the older one, although it is there
    cache.load("a")
    assert cache.lease("a").loaded.version == "2"


@pytest.mark.parametrize(("name", "version"), [("b", None), ("a", "2"), ("", None)])
def test_what_is_not_there_is_told(name: str, version: str | None) -> None:
    cache = made(Store(), "a")
    with pytest.raises(versions.UnknownModelError):
        cache.lease(name, version)
    with pytest.raises(versions.UnknownModelError):
        cache.load(name, version)


def test_under_many_threads_nothing_closed_is_ever_leased() -> None:
    store = Store()
    cache = made(store, *(f"m{number}" for number in range(6)), budget=30)

    def client(seed: int) -> int:
        served = 0
        while served < 300:
            name = f"m{(seed * 7 + served * 5) % 6}"
            lease = cache.lease(name)
            if lease is None:
                cache.load(name)
                continue
            assert lease.loaded.closed == 0
            assert lease.loaded.name == name
            cache.release(lease)
            served += 1
        return served

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(client, range(8))) == [300] * 8
    still = cache.leased()
    assert sum(thing.bytes for thing in still) <= 30
    assert [thing.closed for thing in store.opened if thing not in still] == [1] * (len(store.opened) - len(still))


def test_bundles_are_found_by_their_target(tmp_path: Path) -> None:
    def write(path: str, **changes: object) -> None:
        manifest = {"kind": "ortc-bundle", "name": "a", "version": "1", "target": "cpu", "model": {"bytes": 5}}
        (tmp_path / path).mkdir(parents=True)
        (tmp_path / path / "manifest.json").write_text(json.dumps(manifest | changes))

    write("a/1/cpu")
    write("a/1/edge", target="edge")
    write("a/2/cpu", version="2")
    write("loose", name="b")
    write("other", kind="something else")
    write("broken", model=None)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/manifest.json").write_text("{")
    write("endless", model={"bytes": math.inf})
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/manifest.json").write_text("[" * 100_000)
    found = catalogue.find_bundles(tmp_path, "cpu")
    assert {key: bundle.path.relative_to(tmp_path).as_posix() for key, bundle in found.items()} == {
        ("a", "1"): "a/1/cpu",
        ("a", "2"): "a/2/cpu",
        ("b", "1"): "loose",
    }
