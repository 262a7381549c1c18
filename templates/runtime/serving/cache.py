"""Several models and versions in one process: loaded once, evicted by last use, replaced without dropping a request."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Generic

from serving.backoff import Failures
from serving.catalogue import Key, Known
from serving.residents import PATIENCE_SECONDS, BudgetError, Budgets, Lease, Need, Residents, T
from serving.versions import UnknownModelError, Versions


@dataclass(frozen=True)
class State:
    """What is said of one version: READY, LOADING or UNAVAILABLE, why it is so, and what it takes when READY."""

    name: str
    version: str
    state: str
    reason: str = ""
    bytes: int = 0
    device_bytes: int = 0


class ModelCache(Generic[T]):
    """Models by name and version. Every method may be called from any thread; only `load` takes long."""

    def __init__(
        self,
        opener: Callable[[Known], T],
        *,
        budget: int | None = None,
        device_budget: int | None = None,
        on_evict: Callable[[], None] | None = None,
        patience: float = PATIENCE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is loaded yet.

        Args:
            opener: Loads a bundle.
            budget: Bytes of the host's memory that all models may take together; None for no bound.
            device_budget: The same of the device's memory, and models that still answer their last requests count.
            on_evict: Called for every model that makes room.
            patience: Seconds to wait until evicted models have left the device.
            clock: Seconds, for the pauses after loads that failed.
        """
        self._opener = opener
        self.budgets = Budgets(budget, device_budget)
        self._lock = threading.Lock()
        self._one_load = threading.Lock()  # what a load takes is only to be measured while no other runs
        self._residents = Residents[T](self._lock, self.budgets, on_evict=on_evict, patience=patience)
        self._versions = Versions()
        self._failures = Failures(clock)
        self._loading: dict[Key, Future[None]] = {}

    def learn(self, bundles: Iterable[Known]) -> None:
        """From now on these are the bundles that can be loaded, besides those that are.

        A bundle whose files were replaced may be loaded at once, whatever became of it before.
        """
        with self._lock:
            self._failures.keep(self._versions.learn(bundles, self._residents.loaded))

    def labels(self, name: str, version: str | None) -> Key:
        """Name and version for metrics: empty where the cache has no such model, however clients call it."""
        with self._lock:
            try:
                return self._versions.resolve(name, version, self._residents.loaded)
            except UnknownModelError:
                return name if self._versions.of(name) else "", ""

    def lease(self, name: str, version: str | None = None) -> Lease[T] | None:
        """The model, to be given back by `release`; None when it is to be loaded first.

        Raises:
            UnknownModelError: There is no such model, or it was unloaded.
        """
        with self._lock:
            key = self._versions.resolve(name, version, self._residents.loaded)
            if self._versions.is_withdrawn(key):
                raise UnknownModelError("the model was unloaded")
            return self._residents.lease(key, named=version is not None)

    def release(self, lease: Lease[T]) -> None:
        """Give a lease back."""
        self._residents.release(lease)

    def load(self, name: str, version: str | None = None, *, newest: bool = False, for_request: bool = False) -> None:
        """Load a version, unless it is or another thread does: then wait for that.

        `newest` takes the highest version there is, and makes it the one for requests that name none; other versions
        leave, but for those that requests asked for by version. `for_request` loads nothing that failed a while ago.

        Raises:
            FailedBeforeError: It failed before, and it is too early to try again.
            BundleError: It cannot be loaded; whatever was loaded before still is, but for what was evicted for it.
        """
        with self._lock:
            if newest:
                version = self._versions.newest(name)
            key = self._versions.resolve(name, version, self._residents.loaded)
            flight, mine = self._loading.get(key), False
            if key not in self._residents.loaded and flight is None:
                if for_request:
                    self._failures.refuse_early(key)
                flight, mine = Future(), True
                self._loading[key] = flight
        if mine and flight is not None:
            try:
                self._load(key)
            except BaseException as error:
                with self._lock:
                    self._failures.add(key, error)
                    del self._loading[key]
                flight.set_exception(error)
                raise
            with self._lock:
                self._failures.forget(key)
                del self._loading[key]
            flight.set_result(None)
        elif flight is not None:
            flight.result()
        self._take_over(key, newest=newest, unnamed=version is None)

    def _take_over(self, key: Key, *, newest: bool, unnamed: bool) -> None:
        """Turn to a version that was loaded; let go of those that it replaces, or of itself if it was unloaded."""
        with self._lock:
            if newest:
                self._versions.turn_to(key)
                leaving = [
                    other
                    for other, lease in self._residents.loaded.items()
                    if other[0] == key[0] and other != key and not lease.named
                ]
            else:
                leaving = [key] if self._versions.is_withdrawn(key) else []
                if unnamed and not leaving:
                    self._versions.settle(key)
        for other in leaving:
            self._residents.retire(other)

    def _load(self, key: Key) -> None:
        known = self._versions.known(key)
        most = self.budgets.device
        if known.ceiling and most is not None and known.device_bytes > most:
            # More than there is was allowed, which is not to need it.
            known = replace(known, device_bytes=known.bytes, ceiling=False)
        with self._one_load:
            who = f"{known.name} {known.version}"
            self._residents.make_room(
                Need(known.bytes, f"{who} has {known.bytes} bytes of weights"),
                Need(known.device_bytes, f"{who} needs {known.device_bytes} bytes of device memory"),
            )
            loaded = self._opener(known)
            try:
                self._residents.make_room(
                    Need(loaded.bytes, f"{who} took {loaded.bytes} bytes of memory"),
                    Need(loaded.device_bytes, f"{who} took {loaded.device_bytes} bytes of device memory"),
                )
            except BudgetError:
                loaded.close()
                raise
            self._residents.add(key, loaded)

    def unload(self, name: str, version: str | None = None) -> None:
        """Retire a version of a model, or all of them; requests that run on one still end there.

        Raises:
            UnknownModelError: There is no such model, or no such version of it.
        """
        with self._lock:
            keys = [key for key in self._versions.withdraw(name, version) if key in self._residents.loaded]
        for key in keys:
            self._residents.retire(key)

    def unknown(self, name: str) -> UnknownModelError:
        """The error that says what there is instead of a model."""
        with self._lock:
            return self._versions.unknown(name)

    def versions(self, name: str) -> list[str]:
        """Every version that can be asked for, the lowest first."""
        with self._lock:
            return self._versions.of(name)

    def states(self) -> list[State]:
        """Every version that is known, and what became of it."""
        with self._lock:
            return [self._state(key) for key in self._versions.all()]

    def _state(self, key: Key) -> State:
        if key in self._residents.loaded:
            loaded = self._residents.loaded[key].loaded
            return State(*key, "READY", bytes=loaded.bytes, device_bytes=loaded.device_bytes)
        if key in self._loading:
            return State(*key, "LOADING")
        return State(*key, "UNAVAILABLE", "loading failed" if key in self._failures else "unloaded")

    def leased(self) -> list[T]:
        """All that is loaded now."""
        with self._lock:
            return [lease.loaded for lease in self._residents.loaded.values()]
