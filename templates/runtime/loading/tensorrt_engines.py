"""TensorRT's engines of earlier starts: taken where they load, and kept once their answers are right."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import BundleError, ProvidersError, warn
from .providers import TENSORRT

if TYPE_CHECKING:
    from .engine_cache import Engines

UNREAD_ENGINE = "could not deserialize engine"  # of TensorRT's provider, which ONNX Runtime has fail for it


class EngineKeeper:
    """The directory of engines that a session is opened over; does nothing where TensorRT does not lead."""

    def __init__(self, root: Path, manifest: Mapping[str, Any], runtime_version: str) -> None:
        self._root, self._manifest, self._version = root, manifest, runtime_version
        self._engines: Engines | None = None

    def direct(self, config: Mapping[str, Any], *, anew: bool) -> Mapping[str, Any]:
        """session.json with TensorRT's caches where this bundle's engines are kept on this machine, or built `anew`."""
        self._engines = None
        chain = config["providers"]
        first = next((entry for entry in chain if entry["name"] == TENSORRT), None)
        if first is None:
            return config
        from . import engine_cache

        options: dict[str, Any] = first["options"]
        if not engine_cache.wanted(options):
            return config
        base, directory = None, None
        try:
            base = engine_cache.base_of(options)
            machine = engine_cache.machine(self._version, int(options.get("device_id", 0)))
            name = engine_cache.name_of(self._root, self._manifest, machine)
            self._engines = engine_cache.Engines(base, name, anew=anew)
            directory = self._engines.directory
        except OSError as error:
            warn(
                f"TensorRT's engines cannot be kept in {base or 'a cache'}: {error.strerror or error}. They are built "
                f"at every start; set {engine_cache.VARIABLE} to a directory that can be written."
            )
        found = [{**e, "options": engine_cache.directed(e["options"], directory)} if e is first else e for e in chain]
        return {**config, "providers": found}

    def suspects(self, error: BundleError) -> bool:
        """Whether engines of an earlier start may be why `error` came, so that others are worth building beside them.

        Of what providers report, only that an engine cannot be read is: they start, or fail, without engines, too.
        """
        if self._engines is None or not self._engines.kept:
            return False
        if isinstance(error, ProvidersError) and UNREAD_ENGINE not in str(error):
            return False
        warn(
            f"the engines in {self._engines.directory} may be of no use; others are built beside them, and replace "
            f"them once their answers are right: {error}"
        )
        return True

    def keep(self) -> None:
        """Keep the engines that were built, because their answers are right; say once where that cannot be."""
        engines = self._engines
        if engines is not None and not engines.obstacle and not engines.keep() and engines.obstacle:
            warn(f"TensorRT's engines are not kept, and are built again at the next start: {engines.obstacle}.")

    def close(self) -> None:
        """Remove engines that were built and are not kept."""
        if self._engines is not None:
            self._engines.close()
