"""Connections: how many there may be, who makes room for a new one, and how they are accepted."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from loading.errors import UsageError

from serving import logs
from serving.turns import Turns

BACKLOG = 4096
KERNEL_BYTES = 131072  # of a connection in each direction, which the kernel doubles; answers beyond wait in the process
AT_ONCE = 64  # connections that are accepted before requests have their turn
SLOW_SECONDS = 1.0  # after which a body that still arrives makes room
RESERVED = 64  # descriptors for files, pipes and what libraries open
MOST_DESCRIPTORS = 65536
RETRY_SECONDS, LONGEST_RETRY_SECONDS = 0.05, 1.0  # after the system refused to accept


class Closable(Protocol):
    """A connection."""

    def abort(self) -> None:
        """Close at once."""

    def sweep(self, now: float) -> None:
        """Close it if its client does not read."""


C = TypeVar("C", bound=Closable)


class Connections(Generic[C]):
    """The open connections. At the limit, the one that waits for its client for longest makes room."""

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit, self._clock = limit, clock
        self._all: dict[C, None] = {}
        # In the order in which they make room: no request yet, none under way, a body on its way.
        self._new: dict[C, float] = {}
        self._resting: dict[C, float] = {}
        self._receiving: dict[C, float] = {}
        self.turns = Turns()
        self.refusals = 0

    def __len__(self) -> int:
        return len(self._all)

    def admit(self, connection: C) -> bool:
        """Take a new connection, in place of another where there are too many; False where none makes room."""
        if len(self._all) >= self.limit and not self.evict():
            return False
        self.turns.asks(connection)
        self._all[connection] = None
        self._new[connection] = self._clock()
        return True

    def evict(self) -> bool:
        """Close the connection that is needed least; whether there is one."""
        for group, least in ((self._new, 0.0), (self._resting, 0.0), (self._receiving, SLOW_SECONDS)):
            connection = next(iter(group), None)
            if connection is not None and self._clock() - group[connection] >= least:
                self.forget(connection)
                connection.abort()
                return True
        return False

    def work(self, connection: C) -> None:
        """A request has begun."""
        self._new.pop(connection, None)
        self._resting.pop(connection, None)
        if connection in self._all:
            self._receiving[connection] = self._clock()

    def received(self, connection: C) -> None:
        """The body of its request is there: from now on it waits for the server."""
        self._receiving.pop(connection, None)

    def rest(self, connection: C) -> None:
        """Its last request was answered."""
        self._receiving.pop(connection, None)
        if connection in self._all:
            self._resting[connection] = self._clock()

    def forget(self, connection: C) -> None:
        """It is closed."""
        for group in (self._all, self._new, self._resting, self._receiving):
            group.pop(connection, None)
        self.turns.drop(connection)

    def refused(self) -> None:
        """Count a connection whose request never reached the application."""
        self.refusals += 1

    def sweep(self) -> None:
        """Close connections of clients that do not read."""
        now = self._clock()
        for connection in list(self._all):
            connection.sweep(now)


class Acceptor:
    """Accepts connections in small numbers, and pauses while the system has no descriptors or memory for them."""

    def __init__(
        self, listener: socket.socket, make: Callable[[], asyncio.Protocol], evict: Callable[[], bool]
    ) -> None:
        """Accept from a socket that listens; `evict` closes a connection to free its descriptor."""
        self._listener, self._make, self._evict = listener, make, evict
        self._loop = asyncio.get_running_loop()
        self._pause = RETRY_SECONDS
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._opening: set[asyncio.Task[object]] = set()
        listener.setblocking(False)
        self._resume()

    def close(self) -> None:
        """Accept no more."""
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._listener.fileno())
            if self._timer is not None:
                self._timer.cancel()

    async def wait_closed(self) -> None:
        """Do nothing: closing takes no time."""

    def _resume(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._listener.fileno(), self._accept)

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            try:
                accepted, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._wait(error)
                return
            self._pause = RETRY_SECONDS
            accepted.setblocking(False)
            task = self._loop.create_task(self._open(accepted))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _open(self, accepted: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the client is gone already
            await self._loop.connect_accepted_socket(self._make, accepted)

    def _wait(self, error: OSError) -> None:
        """The system has no descriptors or memory left: free one, and come back later."""
        logs.write("warning", "accept-failed", error=error.strerror or str(error), pause_seconds=self._pause)
        self._loop.remove_reader(self._listener.fileno())
        self._evict()
        self._timer = self._loop.call_later(self._pause, self._resume)
        self._pause = min(self._pause * 2, LONGEST_RETRY_SECONDS)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        UsageError: The port is not to be had.
    """
    # The protocol is named: asyncio turns Nagle's algorithm off only then. With it an answer of several parts would
    # wait for the client's delayed acknowledgement of the first: 40 ms.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):  # accepted sockets inherit them
            listener.setsockopt(socket.SOL_SOCKET, option, KERNEL_BYTES)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except (OSError, OverflowError, TypeError, ValueError) as error:  # a host that is no name, too
        listener.close()
        raise UsageError(
            f"cannot listen on {ascii(host)[1:-1]}:{port}: {getattr(error, 'strerror', None) or error}"
        ) from error
    return listener


def most_connections(wanted: int, protocols: int) -> int:
    """How many connections each of so many protocols may have: `wanted`, or what descriptors are left for.

    The soft limit of descriptors is raised as far as the system allows.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            soft = most
    if soft == resource.RLIM_INFINITY:
        return wanted
    try:
        used = sum(1 for _ in Path("/proc/self/fd").iterdir())
    except OSError:
        used = RESERVED
    return max(1, min(wanted, (soft - used - RESERVED) // protocols))
