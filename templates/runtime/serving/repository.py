"""What is asked about all models, over HTTP and gRPC alike, and what loads and unloads them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from loading.errors import BundleError

from serving import VERSION, logs
from serving.app import Application
from serving.cache import State
from serving.errors import RefusedError
from serving.guard import Guard
from serving.threads import in_thread
from serving.versions import UnknownModelError


class Repository:
    """The models of an application. `rescan` looks for bundles anew; None: they are what they are, or not there yet.

    `changes` is whether models can be loaded and unloaded, `guard` by whom.
    """

    def __init__(self, application: Application, *, changes: bool, guard: Guard) -> None:
        self._application, self._cache = application, application.cache
        self.changes, self.guard = changes, guard
        self.rescan: Callable[[], None] | None = None

    def metadata(self) -> dict[str, Any]:
        """What this server is."""
        extensions = ["binary_tensor_data", *(["model_repository"] if self.changes else [])]
        return {"name": "ortc", "version": VERSION, "extensions": extensions}

    def is_ready(self, name: str, version: str | None) -> bool:
        """Whether requests for a model are served without loading it first.

        Raises:
            UnknownModelError: There is no such model.
        """
        if self._application.drain.starting:
            return False
        lease = self._cache.lease(name, version)
        if lease is not None:
            self._cache.release(lease)
        return lease is not None and not self._application.drain.draining

    async def index(self, ready: bool) -> list[State]:
        """Every model and version that is there, or those that are ready."""
        if self.rescan is not None:
            await in_thread(self.rescan)
        return [state for state in self._cache.states() if not ready or state.state == "READY"]

    async def load(self, name: str) -> None:
        """Load the newest version of a model; requests that name no version then get it.

        Raises:
            UnknownModelError: There is no such model.
            RefusedError: 400, it cannot be loaded.
        """
        if self._application.drain.starting:
            raise RefusedError(503, "starting", "the models are being loaded; try again later", 1)

        def work() -> None:
            if self.rescan is not None:
                self.rescan()
            self._cache.load(name, newest=True)

        try:
            await in_thread(work)
        except UnknownModelError:
            raise
        except BundleError as error:
            logs.write("error", "load-failed", model=name, code=error.code, error=str(error))
            message = f"the model cannot be loaded ({error.code}); the log says why"
            raise RefusedError(400, "load-failed", message) from error

    async def unload(self, name: str, version: str | None = None) -> None:
        """Unload a version of a model, or all of them, once their requests have ended.

        Raises:
            UnknownModelError: There is no such model, or no such version.
        """
        await in_thread(lambda: self._cache.unload(name, version))
