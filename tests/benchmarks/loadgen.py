"""A client that costs little: prepared requests on many connections from one thread, every answer looked at."""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

Check = Callable[[int, bytes], bool]


class BrokenError(Exception):
    """The server closed a connection in the middle, or what came is not HTTP."""


def http_request(path: str, body: bytes, headers: dict[str, str] | None = None) -> bytes:
    """The bytes of a POST on a connection that stays open."""
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


@dataclass
class Result:
    """Latencies in milliseconds, in the order of completion; seconds of the whole; answers that were not right."""

    latencies_ms: list[float] = field(default_factory=list)
    seconds: float = 0.0
    wrong: int = 0
    statuses: dict[int, int] = field(default_factory=dict)

    @property
    def per_second(self) -> float:
        """Requests per second."""
        return len(self.latencies_ms) / self.seconds


class _Connection:
    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.index = -1
        self.began = 0.0
        self.received = bytearray()
        self.needed = -1
        self.body_at = 0

    def send(self, index: int, request: bytes) -> None:
        self.index, self.needed = index, -1
        self.received.clear()
        self.began = time.perf_counter()
        self.socket.sendall(request)

    def receive(self) -> bool:
        """Take what is there; whether the answer is whole."""
        part = self.socket.recv(262144)
        if not part:
            raise BrokenError(f"closed after {len(self.received)} bytes of an answer")
        self.received += part
        if self.needed < 0:
            end = self.received.find(b"\r\n\r\n")
            if end < 0:
                return False
            head = bytes(self.received[:end]).lower()
            at = head.find(b"content-length:")
            if at < 0:
                raise BrokenError(f"no length: {head!r}")
            self.body_at = end + 4
            self.needed = self.body_at + int(head[at + 15 :].split(b"\r\n", 1)[0])
        return len(self.received) >= self.needed


def load(port: int, requests: Iterator[tuple[int, bytes]], connections: int, check: Check, *, every: int = 1) -> Result:
    """Send requests, each with its number for `check`, from as many connections at once; `every` n-th is checked.

    Raises:
        BrokenError: an answer was cut.
    """
    result = Result()
    chooser = selectors.DefaultSelector()
    opened = [_Connection(port) for _ in range(connections)]
    try:
        running = 0
        began = time.perf_counter()
        for connection in opened:
            following = next(requests, None)
            if following is None:
                break
            chooser.register(connection.socket, selectors.EVENT_READ, connection)
            connection.send(*following)
            running += 1
        count = 0
        while running:
            for key, _ in chooser.select(90) or _silent():
                connection = key.data
                if not connection.receive():
                    continue
                result.latencies_ms.append((time.perf_counter() - connection.began) * 1000)
                status = int(connection.received[9:12])
                result.statuses[status] = result.statuses.get(status, 0) + 1
                answered = connection.index
                body = bytes(connection.received[connection.body_at :]) if count % every == 0 else None
                following = next(requests, None)
                if following is None:
                    chooser.unregister(connection.socket)
                    running -= 1
                else:
                    connection.send(*following)
                if body is not None and not (status == 200 and check(answered, body)):
                    result.wrong += 1
                count += 1
        result.seconds = time.perf_counter() - began
    finally:
        for connection in opened:
            connection.socket.close()
        chooser.close()
    return result


def _silent() -> list[tuple[selectors.SelectorKey, int]]:
    raise BrokenError("no answer for a minute")
