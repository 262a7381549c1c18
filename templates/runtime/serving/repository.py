"""What is asked about all models, over HTTP and gRPC alike, and what loads and unloads them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from loader import BundleError

from serving import logs
from serving.app import Application, in_thread
from serving.cache import State, UnknownModelError
from serving.protocol import RefusedError


class Repository:
    """The models of an application. `rescan` looks for bundles anew; None: they are what they are."""

    def __init__(self, application: Application, rescan: Callable[[], None] | None) -> None:
        self._application, self._cache, self._rescan = application, application.cache, rescan

    @property
    def changes(self) -> bool:
        """Whether models can be loaded and unloaded."""
        return self._rescan is not None

    def metadata(self) -> dict[str, Any]:
        """What this server is."""
        models = self._cache.leased()
        version = models[0].model.manifest["provenance"].get("tools", {}).get("ortc", "") if models else ""
        extensions = ["binary_tensor_data", *(["model_repository"] if self.changes else [])]
        return {"name": "ortc", "version": version, "extensions": extensions}

    def is_ready(self, name: str, version: str | None) -> bool:
        """Whether requests for a model are served without loading it first.

        Raises:
            UnknownModelError: There is no such model.
        """
        lease = self._cache.lease(name, version)
        if lease is not None:
            self._cache.release(lease)
        return lease is not None and not self._application.draining

    async def index(self, ready: bool) -> list[State]:
        """Every model and version that is there, or those that are ready."""
        if self._rescan is not None:
            await in_thread(self._rescan)
        return [state for state in self._cache.states() if not ready or state.state == "READY"]

    async def load(self, name: str) -> None:
        """Load the newest version of a model; requests that name no version then get it.

        Raises:
            UnknownModelError: There is no such model.
            RefusedError: 400, it cannot be loaded.
        """

        def work() -> None:
            if self._rescan is not None:
                self._rescan()
            self._cache.load(name, newest=True)

        try:
            await in_thread(work)
        except UnknownModelError:
            raise
        except BundleError as error:
            logs.write("error", "load-failed", model=name, code=error.code, error=str(error))
            message = f"the model cannot be loaded ({error.code}); the log says why"
            raise RefusedError(400, "load-failed", message) from error

    def unload(self, name: str) -> None:
        """Unload every version of a model, once its requests have ended.

        Raises:
            UnknownModelError: There is no such model.
        """
        self._cache.unload(name)
