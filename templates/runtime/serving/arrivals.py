"""Messages that gRPC has not handed over yet: how many bytes of one arrived, nobody says before it is whole."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from serving.memory import Memory
from serving.models import rss_bytes

LOOK_SECONDS = 0.05
PATIENCE_SECONDS = 0.25  # for messages beyond those for whose longest there is room


class Waiting(Protocol):
    """A call whose message is waited for."""

    def give_up(self) -> None:
        """Wait no longer."""


class Arrivals:
    """The calls whose messages are on their way.

    A whole message waits in the process and is handed over at once. A message that is not whole after a while may hold
    anything up to its limit: only so many of these may wait as there is room for the longest of each, and none where
    the memory of the process grew by more than there is room for. The oldest are given up first.
    """

    def __init__(
        self,
        memory: Memory,
        most_bytes: int,
        *,
        resident: Callable[[], int] = rss_bytes,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`most_bytes` is the limit of one message; `resident` says what the process holds."""
        self._memory, self._most_bytes = memory, most_bytes
        self._resident, self._clock = resident, clock
        self._calls: dict[Waiting, float] = {}
        self._before = 0  # resident bytes when the first of them began to wait
        self._timer: asyncio.TimerHandle | None = None

    @contextlib.contextmanager
    def waiting(self, call: Waiting) -> Iterator[None]:
        """The message of this call is waited for."""
        self._calls[call] = self._clock()
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._tick)
        try:
            yield
        finally:
            self._calls.pop(call, None)

    def look(self) -> None:
        """Give up those for which there is no room."""
        now = self._clock()
        late = [call for call, began in self._calls.items() if now - began >= PATIENCE_SECONDS]
        room = max(1, (self._memory.limit - self._memory.taken) // self._most_bytes)
        for call in late[: max(0, len(late) - room)]:
            self._give_up(call)
        resident = self._resident()
        if not self._before:
            self._before = resident
        if resident - self._before > self._memory.limit:
            for call in list(self._calls):
                self._give_up(call)

    def _give_up(self, call: Waiting) -> None:
        self._calls.pop(call, None)
        call.give_up()

    def _tick(self) -> None:
        self._timer = None
        if not self._calls:
            self._before = 0
            return
        self.look()
        self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._tick)
