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
    made.pipeline, made.transport = [], SimpleNamespace(is_closing=lambda: False)
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


def test_few_requests_begin_in_a_step_of_the_loop() -> None:
    """In the order in which they came; one whose client left takes no turn of another."""

    async def run() -> list[list[int]]:
        queue, begun, steps = turns.Turns(), list[int](), list[list[int]]()

        async def request(number: int) -> None:
            await queue.take()
            begun.append(number)

        tasks = [asyncio.create_task(request(number)) for number in range(6)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        while len(begun) < 5:
            await asyncio.sleep(0)
            steps.append(list(begun))
        await asyncio.gather(*tasks, return_exceptions=True)
        return steps

    steps = asyncio.run(run())
    assert steps[-1] == [0, 2, 3, 4, 5]
    assert all(len(after) - len(before) <= turns.PER_STEP for before, after in zip([[], *steps], steps, strict=False))
