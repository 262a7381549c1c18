"""What computes and what is timed, in builds beside each other: never at once, and neither waits for ever."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from ortc.execution.host_gate import GATE, computing, timing

SECONDS = 20.0
"""A test that waits longer hangs."""


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(GATE, str(tmp_path))


class Work:
    """Something that computes, or is timed, until it is told to end."""

    def __init__(self, pool: ThreadPoolExecutor, around: Callable[[], object]) -> None:
        self.begun, self._end = threading.Event(), threading.Event()
        self._around = around
        self._future: Future[None] = pool.submit(self._run)

    def _run(self) -> None:
        with self._around():  # type: ignore[attr-defined]
            self.begun.set()
            assert self._end.wait(SECONDS)

    def end(self) -> None:
        self._end.set()
        self._future.result(SECONDS)


@pytest.mark.usefixtures("gate")
def test_nothing_computes_while_something_is_timed(pool: ThreadPoolExecutor) -> None:
    first, second = Work(pool, computing), Work(pool, computing)
    assert first.begun.wait(SECONDS)
    assert second.begun.wait(SECONDS)
    timed = Work(pool, timing)
    first.end()
    assert not timed.begun.wait(0.2)
    second.end()
    assert timed.begun.wait(SECONDS)
    later, other = Work(pool, computing), Work(pool, timing)
    assert not later.begun.wait(0.2)
    assert not other.begun.is_set()
    timed.end()
    # One after the other, in any order.
    for _ in range(2):
        ready = next(work for work in _until(lambda: [w for w in (later, other) if w.begun.is_set()]))
        ready.end()
        ready.begun.clear()


@pytest.mark.usefixtures("gate")
def test_a_steady_stream_of_work_does_not_keep_the_clock_waiting(pool: ThreadPoolExecutor) -> None:
    stop = threading.Event()

    def stream() -> None:
        while not stop.is_set():
            with computing():
                time.sleep(0.01)

    streams = [pool.submit(stream) for _ in range(3)]
    try:
        timed = Work(pool, timing)
        assert timed.begun.wait(SECONDS)
        timed.end()
    finally:
        stop.set()
    for one in streams:
        one.result(SECONDS)


@pytest.mark.usefixtures("gate")
def test_what_computes_can_be_timed_itself(pool: ThreadPoolExecutor) -> None:
    def both() -> str:
        with computing(), computing():
            with timing():
                pass
            return "done"

    assert [one.result(SECONDS) for one in [pool.submit(both) for _ in range(4)]] == ["done"] * 4


def test_a_build_alone_waits_for_nobody(pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(GATE, raising=False)
    works = [Work(pool, computing), Work(pool, timing), Work(pool, timing)]
    assert all(work.begun.wait(SECONDS) for work in works)
    for work in works:
        work.end()


def _until(found: Callable[[], list[Work]]) -> list[Work]:
    deadline = time.monotonic() + SECONDS
    while not (works := found()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return works
