"""The end of a server, and its beginning: what is refused then, and what is waited for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from serving.errors import RefusedError


class Drain:
    """Counts what is under way, and ends it. Belongs to one event loop.

    Attributes:
        starting: The models are being loaded.
        draining: The end has begun; it never comes back.
        aborting: Whatever still runs is cut off.
        in_flight: Requests that are under way.
    """

    def __init__(self) -> None:
        self.starting, self.draining, self.aborting = True, False, False
        self.in_flight = 0
        self._refusing = False
        self._empty = asyncio.Event()
        self._deadlines: set[asyncio.Timeout] = set()

    @property
    def ready(self) -> bool:
        """Whether the server takes work, and will for now."""
        return not self.starting and not self.draining

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """A request is under way: a drain waits for it."""
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1
            if self.draining and not self.in_flight:
                self._empty.set()

    @contextlib.contextmanager
    def bounded(self, deadline: asyncio.Timeout) -> Iterator[None]:
        """Keep the deadline where the end of the server can bring it forward."""
        self._deadlines.add(deadline)
        try:
            yield
        finally:
            self._deadlines.discard(deadline)

    def admit(self) -> None:
        """Raise RefusedError before work is taken, and once no more is."""
        if self.starting:
            raise RefusedError(503, "starting", "the models are being loaded; try again later", 1)
        if self._refusing:
            raise RefusedError(503, "draining", "the server is shutting down", 1)

    async def run(self, delay: float, seconds: float) -> None:
        """Be not ready for `delay` seconds, then take no more work, and wait up to `seconds` for what runs."""
        self.draining = True
        await asyncio.sleep(delay)
        self._refusing = True
        if self.in_flight:
            self._empty.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), seconds)
        self.aborting = True
        for deadline in self._deadlines:
            if not deadline.expired():
                deadline.reschedule(0)
