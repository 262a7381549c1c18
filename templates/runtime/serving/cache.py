"""Several models and versions in one process: loaded once, evicted by last use, replaced without dropping a request."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import ClassVar, Generic, Protocol, TypeVar

from loading.errors import BundleError

from serving.catalogue import Key, Known, version_key

PATIENCE_SECONDS = 30.0  # as long as a request may take by default
BACK_OFF_SECONDS, MOST_BACK_OFF_SECONDS = 1.0, 300.0  # after a load that failed; twice as long after each more


class UnknownModelError(BundleError):
    """There is no such model, or no such version of it, or it was unloaded."""

    code: ClassVar[str] = "unknown-model"


class BudgetError(BundleError):
    """The model does not fit into the memory that models may take."""

    code, exit_code = "memory-budget", 14


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


class Loaded(Protocol):
    """A model that can be served, and the bytes of memory that it takes, on the host and on the device."""

    bytes: int
    device_bytes: int

    def close(self) -> None:
        """Free it; nobody uses it any more."""


T = TypeVar("T", bound=Loaded)


@dataclass(frozen=True)
class State:
    """What is said of one version: READY, LOADING or UNAVAILABLE, why it is so, and what it takes when READY."""

    name: str
    version: str
    state: str
    reason: str = ""
    bytes: int = 0
    device_bytes: int = 0


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
        self._opener, self._on_evict, self._patience, self._clock = opener, on_evict, patience, clock
        self.budget, self.device_budget = budget, device_budget
        self._lock = threading.Lock()
        self._freed = threading.Condition(self._lock)
        self._leaving: list[Lease[T]] = []  # retired, and in use
        self._one_load = threading.Lock()  # what a load takes is only to be measured while no other runs
        self._known: dict[Key, Known] = {}
        self._loaded: OrderedDict[Key, Lease[T]] = OrderedDict()  # the one used last comes last
        self._loading: dict[Key, Future[None]] = {}
        self._current: dict[str, str] = {}  # the version that requests without one get
        self._withdrawn: set[str | Key] = set()  # models, and single versions
        self._failures: dict[Key, Failure] = {}

    def learn(self, bundles: Iterable[Known]) -> None:
        """From now on these are the bundles that can be loaded, besides those that are.

        A bundle whose files were replaced may be loaded at once, whatever became of it before.
        """
        with self._lock:
            found = {(bundle.name, bundle.version): bundle for bundle in bundles}
            self._failures = {
                key: failure for key, failure in self._failures.items() if found.get(key) == self._known.get(key)
            }
            self._known = {key: known for key, known in self._known.items() if key in self._loaded} | found

    def _resolve(self, name: str, version: str | None) -> Key:
        if version is None:
            version = self._latest(name)
        if version is None or (name, version) not in self._known:
            raise UnknownModelError("there is no such model, or no such version of it")
        return name, version

    def _latest(self, name: str) -> str | None:
        """The version for requests that name none: a bundle that was never loaded takes over from no loaded one."""
        versions = [known for owner, known in self._known if owner == name]
        current = self._current.get(name)
        if current in versions:
            return current
        offered = [version for version in versions if (name, version) not in self._withdrawn]
        if versions and not offered:
            raise UnknownModelError("the model was unloaded")
        loaded = [version for version in offered if (name, version) in self._loaded]
        return max(loaded or offered, key=version_key, default=None)

    def labels(self, name: str, version: str | None) -> Key:
        """Name and version for metrics: empty where the cache has no such model, however clients call it."""
        with self._lock:
            try:
                return self._resolve(name, version)
            except UnknownModelError:
                return name if any(owner == name for owner, _ in self._known) else "", ""

    def lease(self, name: str, version: str | None = None) -> Lease[T] | None:
        """The model, to be given back by `release`; None when it is to be loaded first.

        Raises:
            UnknownModelError: There is no such model, or it was unloaded.
        """
        with self._lock:
            key = self._resolve(name, version)
            if self._is_withdrawn(key):
                raise UnknownModelError("the model was unloaded")
            found = self._loaded.get(key)
            if found is not None:
                self._loaded.move_to_end(key)
                found.users += 1
                found.named |= version is not None
            return found

    def _is_withdrawn(self, key: Key) -> bool:
        return key in self._withdrawn or key[0] in self._withdrawn

    def release(self, lease: Lease[T]) -> None:
        """Give a lease back."""
        with self._lock:
            lease.users -= 1
            last = lease.retired and not lease.users
        if last:
            self._close(lease)

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
                versions = [known for owner, known in self._known if owner == name]
                version = max(versions, key=version_key, default=None)
            key = self._resolve(name, version)
            flight, mine = self._loading.get(key), False
            if key not in self._loaded and flight is None:
                if for_request:
                    self._refuse_early(key)
                flight, mine = Future(), True
                self._loading[key] = flight
        if mine and flight is not None:
            try:
                self._load(key)
            except BaseException as error:
                with self._lock:
                    self._failures[key] = self._failure(key, error)
                    del self._loading[key]
                flight.set_exception(error)
                raise
            with self._lock:
                self._failures.pop(key, None)
                del self._loading[key]
            flight.set_result(None)
        elif flight is not None:
            flight.result()
        self._take_over(key, newest=newest, unnamed=version is None)

    def _refuse_early(self, key: Key) -> None:
        failure = self._failures.get(key)
        if failure is not None and (seconds := failure.until - self._clock()) > 0:
            raise FailedBeforeError(failure.message, seconds)

    def _failure(self, key: Key, error: BaseException) -> Failure:
        before = self._failures.get(key)
        count = 1 if before is None else before.count + 1
        pause = min(BACK_OFF_SECONDS * 2.0 ** min(count - 1, 30), MOST_BACK_OFF_SECONDS)
        return Failure(count, str(error), self._clock() + pause)

    def _take_over(self, key: Key, *, newest: bool, unnamed: bool) -> None:
        """Turn to a version that was loaded; let go of those that it replaces, or of itself if it was unloaded."""
        name = key[0]
        with self._lock:
            if newest:
                self._current[name] = key[1]
                self._withdrawn -= {name, key}
                leaving = [
                    other
                    for other, lease in self._loaded.items()
                    if other[0] == name and other != key and not lease.named
                ]
            else:
                leaving = [key] if self._is_withdrawn(key) else []
                if unnamed and not leaving:
                    self._current.setdefault(name, key[1])
        for other in leaving:
            self._retire(other)

    def _load(self, key: Key) -> None:
        known = self._known[key]
        if known.ceiling and self.device_budget is not None and known.device_bytes > self.device_budget:
            # More than there is was allowed, which is not to need it.
            known = replace(known, device_bytes=known.bytes, ceiling=False)
        with self._one_load:
            who = f"{known.name} {known.version}"
            self._make_room(
                Need(known.bytes, f"{who} has {known.bytes} bytes of weights"),
                Need(known.device_bytes, f"{who} needs {known.device_bytes} bytes of device memory"),
            )
            loaded = self._opener(known)
            try:
                self._make_room(
                    Need(loaded.bytes, f"{who} took {loaded.bytes} bytes of memory"),
                    Need(loaded.device_bytes, f"{who} took {loaded.device_bytes} bytes of device memory"),
                )
            except BudgetError:
                loaded.close()
                raise
            with self._lock:
                self._loaded[key] = Lease(loaded)

    def _make_room(self, host: Need, device: Need) -> None:
        """Evict what was not used for longest, until what is needed fits on both.

        Raises:
            BudgetError: It alone is above a budget, or evicted models do not leave the device.
        """
        for need, budget, option in (
            (host, self.budget, "--model-memory-bytes"),
            (device, self.device_budget, "--device-memory-bytes"),
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
                        for key, lease in self._loaded.items()
                        if (short and lease.loaded.bytes) or (short_device and lease.loaded.device_bytes)
                    ),
                    None,
                )
                if key is None and not self._freed.wait(until - time.monotonic()):
                    raise BudgetError(
                        f"{device.what}, and models that were evicted still answer requests on the device. Try again."
                    )
            if key is not None:
                self._retire(key)
                if self._on_evict is not None:
                    self._on_evict()

    def _is_short(self, host: Need, device: Need) -> tuple[bool, bool, bool]:
        """Whether host and device lack room, and whether models on their way out still have it; under the lock."""
        loaded = [lease.loaded for lease in self._loaded.values()]
        taken, on_device = (sum(sizes) for sizes in ([e.bytes for e in loaded], [e.device_bytes for e in loaded]))
        # A session gives its memory back when it is closed and not before: on a device there is no other to take.
        leaving = sum(lease.loaded.device_bytes for lease in self._leaving)
        limit = math.inf if self.device_budget is None else self.device_budget
        return (
            self.budget is not None and taken + host.bytes > self.budget,
            on_device + device.bytes > limit,
            on_device + leaving + device.bytes > limit,
        )

    def _retire(self, key: Key) -> None:
        with self._lock:
            lease = self._loaded.pop(key, None)
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

    def unload(self, name: str, version: str | None = None) -> None:
        """Retire a version of a model, or all of them; requests that run on one still end there.

        Raises:
            UnknownModelError: There is no such model, or no such version of it.
        """
        with self._lock:
            keys = [key for key in self._known if key[0] == name and version in (None, key[1])]
            if not keys:
                raise UnknownModelError("there is no such model, or no such version of it")
            self._withdrawn.add(name if version is None else (name, version))
            if version in (None, self._current.get(name)):
                self._current.pop(name, None)
            keys = [key for key in keys if key in self._loaded]
        for key in keys:
            self._retire(key)

    def versions(self, name: str) -> list[str]:
        """Every version that can be asked for, the lowest first."""
        with self._lock:
            return sorted((version for owner, version in self._known if owner == name), key=version_key)

    def states(self) -> list[State]:
        """Every version that is known, and what became of it."""
        with self._lock:
            return [self._state(key) for key in sorted(self._known, key=lambda key: (key[0], version_key(key[1])))]

    def _state(self, key: Key) -> State:
        if key in self._loaded:
            loaded = self._loaded[key].loaded
            return State(*key, "READY", bytes=loaded.bytes, device_bytes=loaded.device_bytes)
        if key in self._loading:
            return State(*key, "LOADING")
        return State(*key, "UNAVAILABLE", "loading failed" if key in self._failures else "unloaded")

    def leased(self) -> list[T]:
        """All that is loaded now."""
        with self._lock:
            return [lease.loaded for lease in self._loaded.values()]
