"""Turns of what may wait: many requests at once, from however many clients, delay those of other clients by little."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

SPACING_SECONDS = 0.004  # between two turns, while clients ask that wait for none


class Turns:
    """Lets one client after another begin something, in the order in which they came: one in a step of the event loop.

    Requests that are no inference take turns, and so do requests that arrived before their client had the answer to the
    last. One that has none before it begins at once.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiting: dict[object, Callable[[], None]] = {}
        self._asking: dict[object, float] = {}  # and when, the last one last
        self._under_way = False
        self._last = -SPACING_SECONDS

    def asks(self, client: object) -> None:
        """Note that a client asks for something."""
        self._asking.pop(client, None)
        self._asking[client] = self._clock()

    def put(self, client: object, begin: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        """Call `begin` when it is the turn of this client, which waits for no other."""
        self._waiting[client] = begin
        if not self._under_way:
            self._under_way = True
            self._wait(loop)

    def drop(self, client: object) -> None:
        """It is gone."""
        self._waiting.pop(client, None)
        self._asking.pop(client, None)

    async def take(self, client: object) -> None:
        """Wait for the turn of this client, which waits for no other."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self.put(client, lambda: None if turn.done() else turn.set_result(None), loop)
        await turn

    def _wait(self, loop: asyncio.AbstractEventLoop) -> None:
        now = self._clock()
        for client, when in list(self._asking.items()):
            if now - when < SPACING_SECONDS:
                break
            del self._asking[client]
        others = not self._asking.keys() <= self._waiting.keys()
        loop.call_later(max(0.0, self._last + SPACING_SECONDS - now) if others else 0.0, self._step, loop)

    def _step(self, loop: asyncio.AbstractEventLoop) -> None:
        client = next(iter(self._waiting), None)
        if client is not None:
            self._waiting.pop(client)()
        # What begins does its work in the next step of the loop, before this.
        loop.call_soon(self._begun, loop)

    def _begun(self, loop: asyncio.AbstractEventLoop) -> None:
        self._last = self._clock()
        self._under_way = bool(self._waiting)
        if self._under_way:
            self._wait(loop)
