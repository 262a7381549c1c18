"""What requests may hold, log lines among them: memory, values, fields, rates."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import threading
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support import bundles

arrivals = bundles.runtime_module("serving.arrivals")
bounds = bundles.runtime_module("serving.bounds")
errors = bundles.runtime_module("serving.errors")
loader = bundles.runtime_module("loader")
logs = bundles.runtime_module("serving.logs")
memory_module = bundles.runtime_module("serving.memory")
messages = bundles.runtime_module("serving.messages")
protocol = bundles.runtime_module("serving.protocol")
sockets = bundles.runtime_module("serving.sockets")
REQUEST = messages.make("inference", messages.INFERENCE)["ModelInferRequest"]
KIB = 1024
SECONDS = 60


class Clock:
    """Time that passes when it is told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def capacity(*shape: str | int) -> bounds.Capacity:
    axes = [loader.Axis("batch", 1, 1, 8), loader.Axis("sequence", 1, 1, 128)]
    return bounds.Capacity.of([loader.Tensor("x", np.dtype(np.float32), shape)], axes)


# --- memory --------------------------------------------------------------------------------------------------------


def test_memory_is_bounded_and_given_back() -> None:
    memory = memory_module.Memory(1000 * KIB, Clock())
    with memory.hold() as first, memory.hold() as second:
        memory.take(first, 500 * KIB)
        with pytest.raises(errors.RefusedError) as caught:
            memory.take(second, 400 * KIB)
        assert (caught.value.status, caught.value.retry_after) == (503, 1)
        memory.take(second, 200 * KIB)
        memory.give_back(first)
        memory.take(second, 400 * KIB)
    assert memory.taken == 0


def test_large_requests_leave_a_quarter_to_small_ones() -> None:
    memory = memory_module.Memory(1024 * KIB, Clock())
    with memory.hold() as large, memory.hold() as other, memory.hold() as small:
        memory.take(large, 768 * KIB)
        with pytest.raises(errors.RefusedError):
            memory.take(other, 65 * KIB)
        memory.take(small, 64 * KIB)


def test_a_request_that_is_alone_may_hold_anything() -> None:
    memory = memory_module.Memory(10, Clock())
    with memory.hold() as alone, memory.hold() as other:
        memory.take(alone, 100)
        memory.take(alone, 100)
        with pytest.raises(errors.RefusedError):
            memory.take(other, 1)


def test_who_makes_no_progress_makes_room_and_who_does_stays() -> None:
    clock = Clock()
    memory = memory_module.Memory(1000 * KIB, clock)
    evicted: list[str] = []
    with memory.hold() as stalled, memory.hold() as moving, memory.hold() as computing, memory.hold() as new:
        for name, held, size in (("stalled", stalled, 300), ("moving", moving, 200), ("computing", computing, 200)):
            memory.take(held, size * KIB)
            held.evict = (lambda name=name: evicted.append(name)) if name != "computing" else None
        with pytest.raises(errors.RefusedError):
            memory.take(new, 100 * KIB)
        clock.now = 1.5
        moving.progress(16 * KIB)
        memory.take(new, 100 * KIB)
        assert evicted == ["stalled"]
        with pytest.raises(errors.RefusedError):
            memory.take(new, 300 * KIB)
    assert memory.taken == 0


def test_a_trickle_is_no_progress() -> None:
    clock = Clock()
    memory = memory_module.Memory(1000 * KIB, clock)
    evicted: list[bool] = []
    with memory.hold() as held:
        held.evict = lambda: evicted.append(True)
        memory.take(held, 100 * KIB)
        for _ in range(5):
            clock.now += 1
            held.progress(3000)
            memory.sweep()
        assert not evicted
        clock.now += 1
        memory.sweep()
        assert evicted


# --- messages that are not whole -----------------------------------------------------------------------------------


class Call:
    def __init__(self) -> None:
        self.given_up = False

    def give_up(self) -> None:
        self.given_up = True


def arriving(count: int, look: Callable[[arrivals.Arrivals, Clock, list[int]], None]) -> list[Call]:
    """What became of so many calls that wait, after `look`."""

    async def main() -> list[Call]:
        clock, resident = Clock(), [100]
        memory = memory_module.Memory(64)
        found = arrivals.Arrivals(memory, 16, resident=lambda: resident[0], clock=clock)
        calls = [Call() for _ in range(count)]
        with contextlib.ExitStack() as stack:
            for call in calls:
                stack.enter_context(found.waiting(call))
            found.look()
            look(found, clock, resident)
        return calls

    return asyncio.run(main())


def test_messages_that_are_late_are_as_many_as_there_is_room_for() -> None:
    def look(found: arrivals.Arrivals, clock: Clock, resident: list[int]) -> None:
        found.look()
        clock.now = 0.3
        found.look()

    calls = arriving(10, look)
    assert [call.given_up for call in calls] == [True] * 6 + [False] * 4


def test_messages_make_the_process_grow_by_no_more_than_the_bound() -> None:
    def look(found: arrivals.Arrivals, clock: Clock, resident: list[int]) -> None:
        resident[0] = 165
        found.look()

    assert all(call.given_up for call in arriving(3, look))


# --- values and fields ---------------------------------------------------------------------------------------------


def test_a_text_that_holds_more_than_the_model_takes_is_not_parsed() -> None:
    of = capacity("batch", "sequence")
    assert of.values == {"x": 1024}
    fits = json.dumps({"inputs": [{"name": "x", "data": [[1] * 128] * 8}]}, indent=4).encode()
    assert of.refuse_json(fits, len(fits)) == ""
    for text, message in (
        (b"0," * 6000, "more values"),
        (b"[" * 6000, "more lists"),
        (b"{" * 6000, "more objects"),
        (b" " * 600_000, "bytes, the model needs"),
    ):
        assert message in of.refuse_json(text, len(text))
        assert of.refuse_json(text, 100) == ""  # what is behind the JSON part is not JSON


@given(st.integers(1, 8), st.integers(1, 128), st.booleans())
def test_no_right_request_is_refused_for_its_values(batch: int, sequence: int, nested: bool) -> None:
    of = capacity("batch", "sequence")
    data = [[-1.2345678e-30] * sequence] * batch if nested else [1.5] * (batch * sequence)
    entry = {"name": "x", "shape": [batch, sequence], "datatype": "FP32", "data": data}
    text = json.dumps({"inputs": [entry]}, indent=8).encode()
    tensor = loader.Tensor("x", np.dtype(np.float32), ("batch", "sequence"))
    assert protocol.decode(text, None, [tensor], of).inputs["x"].shape == (batch, sequence)


def test_a_shape_beyond_the_model_is_refused_before_its_array_is_made() -> None:
    of = capacity("batch", "sequence")
    for name in ("x", "unknown"):
        entry = {"name": name, "shape": [2**20], "datatype": "FP32", "parameters": {"binary_data_size": 2**22}}
        head = json.dumps({"inputs": [entry]}).encode()
        tensor = loader.Tensor("x", np.dtype(np.float32), ("batch", "sequence"))
        with pytest.raises(errors.RefusedError, match="the model takes at most"):
            protocol.decode(head + bytes(2**22), str(len(head)), [tensor], of)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x2a\x00" * 5000, "more than 4096 fields"),
        (b"\x3a\x00" * 5000, "more than 4096 fields"),
        (b"\x32\x98\x75" + b"\x12\x00" * 7500, "more than 4096 fields"),
        (b"\x2a\xa0\x38" + b"\x18\x01" * 3600 + b"\x2a\xa0\x38" + b"\x18\x01" * 3600, "more than 4096 fields"),
        (b"\x2a\x04\x2a\x02\x42\x00", ""),
        (b"\x2a\xa3\x4e\x2a\xa0\x4e" + b"\x42\x00" * 5008, "more than 4096 fields"),
        (b"\x2a", ""),
        (b"\xff" * 100, ""),
        (b"\x2a\xff\xff\xff\xff\x0f", ""),
    ],
)
def test_a_message_of_many_fields_is_not_parsed(content: bytes, message: str) -> None:
    found = bounds.refuse_fields(content)
    assert (message in found) if message else found == ""


@given(st.binary(max_size=300))
def test_any_bytes_are_looked_at(content: bytes) -> None:
    assert isinstance(bounds.refuse_fields(content), str)


def test_a_right_message_passes() -> None:
    request = REQUEST(model_name="m", id="1")
    entry = request.inputs.add(name="x", datatype="FP32", shape=[3, 10_000])
    entry.contents.fp32_contents.extend([1.0] * 30_000)
    request.outputs.add(name="y")
    assert bounds.refuse_fields(request.SerializeToString()) == ""


# --- connections ---------------------------------------------------------------------------------------------------


class Client:
    def __init__(self) -> None:
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True

    def sweep(self, now: float) -> None:
        """Nothing is unread."""


def test_who_is_needed_least_makes_room_for_a_new_connection() -> None:
    clock = Clock()
    registry = sockets.Connections(4, clock)
    new, resting, receiving, running = (Client() for _ in range(4))
    for client in (new, resting, receiving, running):
        assert registry.admit(client)
    for client in (resting, receiving, running):
        registry.work(client)
    registry.received(running)
    registry.received(resting)
    registry.rest(resting)
    admitted = [Client() for _ in range(4)]
    for client in admitted[:2]:
        assert registry.admit(client)
        registry.work(client)
        registry.received(client)
    assert (new.aborted, resting.aborted, receiving.aborted, running.aborted) == (True, True, False, False)
    assert not registry.admit(admitted[2])
    clock.now = 2
    assert registry.admit(admitted[2])
    assert (receiving.aborted, running.aborted, len(registry)) == (True, False, 4)


# --- the log -------------------------------------------------------------------------------------------------------


def test_equal_lines_are_bounded_in_rate_and_counted() -> None:
    clock = Clock()
    rates = logs.Rates(clock)
    kind = ("warning", "request", 404)
    assert [rates.admit(kind) for _ in range(logs.BURST)] == [0] * logs.BURST
    assert [rates.admit(kind) for _ in range(1000)] == [None] * 1000
    assert rates.admit(("error", "request", 500)) == 0
    clock.now = 1
    assert [rates.admit(kind) for _ in range(7)] == [1000, 0, 0, 0, 0, None, None]
    assert rates.take_suppressed() == [(kind, 2)]
    assert rates.take_suppressed() == []


def test_kinds_of_lines_are_bounded() -> None:
    rates = logs.Rates(Clock())
    for number in range(10 * logs.MOST_KINDS):
        rates.admit((number,))
    assert len(rates._kinds) <= logs.MOST_KINDS


def counts(text: bytes) -> tuple[int, int]:
    """Whole lines of a log that are there, and lines that it says were dropped."""
    lines = text.decode().split("\n")[:-1]
    dropped = [json.loads(line)["lines"] for line in lines if "log-dropped" in line]
    return len(lines) - len(dropped), sum(dropped)


def test_a_reader_who_does_not_read_stops_nobody() -> None:
    read, write = os.pipe()
    try:
        writer = logs.Writer(write)
        for number in range(3000):
            writer.put(f"{number:04} {'x' * 1000}\n")
        assert writer.dropped_total > 1000
        writer.flush(0.01)
        found = b""
        done = threading.Event()

        def drain() -> None:
            nonlocal found
            while sum(counts(found)) < 3000:
                found += os.read(read, 65536)
            done.set()

        threading.Thread(target=drain, daemon=True).start()
        assert done.wait(SECONDS), counts(found)
    finally:
        os.close(write)
        os.close(read)
    assert sum(counts(found)) == 3000
    kept = [int(line[:4]) for line in found.decode().splitlines() if "log-dropped" not in line]
    assert kept == sorted(kept)
    assert kept[:64] == list(range(64))
