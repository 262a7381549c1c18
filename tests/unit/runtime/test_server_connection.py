"""What a connection parses at once: many requests that came together take turns with those of others."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from tests.support import bundles
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

connection, turns = bundles.runtime_module("serving.connection"), bundles.runtime_module("serving.turns")
HEADS = [f"GET /{number} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for number in range(3)]


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    pieces: list[bytes] = []
    monkeypatch.setattr(HttpToolsProtocol, "data_received", lambda _, piece: pieces.append(piece))
    return pieces


def fresh() -> Any:
    made = connection.Connection.__new__(connection.Connection)
    made.cycle, made.transport = None, SimpleNamespace(is_closing=lambda: False)
    made.flow = SimpleNamespace(pause_reading=lambda: None, resume_reading=lambda: None)
    made._registry, made.loop = SimpleNamespace(turns=turns.Turns()), None
    return made


@pytest.mark.parametrize("end", [b"\r\n\r\n", b"\n\n"])
def test_requests_that_came_together_are_parsed_one_by_one(end: bytes, parsed: list[bytes]) -> None:
    heads = [head.replace(b"\r\n\r\n", end) for head in HEADS]
    fresh().data_received(b"".join(heads))
    assert parsed == heads


@pytest.mark.parametrize("cut", range(1, len(HEADS[0])))
def test_wherever_a_head_is_cut(cut: int, parsed: list[bytes]) -> None:
    made, whole = fresh(), b"".join(HEADS)
    made.data_received(whole[:cut])
    made.data_received(whole[cut:])
    assert parsed == [HEADS[0][:cut], HEADS[0][cut:], *HEADS[1:]]


def test_bodies_of_known_length_are_parsed_up_to_their_end(parsed: list[bytes]) -> None:
    made = fresh()
    made._in_head, made._body_left = False, 10
    made.data_received(b"x" * 10 + HEADS[0])
    assert parsed[0] == b"x" * 10
    made = fresh()
    made._in_head = False
    made.data_received(b"x" * 3000)
    assert max(map(len, parsed[2:])) == connection.SMALL_SLICE_BYTES


def test_the_next_request_waits_for_the_answer_to_the_last_and_for_its_turn(parsed: list[bytes]) -> None:
    made = fresh()
    queued: list[Any] = []
    made._registry.turns = SimpleNamespace(asks=lambda _: None, put=lambda client, begin, _: queued.append(begin))
    made.cycle = SimpleNamespace(more_body=False, response_complete=False, keep_alive=True)
    made.data_received(b"".join(HEADS))
    assert (parsed, made._unparsed) == ([], b"".join(HEADS))
    made.cycle.response_complete = True
    made._rest, made.flow = (lambda: None), SimpleNamespace(pause_reading=lambda: None, resume_reading=lambda: None)
    made.server_state = SimpleNamespace(total_requests=0)
    made.timeout_keep_alive_task, made.timeout_keep_alive, made.pipeline = None, 1, []
    made.loop = SimpleNamespace(call_later=lambda *_: None)
    made.on_response_complete()
    made.data_received(b"")
    assert parsed == []
    queued.pop()()
    assert parsed == HEADS


class Clock:
    """A clock that stands until it is moved; calls later are made when the test says so."""

    def __init__(self) -> None:
        self.now, self.later = 100.0, list[tuple[float, Any]]()

    def call_later(self, seconds: float, call: Any, *arguments: Any) -> None:
        self.later.append((seconds, lambda: call(*arguments)))

    def call_soon(self, call: Any, *arguments: Any) -> None:
        self.call_later(0.0, call, *arguments)

    def step(self) -> float:
        """Make the next call; the seconds that it waited."""
        seconds, call = self.later.pop(0)
        self.now += seconds
        call()
        return seconds


def test_turns_come_in_order_and_one_at_a_time() -> None:
    """One whose client left takes no turn of another."""
    loop, begun = Clock(), list[int]()
    queue = turns.Turns(lambda: loop.now)
    for number in range(5):
        queue.put(number, lambda number=number: begun.append(number), loop)
    assert len(loop.later) == 1
    queue.drop(2)
    waited = 0.0
    while loop.later:
        before = len(begun)
        waited += loop.step()
        assert len(begun) <= before + 1
    assert (begun, waited) == ([0, 1, 3, 4], 0.0)


def test_turns_are_apart_while_others_ask() -> None:
    """Who waits for a turn is no other; one who asked long ago neither."""
    loop, begun = Clock(), list[float]()
    queue = turns.Turns(lambda: loop.now)

    def wait(client: str) -> None:
        queue.asks(client)
        queue.put(client, lambda: begun.append(loop.now), loop)

    wait("first")
    queue.asks("other")
    wait("second")
    while loop.later:
        loop.step()
        if len(begun) == 1:
            queue.asks("other")
    assert begun == [100.0, pytest.approx(100.0 + turns.SPACING_SECONDS)]
    loop.now += turns.SPACING_SECONDS
    wait("third")
    assert loop.step() == 0.0


def test_a_turn_is_taken_by_a_task() -> None:
    """One that was cancelled leaves the turn to the next."""

    async def run() -> list[int]:
        queue, begun = turns.Turns(), list[int]()

        async def request(number: int) -> None:
            await queue.take(number)
            begun.append(number)

        tasks = [asyncio.create_task(request(number)) for number in range(4)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return begun

    assert asyncio.run(run()) == [0, 2, 3]
