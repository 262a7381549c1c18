"""Pauses after loads that failed, so that requests do not repeat them without end."""

from __future__ import annotations

import time
from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import ClassVar

from loading.errors import BundleError

from serving.catalogue import Key

BACK_OFF_SECONDS, MOST_BACK_OFF_SECONDS = 1.0, 300.0  # after a load that failed; twice as long after each more


class FailedBeforeError(BundleError):
    """Loading failed a short while ago, and is not tried again before `seconds` have passed."""

    code: ClassVar[str] = "load-failed"

    def __init__(self, message: str, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds


@dataclass(frozen=True)
class Failure:
    """A load that failed: how many in a row, why, and until when requests do not cause another."""

    count: int
    message: str
    until: float


class Failures:
    """Versions whose last load failed. Not thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failed: dict[Key, Failure] = {}

    def __contains__(self, key: Key) -> bool:
        return key in self._failed

    def add(self, key: Key, error: BaseException) -> None:
        """One more load failed."""
        before = self._failed.get(key)
        count = 1 if before is None else before.count + 1
        pause = min(BACK_OFF_SECONDS * 2.0 ** min(count - 1, 30), MOST_BACK_OFF_SECONDS)
        self._failed[key] = Failure(count, str(error), self._clock() + pause)

    def forget(self, key: Key) -> None:
        """It was loaded."""
        self._failed.pop(key, None)

    def keep(self, keys: Container[Key]) -> None:
        """Forget all but these."""
        self._failed = {key: failure for key, failure in self._failed.items() if key in keys}

    def refuse_early(self, key: Key) -> None:
        """Raise FailedBeforeError where it is too early to try again."""
        failure = self._failed.get(key)
        if failure is not None and (seconds := failure.until - self._clock()) > 0:
            raise FailedBeforeError(failure.message, seconds)
