"""Everything of the Open Inference Protocol over gRPC but inference: what is there, its state, loads and unloads."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from serving.app import Application
from serving.errors import bad
from serving.messages import SERVICE
from serving.protocol import metadata
from serving.repository import Repository
from serving.rpc_tensors import describe, fill

STATE = ("name", "version", "state", "reason")
SERVING, NOT_SERVING, UNKNOWN_SERVICE = 1, 2, 3
Answer = Callable[[Any], Awaitable[Any]]


class Queries:
    """Answers short messages by short messages."""

    def __init__(self, application: Application, repository: Repository, messages: Mapping[str, Any]) -> None:
        """`messages` are the classes of the protocol's messages, by name."""
        self._application, self._repository, self._messages = application, repository, messages

    def answers(self) -> dict[str, Answer]:
        """By the protocol's name of each call."""
        answers: dict[str, Answer] = {
            "ServerLive": self._live,
            "ServerReady": self._ready,
            "ServerMetadata": self._metadata,
            "ModelReady": self._model_ready,
            "ModelMetadata": self._model_metadata,
        }
        if self._repository.changes:
            answers |= {
                "RepositoryIndex": self._index,
                "RepositoryModelLoad": self._load,
                "RepositoryModelUnload": self._unload,
            }
        return answers

    async def _live(self, _: Any) -> Any:
        return self._messages["ServerLiveResponse"](live=True)

    async def _ready(self, _: Any) -> Any:
        return self._messages["ServerReadyResponse"](ready=self._application.drain.ready)

    async def _metadata(self, _: Any) -> Any:
        return describe(self._messages["ServerMetadataResponse"](), self._repository.metadata())

    async def _model_ready(self, request: Any) -> Any:
        ready = self._repository.is_ready(request.name, request.version or None)
        return self._messages["ModelReadyResponse"](ready=ready)

    async def _model_metadata(self, request: Any) -> Any:
        cache = self._application.cache
        self._application.drain.admit()
        lease = await self._application.leased(request.name, request.version or None)
        try:
            document = metadata(lease.loaded.model, cache.versions(request.name), lease.loaded.texts)
        finally:
            cache.release(lease)
        return describe(self._messages["ModelMetadataResponse"](), document)

    async def _index(self, request: Any) -> Any:
        response = self._messages["RepositoryIndexResponse"]()
        states = await self._repository.index(request.ready)
        # What a version takes has no place in the protocol's message.
        fill(response.models, [{key: getattr(state, key) for key in STATE} for state in states])
        return response

    async def _load(self, request: Any) -> Any:
        if request.parameters:
            raise bad("parameters are not supported: a bundle is loaded as it is")
        await self._repository.load(request.model_name)
        return self._messages["RepositoryModelLoadResponse"]()

    async def _unload(self, request: Any) -> Any:
        version = request.parameters["version"].string_param if "version" in request.parameters else None
        await self._repository.unload(request.model_name, version)
        return self._messages["RepositoryModelUnloadResponse"]()

    async def check(self, request: Any) -> Any:
        """The answer of the health service."""
        status = SERVING if self._application.drain.ready else NOT_SERVING
        known = request.service in ("", SERVICE)
        return self._messages["HealthCheckResponse"](status=status if known else UNKNOWN_SERVICE)
