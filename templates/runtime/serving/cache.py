"""Several models and versions in one process: loaded once, evicted by last use, replaced without dropping a request."""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Generic, Protocol, TypeVar

from loader import BundleError

DEPTH = 4  # a directory of DIRECTORY/NAME/VERSION/TARGET
Key = tuple[str, str]  # name, version


class UnknownModelError(BundleError):
    """There is no such model, or no such version of it, or it was unloaded."""

    code: ClassVar[str] = "unknown-model"


class BudgetError(BundleError):
    """The model does not fit into the memory that models may take."""

    code, exit_code = "memory-budget", 14


class Loaded(Protocol):
    """A model that can be served, and the bytes of memory that it takes."""

    bytes: int

    def close(self) -> None:
        """Free it; nobody uses it any more."""


T = TypeVar("T", bound=Loaded)


@dataclass(frozen=True)
class Known:
    """A bundle on disk. `bytes` is the size of its graph, which loading it takes at the least."""

    name: str
    version: str
    path: Path
    bytes: int


@dataclass(frozen=True)
class State:
    """What is said of one version: READY, LOADING or UNAVAILABLE, and why it is unavailable."""

    name: str
    version: str
    state: str
    reason: str = ""


@dataclass(eq=False)
class Lease(Generic[T]):
    """A loaded model and how many use it. One that is retired is closed by the last who used it."""

    loaded: T
    users: int = 0
    retired: bool = False


def version_key(version: str) -> tuple[tuple[int, int, str], ...]:
    """Orders versions: numbers by value, words before the end of a version, numbers after (1.0-rc.1 < 1.0 < 1.0.1)."""
    parts = re.split(r"[.+_-]", version)
    return (*((2, int(p), "") if p.isdecimal() and p.isascii() else (0, 0, p) for p in parts), (1, 0, ""))


def find_bundles(root: Path, target: str) -> dict[Key, Known]:
    """The bundles below `root` that were built for `target`; what is no bundle is passed over."""
    found: dict[Key, Known] = {}
    for depth in range(DEPTH + 1):
        for path in sorted(root.glob("/".join(["*"] * depth + ["manifest.json"]))):
            try:
                manifest = json.loads(path.read_bytes())
                known = Known(
                    str(manifest["name"]), str(manifest["version"]), path.parent, int(manifest["model"]["bytes"])
                )
                fits = manifest["kind"] == "ortc-bundle" and manifest["target"] == target
            except (OSError, ValueError, KeyError, TypeError):
                continue  # another program's manifest.json, or one that is being written
            if fits:
                found[known.name, known.version] = known
    return found


class ModelCache(Generic[T]):
    """Models by name and version. Every method may be called from any thread; only `load` takes long."""

    def __init__(
        self, opener: Callable[[Known], T], *, budget: int | None = None, on_evict: Callable[[], None] | None = None
    ) -> None:
        """`budget`: bytes that all models may take together; None for no bound."""
        self._opener, self._budget, self._on_evict = opener, budget, on_evict
        self._lock = threading.Lock()
        self._one_load = threading.Lock()  # what a load takes is only to be measured while no other runs
        self._known: dict[Key, Known] = {}
        self._loaded: OrderedDict[Key, Lease[T]] = OrderedDict()  # the one used last comes last
        self._loading: dict[Key, Future[None]] = {}
        self._current: dict[str, str] = {}  # the version that requests without one get
        self._withdrawn: set[str] = set()
        self._failures: dict[Key, str] = {}

    def learn(self, bundles: Iterable[Known]) -> None:
        """From now on these are the bundles that can be loaded, besides those that are."""
        with self._lock:
            self._known = {key: known for key, known in self._known.items() if key in self._loaded}
            self._known.update({(bundle.name, bundle.version): bundle for bundle in bundles})

    def _resolve(self, name: str, version: str | None) -> Key:
        versions = [known for owner, known in self._known if owner == name]
        if version is None and versions:
            version = self._current.get(name) or max(versions, key=version_key)
        if version is None or (name, version) not in self._known:
            raise UnknownModelError("there is no such model, or no such version of it")
        return name, version

    def lease(self, name: str, version: str | None = None) -> Lease[T] | None:
        """The model, to be given back by `release`; None when it is to be loaded first.

        Raises:
            UnknownModelError: There is no such model, or it was unloaded.
        """
        with self._lock:
            key = self._resolve(name, version)
            found = self._loaded.get(key)
            if found is not None:
                self._loaded.move_to_end(key)
                found.users += 1
            elif name in self._withdrawn:
                raise UnknownModelError("the model was unloaded")
            return found

    def release(self, lease: Lease[T]) -> None:
        """Give a lease back."""
        with self._lock:
            lease.users -= 1
            last = lease.retired and not lease.users
        if last:
            lease.loaded.close()

    def load(self, name: str, version: str | None = None, *, newest: bool = False) -> None:
        """Load a version, unless it is or another thread does: then wait for that.

        `newest` takes the highest version there is, and makes it the one for requests that name none.

        Raises:
            BundleError: It cannot be loaded; whatever was loaded before still is.
        """
        with self._lock:
            if newest:
                versions = [known for owner, known in self._known if owner == name]
                version = max(versions, key=version_key, default=None)
            key = self._resolve(name, version)
            flight, mine = self._loading.get(key), False
            if key not in self._loaded and flight is None:
                flight, mine = Future(), True
                self._loading[key] = flight
        if mine and flight is not None:
            try:
                self._load(key)
            except BaseException as error:
                with self._lock:
                    self._failures[key] = str(error)
                    del self._loading[key]
                flight.set_exception(error)
                raise
            with self._lock:
                self._failures.pop(key, None)
                del self._loading[key]
            flight.set_result(None)
        elif flight is not None:
            flight.result()
        if newest:
            with self._lock:
                self._current[name] = key[1]
                self._withdrawn.discard(name)

    def _load(self, key: Key) -> None:
        known = self._known[key]
        with self._one_load:
            self._make_room(known.bytes, f"{known.name} {known.version} has {known.bytes} bytes of weights")
            loaded = self._opener(known)
            try:
                self._make_room(loaded.bytes, f"{known.name} {known.version} took {loaded.bytes} bytes of memory")
            except BudgetError:
                loaded.close()
                raise
            with self._lock:
                self._loaded[key] = Lease(loaded)

    def _make_room(self, needed: int, what: str) -> None:
        """Evict what was not used for longest, until `needed` bytes fit."""
        if self._budget is None:
            return
        if needed > self._budget:
            raise BudgetError(f"{what}, and all models together may take {self._budget}. Raise --model-memory-bytes.")
        while True:
            with self._lock:
                if sum(lease.loaded.bytes for lease in self._loaded.values()) + needed <= self._budget:
                    return
                key = next(iter(self._loaded))
            self._retire(key)
            if self._on_evict is not None:
                self._on_evict()

    def _retire(self, key: Key) -> None:
        with self._lock:
            lease = self._loaded.pop(key, None)
            if lease is None:
                return
            lease.retired = True
            idle = not lease.users
        if idle:
            lease.loaded.close()

    def unload(self, name: str) -> None:
        """Retire every version of a model; requests that run on one still end there.

        Raises:
            UnknownModelError: There is no such model.
        """
        with self._lock:
            self._resolve(name, None)
            self._withdrawn.add(name)
            self._current.pop(name, None)
            keys = [key for key in self._loaded if key[0] == name]
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
            return State(*key, "READY")
        if key in self._loading:
            return State(*key, "LOADING")
        return State(*key, "UNAVAILABLE", "loading failed" if key in self._failures else "unloaded")

    def leased(self) -> list[T]:
        """All that is loaded now."""
        with self._lock:
            return [lease.loaded for lease in self._loaded.values()]
