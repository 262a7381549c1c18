"""Which versions of which models there are, and which one answers a request that names none."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import ClassVar

from loading.errors import BundleError

from serving.catalogue import Key, Known, version_key

MOST_NAMES = 10  # in a message


class UnknownModelError(BundleError):
    """There is no such model, or no such version of it, or it was unloaded."""

    code: ClassVar[str] = "unknown-model"


def _listed(names: Sequence[str]) -> str:
    """Some names, for a message."""
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


class Versions:
    """The bundles that can be loaded, those that are withdrawn, and each model's current version. Not thread-safe."""

    def __init__(self) -> None:
        self._known: dict[Key, Known] = {}
        self._current: dict[str, str] = {}  # the version that requests without one get
        self._withdrawn: set[str | Key] = set()  # models, and single versions

    def learn(self, bundles: Iterable[Known], loaded: Container[Key]) -> set[Key]:
        """From now on these are the bundles that can be loaded, besides those that are.

        Returns:
            Those that are the same as before.
        """
        found = {(bundle.name, bundle.version): bundle for bundle in bundles}
        same = {key for key in found if found[key] == self._known.get(key)}
        self._known = {key: known for key, known in self._known.items() if key in loaded} | found
        return same

    def known(self, key: Key) -> Known:
        """The bundle of a version that there is."""
        return self._known[key]

    def resolve(self, name: str, version: str | None, loaded: Container[Key]) -> Key:
        """The version that a request means.

        Raises:
            UnknownModelError: There is no such model, or no such version of it, or all of it was unloaded.
        """
        if version is None:
            version = self._latest(name, loaded)
        if version is None or (name, version) not in self._known:
            raise self.unknown(name)
        return name, version

    def unknown(self, name: str) -> UnknownModelError:
        """An error that names the versions of the model, or else the models."""
        versions = self.of(name)
        if versions:
            return UnknownModelError(f"there is no such version of the model; there are {_listed(versions)}")
        models = sorted({name for name, _ in self._known})
        return UnknownModelError(f"there is no such model; there are {_listed(models) or 'none'}")

    def _latest(self, name: str, loaded: Container[Key]) -> str | None:
        """The version for requests that name none: a bundle that was never loaded takes over from no loaded one."""
        versions = self.of(name)
        current = self._current.get(name)
        if current in versions:
            return current
        offered = [version for version in versions if (name, version) not in self._withdrawn]
        if versions and not offered:
            raise UnknownModelError("the model was unloaded")
        return max([v for v in offered if (name, v) in loaded] or offered, key=version_key, default=None)

    def newest(self, name: str) -> str | None:
        """The highest version, withdrawn or not; None where there is none."""
        return max(self.of(name), key=version_key, default=None)

    def of(self, name: str) -> list[str]:
        """Every version of a model, the lowest first."""
        return sorted((version for owner, version in self._known if owner == name), key=version_key)

    def all(self) -> list[Key]:
        """Every version of every model, in order."""
        return sorted(self._known, key=lambda key: (key[0], version_key(key[1])))

    def is_withdrawn(self, key: Key) -> bool:
        """Whether a version, or all of its model, was unloaded."""
        return key in self._withdrawn or key[0] in self._withdrawn

    def turn_to(self, key: Key) -> None:
        """From now on this version answers requests that name none."""
        self._current[key[0]] = key[1]
        self._withdrawn -= {key[0], key}

    def settle(self, key: Key) -> None:
        """The same, unless another one does already."""
        self._current.setdefault(*key)

    def withdraw(self, name: str, version: str | None) -> list[Key]:
        """Offer a version of a model, or all of them, no more; returns which.

        Raises:
            UnknownModelError: There is no such model, or no such version of it.
        """
        keys = [key for key in self._known if key[0] == name and version in (None, key[1])]
        if not keys:
            raise self.unknown(name)
        self._withdrawn.add(name if version is None else (name, version))
        if version in (None, self._current.get(name)):
            self._current.pop(name, None)
        return keys
