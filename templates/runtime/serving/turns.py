"""Turns of requests that are no inference: many at once, from however many clients, delay inference by little."""

from __future__ import annotations

import asyncio
from collections import deque

PER_STEP = 2  # requests that begin in one step of the event loop


class Turns:
    """Lets a few requests begin in each step of the event loop, in the order in which they came."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._granting = False

    async def take(self) -> None:
        """Wait for a turn."""
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        self._waiting.append(turn)
        if not self._granting:
            self._granting = True
            loop.call_soon(self._grant, loop)
        await turn

    def _grant(self, loop: asyncio.AbstractEventLoop) -> None:
        granted = 0
        while self._waiting and granted < PER_STEP:
            turn = self._waiting.popleft()
            if not turn.done():  # its client may have left
                turn.set_result(None)
                granted += 1
        self._granting = bool(self._waiting)
        if self._granting:
            loop.call_soon(self._grant, loop)
