"""Loaded models and the memory that they take: leased by requests, evicted by last use, closed by their last user."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from loading.errors import BundleError

from serving.catalogue import Key

PATIENCE_SECONDS = 30.0  # as long as a request may take by default


class BudgetError(BundleError):
    """The model does not fit into the memory that models may take."""

    code, exit_code = "memory-budget", 14


class Loaded(Protocol):
    """A model that can be served, and the bytes of memory that it takes, on the host and on the device."""

    bytes: int
    device_bytes: int

    def close(self) -> None:
        """Free it; nobody uses it any more."""


T = TypeVar("T", bound=Loaded)


@dataclass
class Budgets:
    """Bytes of memory that all models may take together, on the host and on the device; None for no bound.

    On the device, models that still answer their last requests count. Its memory is known once a runtime was imported,
    which is after the cache was made.
    """

    host: int | None = None
    device: int | None = None


@dataclass(frozen=True)
class Need:
    """Bytes that are needed, and that in words."""

    bytes: int
    what: str


@dataclass(eq=False)
class Lease(Generic[T]):
    """A loaded model and how many use it. One that is retired is closed by the last who used it.

    `named` is whether a request asked for it by its version.
    """

    loaded: T
    users: int = 0
    retired: bool = False
    named: bool = False


class Residents(Generic[T]):
    """Models in memory, under a lock that others share; methods say whether they take it.

    Attributes:
        loaded: By name and version, under the lock; the one used last comes last.
    """

    def __init__(
        self,
        lock: threading.Lock,
        budgets: Budgets,
        *,
        on_evict: Callable[[], None] | None = None,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        """Nothing is loaded yet.

        Args:
            lock: Guards everything here.
            budgets: What all models may take.
            on_evict: Called for every model that makes room.
            patience: Seconds to wait until evicted models have left the device.
        """
        self._lock, self._budgets, self._on_evict, self._patience = lock, budgets, on_evict, patience
        self._freed = threading.Condition(lock)
        self._leaving: list[Lease[T]] = []  # retired, and in use
        self.loaded: OrderedDict[Key, Lease[T]] = OrderedDict()

    def lease(self, key: Key, *, named: bool) -> Lease[T] | None:
        """A loaded model for one more user; under the lock."""
        found = self.loaded.get(key)
        if found is not None:
            self.loaded.move_to_end(key)
            found.users += 1
            found.named |= named
        return found

    def release(self, lease: Lease[T]) -> None:
        """Give a lease back; takes the lock."""
        with self._lock:
            lease.users -= 1
            last = lease.retired and not lease.users
        if last:
            self._close(lease)

    def add(self, key: Key, loaded: T) -> None:
        """A model that was loaded; takes the lock."""
        with self._lock:
            self.loaded[key] = Lease(loaded)

    def retire(self, key: Key) -> None:
        """Let a model go, now or with its last user; takes the lock."""
        with self._lock:
            lease = self.loaded.pop(key, None)
            if lease is None:
                return
            lease.retired = True
            self._leaving.append(lease)
            idle = not lease.users
        if idle:
            self._close(lease)

    def _close(self, lease: Lease[T]) -> None:
        try:
            lease.loaded.close()
        finally:
            with self._lock:
                self._leaving.remove(lease)
                self._freed.notify_all()

    def make_room(self, host: Need, device: Need) -> None:
        """Evict what was not used for longest, until what is needed fits on both; takes the lock.

        Raises:
            BudgetError: It alone is above a budget, or evicted models do not leave the device.
        """
        for need, budget, option in (
            (host, self._budgets.host, "--model-memory-bytes"),
            (device, self._budgets.device, "--device-memory-bytes"),
        ):
            if budget is not None and need.bytes > budget:
                raise BudgetError(f"{need.what}, and all models together may take {budget}. Raise {option}.")
        until = time.monotonic() + self._patience
        while True:
            with self._lock:
                short, short_device, occupied = self._is_short(host, device)
                if not short and not short_device and not occupied:
                    return
                # One that holds nothing of what is short makes no room, and what is on its way out need not be made.
                key = next(
                    (
                        key
                        for key, lease in self.loaded.items()
                        if (short and lease.loaded.bytes) or (short_device and lease.loaded.device_bytes)
                    ),
                    None,
                )
                if key is None and not self._freed.wait(until - time.monotonic()):
                    raise BudgetError(
                        f"{device.what}, and models that were evicted still answer requests on the device. Try again."
                    )
            if key is not None:
                self.retire(key)
                if self._on_evict is not None:
                    self._on_evict()

    def _is_short(self, host: Need, device: Need) -> tuple[bool, bool, bool]:
        """Whether host and device lack room, and whether models on their way out still have it; under the lock."""
        loaded = [lease.loaded for lease in self.loaded.values()]
        taken, on_device = (sum(sizes) for sizes in ([e.bytes for e in loaded], [e.device_bytes for e in loaded]))
        # A session gives its memory back when it is closed and not before: on a device there is no other to take.
        leaving = sum(lease.loaded.device_bytes for lease in self._leaving)
        limit = math.inf if self._budgets.device is None else self._budgets.device
        return (
            self._budgets.host is not None and taken + host.bytes > self._budgets.host,
            on_device + device.bytes > limit,
            on_device + leaving + device.bytes > limit,
        )
