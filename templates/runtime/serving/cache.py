"""Several models and versions in one process: loaded once, evicted by last use, replaced without dropping a request."""

from __future__ import annotations

import json
import math
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from loader import CUDA, TENSORRT, BundleError

PATIENCE_SECONDS = 30.0  # as long as a request may take by default
DEPTH = 4  # a directory of DIRECTORY/NAME/VERSION/TARGET
NO_LIMIT = 2**64 - 1  # gpu_mem_limit as ONNX Runtime has it by default
# What reading JSON that anybody may have written ends with: it is not what was expected, of a size that no number has
# (1e999), or nested without end.
UNEXPECTED = (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError)
Key = tuple[str, str]  # name, version


class UnknownModelError(BundleError):
    """There is no such model, or no such version of it, or it was unloaded."""

    code: ClassVar[str] = "unknown-model"


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


@dataclass(frozen=True)
class Known:
    """A bundle on disk. `bytes` is the size of its graph, which loading it takes at the least.

    `device_bytes` is what it takes of a device: as it was measured, or else at the least; or, where `ceiling`, the most
    that its session lets it take.
    """

    name: str
    version: str
    path: Path
    bytes: int
    device_bytes: int = 0
    ceiling: bool = False


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
    """A loaded model and how many use it. One that is retired is closed by the last who used it."""

    loaded: T
    users: int = 0
    retired: bool = False


def version_key(version: str) -> tuple[tuple[int, int, str], ...]:
    """Orders versions: numbers by value, words before the end of a version, numbers after (1.0-rc.1 < 1.0 < 1.0.1)."""
    parts = re.split(r"[.+_-]", version)
    return (*((2, int(p), "") if p.isdecimal() and p.isascii() else (0, 0, p) for p in parts), (1, 0, ""))


def known_bundle(path: Path, manifest: Mapping[str, Any]) -> Known:
    """What is known of a bundle before it is loaded; one of UNEXPECTED where it says too little."""
    weights = int(manifest["model"]["bytes"])
    return Known(str(manifest["name"]), str(manifest["version"]), path, weights, *device_need(path, weights))


def device_need(path: Path, weights: int) -> tuple[int, bool]:
    """Bytes of device memory that a bundle takes, and whether that is only the most that it may.

    The most that an attached measurement saw in use, on whatever GPU. Without one, for a GPU, `gpu_mem_limit` where its
    session says it, and else its weights, which it takes at the least.
    """
    measured = []
    for file in sorted((path / "measurements").glob("*.json")):
        try:
            peak = json.loads(file.read_bytes())["numbers"]["peak_device_bytes"]
            if math.isfinite(peak) and peak > 0:
                measured.append(int(peak))
        except UNEXPECTED:
            continue  # nothing was timed there, or there was no GPU
    if measured:
        return max(measured), False
    on_gpu = _on_gpu(path)
    if not on_gpu:
        return 0, False
    limits = [int(options.get("gpu_mem_limit", 0)) for options in on_gpu]
    limit = max((limit for limit in limits if limit < NO_LIMIT), default=0)
    return max(limit, weights), limit > weights


def gpu_of(path: Path) -> int | None:
    """Which GPU a bundle runs on, as CUDA counts those that a process may use; None for none."""
    return next((int(options.get("device_id", 0)) for options in _on_gpu(path)), None)


def _on_gpu(path: Path) -> list[dict[str, str]]:
    """The options of NVIDIA's providers in session.json."""
    try:
        providers = json.loads((path / "session.json").read_bytes())["providers"]
        found = [dict(provider["options"]) for provider in providers if provider["name"] in (CUDA, TENSORRT)]
        for options in found:
            for name in ("gpu_mem_limit", "device_id"):
                int(options.get(name, 0))
    except UNEXPECTED:
        return []  # loading it says what is wrong
    return found


def find_bundles(root: Path, target: str) -> dict[Key, Known]:
    """The bundles below `root` that were built for `target`; what is no bundle is passed over."""
    found: dict[Key, Known] = {}
    for depth in range(DEPTH + 1):
        for path in sorted(root.glob("/".join(["*"] * depth + ["manifest.json"]))):
            try:
                manifest = json.loads(path.read_bytes())
                known = known_bundle(path.parent, manifest)
                fits = manifest["kind"] == "ortc-bundle" and manifest["target"] == target
            except UNEXPECTED:
                continue  # another program's manifest.json, or one that is being written
            if fits:
                found[known.name, known.version] = known
    return found


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
    ) -> None:
        """Nothing is loaded yet.

        Args:
            opener: Loads a bundle.
            budget: Bytes of the host's memory that all models may take together; None for no bound.
            device_budget: The same of the device's memory, and models that still answer their last requests count.
            on_evict: Called for every model that makes room.
            patience: Seconds to wait until evicted models have left the device.
        """
        self._opener, self._on_evict, self._patience = opener, on_evict, patience
        self.budget, self.device_budget = budget, device_budget
        self._lock = threading.Lock()
        self._freed = threading.Condition(self._lock)
        self._leaving: list[Lease[T]] = []  # retired, and in use
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
            self._close(lease)

    def load(self, name: str, version: str | None = None, *, newest: bool = False) -> None:
        """Load a version, unless it is or another thread does: then wait for that.

        `newest` takes the highest version there is, and makes it the one for requests that name none.

        Raises:
            BundleError: It cannot be loaded; whatever was loaded before still is, but for what was evicted for it.
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
            loaded = self._loaded[key].loaded
            return State(*key, "READY", bytes=loaded.bytes, device_bytes=loaded.device_bytes)
        if key in self._loading:
            return State(*key, "LOADING")
        return State(*key, "UNAVAILABLE", "loading failed" if key in self._failures else "unloaded")

    def leased(self) -> list[T]:
        """All that is loaded now."""
        with self._lock:
            return [lease.loaded for lease in self._loaded.values()]
