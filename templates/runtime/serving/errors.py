"""Answers that are not 200."""

from __future__ import annotations

from serving.bounds import clipped


class RefusedError(Exception):
    """An answer that is not 200. The message goes to the client; `kind` is for metrics and logs.

    `parameter` is the argument of the request that is wrong, where one is.
    """

    def __init__(
        self, status: int, kind: str, message: str, retry_after: int | None = None, *, parameter: str | None = None
    ) -> None:
        super().__init__(clipped(message))
        self.status, self.kind, self.retry_after, self.parameter = status, kind, retry_after, parameter


def bad(message: str, status: int = 400) -> RefusedError:
    """The client's mistake."""
    return RefusedError(status, "request", message)
