"""The memory that requests hold: bytes that arrived and answers that were not read yet, within one bound."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from serving.errors import RefusedError

SMALL_BYTES = 65536  # requests up to this size have a quarter of the bound for themselves
STEP_BYTES = 16384  # that count as progress
STALLED_SECONDS = 1.0  # without progress, after which a request makes room for others
SLOWEST_SECONDS = 5.0  # without progress, after which it ends in any case
CGROUP = Path("/sys/fs/cgroup")


class Hold:
    """What one request holds. `evict` ends it; None while it waits for the server and not for its client."""

    __slots__ = ("_clock", "_moved", "bytes", "evict", "since")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.bytes = self._moved = 0
        self.evict: Callable[[], None] | None = None
        self.since = clock()

    def progress(self, count: int) -> None:
        """So many bytes came or went."""
        self._moved += count
        if self._moved >= STEP_BYTES:
            self.restart()

    def restart(self) -> None:
        """Begin to wait for the client from now on."""
        self._moved, self.since = 0, self._clock()


class Memory:
    """A bound on the bytes that all requests hold together. Belongs to one event loop."""

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit, self._clock = limit, clock
        self.taken = 0
        self._holds: dict[Hold, None] = {}

    @contextlib.contextmanager
    def hold(self) -> Iterator[Hold]:
        """A request that holds nothing yet; it gives back what it holds at the end."""
        held = Hold(self._clock)
        self._holds[held] = None
        try:
            yield held
        finally:
            self.give_back(held)
            self._holds.pop(held, None)

    def take(self, held: Hold, count: int) -> None:
        """Let a request hold more. A request that is alone may hold anything: its own bounds apply.

        Raises:
            RefusedError: 503, there is no room, and nobody who waits for a client makes some.
        """
        room = self.limit if held.bytes + count <= SMALL_BYTES else self.limit - self.limit // 4
        if self.taken + count > room and self.taken > held.bytes:
            self._make_room(self.taken + count - room, held)
            if self.taken + count > room and self.taken > held.bytes:
                raise RefusedError(503, "busy", "too many large requests are under way; try again later", 1)
        self.taken += count
        held.bytes += count

    def give_back(self, held: Hold, count: int | None = None) -> None:
        """Hold so much less, or nothing any more."""
        count = held.bytes if count is None else min(count, held.bytes)
        self.taken -= count
        held.bytes -= count

    def sweep(self) -> None:
        """End what is too slow: large bodies and answers that make no progress."""
        now = self._clock()
        for held in list(self._holds):
            if held.evict is not None and held.bytes > SMALL_BYTES and now - held.since > SLOWEST_SECONDS:
                self._evict(held)

    def _make_room(self, count: int, wanting: Hold) -> None:
        now = self._clock()
        stalled = [
            held
            for held in self._holds
            if held is not wanting and held.evict is not None and held.bytes and now - held.since > STALLED_SECONDS
        ]
        for held in sorted(stalled, key=lambda held: held.bytes, reverse=True):
            if count <= 0:
                return
            count -= held.bytes
            self._evict(held)

    def _evict(self, held: Hold) -> None:
        evict, held.evict = held.evict, None
        self.give_back(held)
        if evict is not None:
            evict()


def container_limit() -> int | None:
    """Bytes that the container of this process may take, as its control group says; None where none does."""
    try:
        paths = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text("utf-8").splitlines()]
    except OSError:
        return None
    found = list[int]()
    for _, controllers, path in (parts for parts in paths if len(parts) == 3):
        inner = path.lstrip("/")
        files = {
            "": [CGROUP / inner / "memory.max", CGROUP / "memory.max"],
            "memory": [CGROUP / "memory" / inner / "memory.limit_in_bytes", CGROUP / "memory/memory.limit_in_bytes"],
        }.get(controllers, [])
        for file in files:
            with contextlib.suppress(OSError, ValueError):
                found.append(int(file.read_text("utf-8")))
    return min((limit for limit in found if 0 < limit < 2**60), default=None)
