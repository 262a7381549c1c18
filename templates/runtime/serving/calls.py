"""One inference request from its head to its answer, and what it may cost."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from serving.models import Served
from serving.residents import Lease
from serving.tracing import Span

REQUEST_ID = re.compile(rb"[!-~]{1,128}")


@dataclass(frozen=True)
class Limits:
    """What a request may cost: bytes of its body, of all bodies and answers at once, and seconds until its answer."""

    body_bytes: int = 16 * 2**20
    all_body_bytes: int = 256 * 2**20
    seconds: float = 30.0
    connections: int = 1024
    fixed: bool = False  # whether `all_body_bytes` holds in a container with less memory, too


@dataclass(eq=False, slots=True)
class Call:
    """One inference request from its head on, and how it ended: `status` is HTTP's, `problem` is for the client."""

    name: str
    version: str | None
    id: str
    began: float
    seconds: float  # that it may take
    route: str = "infer"  # for metrics, traces and the log: `infer`, `embeddings`, `rerank` or `predict`
    span: Span | None = None
    lease: Lease[Served] | None = None
    receiving: bool = False  # it is the client that is waited for
    deadline: asyncio.Timeout | None = None
    too_slow: bool = False
    status: int = 200
    kind: str = ""
    problem: str = ""
    retry_after: int | None = None
    parameter: str | None = None  # the argument that is wrong

    def give_up(self) -> None:
        """Stop waiting for the client: its request is too slow for what it holds."""
        if self.deadline is not None and not self.deadline.expired():
            self.too_slow = True
            self.deadline.reschedule(0)

    def refuse(
        self, status: int, kind: str, problem: str, retry_after: int | None = None, parameter: str | None = None
    ) -> None:
        """It is answered with an error."""
        self.status, self.kind, self.problem, self.retry_after = status, kind, problem, retry_after
        self.parameter = parameter


class RequestIds:
    """Names for requests that bring none: the same for no two, of this process or another."""

    def __init__(self) -> None:
        self._prefix, self._count = os.urandom(6).hex(), 0

    def of(self, headers: Sequence[tuple[bytes, bytes]]) -> str:
        """The client's X-Request-Id, or a new one."""
        for name, value in headers:
            if name == b"x-request-id" and REQUEST_ID.fullmatch(value):
                return value.decode("ascii")
        self._count += 1
        return f"{self._prefix}-{self._count}"
