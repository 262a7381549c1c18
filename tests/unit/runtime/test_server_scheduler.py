"""The queue of a model, with a real session: order, batches, bounds, and what a failure means for others."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support import bundles

loader = bundles.runtime_module("loader")
protocol = bundles.runtime_module("serving.protocol")
scheduler_module = bundles.runtime_module("serving.scheduler")
SECONDS = 60


class Recorder:
    """An observer; while `gate` is closed no run goes past its end."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()

    def ran(self, batch: Any) -> None:
        self.batches.append([int(job.inputs["ids"][0, 0]) for job in batch.jobs])
        assert self.gate.wait(SECONDS)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    recipe = bundles.text()
    recipe.manifest["axes"][0]["max"] = 64
    recipe.manifest["inputs"][0]["range"] = None  # so that only the graph can refuse an index
    with loader.Model.load(recipe.write(tmp_path_factory.mktemp("scheduler") / "bundle")) as loaded:
        yield loaded


@contextlib.contextmanager
def scheduling(model: Any, recorder: Recorder, **options: Any) -> Iterator[Any]:
    # A thread of the scheduler's can be held, the event loop cannot.
    options = {"workers": 1, "queue_size": 1000, "inline_seconds": 0.0, **options}
    rows, delay = options.pop("rows", 1), options.pop("delay", 0.0)
    batching = scheduler_module.Batching.of(model, rows, delay)
    scheduler = scheduler_module.Scheduler(model, recorder, **options, batching=batching)
    try:
        yield scheduler
    finally:
        recorder.gate.set()
        scheduler.close()
        scheduler.join(SECONDS)
        assert not scheduler.busy


def inputs(word: int, length: int = 3, rows: int = 1) -> dict[str, Any]:
    ids = np.full((rows, length), word, np.int64)
    return {"ids": ids, "mask": np.ones_like(ids)}


def submit(scheduler: Any, asked: dict[str, Any]) -> Any:
    return scheduler.submit(asked, ["hidden"])


async def hold(scheduler: Any, recorder: Recorder) -> Any:
    """Keep the only thread busy until the recorder's gate is opened; what is submitted meanwhile waits."""
    recorder.gate.clear()
    await submit(scheduler, inputs(49)).answer


def test_requests_of_equal_shape_share_runs_in_the_order_they_came(model: Any) -> None:
    recorder = Recorder()

    async def main(scheduler: Any) -> None:
        await hold(scheduler, recorder)
        asked = [inputs(word, 3 + word % 2) for word in range(12)]
        jobs = [submit(scheduler, one) for one in asked]
        recorder.gate.set()
        for one, job in zip(asked, jobs, strict=True):
            answer = await job.answer
            assert np.array_equal(answer["hidden"], model.run(one)["hidden"])

    with scheduling(model, recorder, rows=4, delay=0.01) as scheduler:
        asyncio.run(main(scheduler))
    assert recorder.batches == [[49], [0, 2, 4, 6], [1, 3, 5, 7], [8, 10], [9, 11]]


def test_a_batch_has_no_more_rows_than_allowed_and_nobody_overtakes(model: Any) -> None:
    recorder = Recorder()

    async def main(scheduler: Any) -> None:
        await hold(scheduler, recorder)
        sizes = [3, 2, 1, 4, 1, 9]
        asked = [inputs(word, rows=rows) for word, rows in enumerate(sizes)]
        jobs = [submit(scheduler, one) for one in asked]
        recorder.gate.set()
        for rows, one, job in zip(sizes, asked, jobs, strict=True):
            answer = await job.answer
            assert answer["hidden"].shape == (rows, 3, 8)
            assert np.array_equal(answer["hidden"], model.run(one)["hidden"])

    with scheduling(model, recorder, rows=4, delay=0.01) as scheduler:
        asyncio.run(main(scheduler))
    # The second does not fit beside the first, so that the third waits, too. The last is larger than any batch.
    assert recorder.batches == [[49], [0], [1, 2], [3], [4], [5]]


def test_in_a_batch_only_the_request_that_is_wrong_fails(model: Any) -> None:
    recorder = Recorder()

    async def main(scheduler: Any) -> None:
        await hold(scheduler, recorder)
        jobs = [submit(scheduler, inputs(word)) for word in (1, 50_000, 2)]
        recorder.gate.set()
        found = await asyncio.gather(*(job.answer for job in jobs), return_exceptions=True)
        assert isinstance(found[1], loader.InputError)
        for word, answer in ((1, found[0]), (2, found[2])):
            assert np.array_equal(answer["hidden"], model.run(inputs(word))["hidden"])

    with scheduling(model, recorder, rows=4, delay=0.01) as scheduler:
        asyncio.run(main(scheduler))
    assert recorder.batches == [[49], [1], [2]]


def test_the_queue_is_bounded_and_what_nobody_awaits_leaves_it(model: Any) -> None:
    recorder = Recorder()

    async def main(scheduler: Any) -> None:
        await hold(scheduler, recorder)
        jobs = [submit(scheduler, inputs(word)) for word in range(3)]
        with pytest.raises(protocol.RefusedError) as caught:
            submit(scheduler, inputs(3))
        assert (caught.value.status, caught.value.retry_after) == (429, 1)
        jobs[1].answer.cancel()
        scheduler.abandon(jobs[1])
        assert scheduler.waiting == 2
        jobs.append(submit(scheduler, inputs(4)))
        recorder.gate.set()
        for index in (0, 2, 3):
            await jobs[index].answer

    # One more than the queue holds: the thread has ended its run, and would take the next.
    with scheduling(model, recorder, queue_size=2) as scheduler:
        asyncio.run(main(scheduler))
    assert recorder.batches == [[49], [0], [2], [4]]


def test_a_closed_scheduler_ends_what_it_has_and_takes_no_more(model: Any) -> None:
    recorder = Recorder()

    async def main(scheduler: Any) -> None:
        await hold(scheduler, recorder)
        jobs = [submit(scheduler, inputs(word)) for word in range(3)]
        scheduler.close()
        with pytest.raises(protocol.RefusedError) as caught:
            submit(scheduler, inputs(3))
        assert caught.value.status == 503
        recorder.gate.set()
        await asyncio.gather(*(job.answer for job in jobs))

    with scheduling(model, recorder) as scheduler:
        asyncio.run(main(scheduler))


def test_many_threads_and_mixed_shapes_give_everyone_their_own_answer(model: Any) -> None:
    words, lengths = range(40), (1, 5, 12)
    expected = {(word, length): model.run(inputs(word, length))["hidden"] for word in words for length in lengths}

    async def client(scheduler: Any, seed: int) -> None:
        for step in range(60):
            word, length = (seed * 11 + step) % 40, lengths[(seed + step) % 3]
            answer = await submit(scheduler, inputs(word, length)).answer
            assert np.array_equal(answer["hidden"], expected[word, length])

    async def main(scheduler: Any) -> None:
        await asyncio.gather(*(client(scheduler, seed) for seed in range(24)))

    recorder = Recorder()
    with scheduling(model, recorder, workers=4, rows=8, delay=0.002) as scheduler:
        asyncio.run(main(scheduler))
    assert sum(map(len, recorder.batches)) == 24 * 60
    assert max(map(len, recorder.batches)) > 1


def test_what_is_over_at_once_runs_in_the_event_loop_and_says_the_same(model: Any) -> None:
    recorder = Recorder()
    threads = set()

    async def main(scheduler: Any) -> None:
        for word in range(30):
            job = submit(scheduler, inputs(word))
            threads.add(job.answer.done())  # before the loop had its turn
            assert np.array_equal((await job.answer)["hidden"], model.run(inputs(word))["hidden"])
        with pytest.raises(loader.InputError):
            await submit(scheduler, inputs(50_000)).answer

    with scheduling(model, recorder, inline_seconds=60.0) as scheduler:
        asyncio.run(main(scheduler))
    assert threads == {True, False}
    # A thread reports its run after the answer: by then the event loop may have reported the next run.
    assert sorted(batch[0] for batch in recorder.batches) == list(range(30))


@pytest.mark.parametrize(
    ("change", "rows", "message"),
    [
        ({"variant": {"name": "int8", "batch_invariant": False}}, 2, "does not record that an answer is the same"),
        ({"variant": {"name": "fp32", "batch_invariant": None}}, 2, "does not record that an answer is the same"),
        ({"variant": {"name": "fp32"}}, 2, "does not record that an answer is the same"),
        ({}, 5, "verified up to batch 4"),
    ],
)
def test_what_must_not_be_batched_is_refused(tmp_path: Path, change: dict[str, Any], rows: int, message: str) -> None:
    recipe = bundles.text()
    recipe.manifest |= change
    with (
        loader.Model.load(recipe.write(tmp_path / "bundle")) as model,
        pytest.raises(loader.UsageError, match=message),
    ):
        scheduler_module.Batching.of(model, rows, 0.0)


def test_answers_do_not_wait_for_acknowledgements() -> None:
    listener = bundles.runtime_module("serving.sockets").listen("127.0.0.1", 0)
    with listener:
        # By this asyncio decides whether it turns Nagle's algorithm off.
        assert listener.proto == socket.IPPROTO_TCP
