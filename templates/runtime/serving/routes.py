"""Health, metadata, metrics, the OpenAPI document and the repository extension, as routes of Starlette."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from serving.answer_bodies import error_of
from serving.app import Application
from serving.cache import State
from serving.errors import RefusedError
from serving.metrics import CONTENT_TYPE
from serving.openapi import document
from serving.page import Page
from serving.protocol import metadata
from serving.repository import Repository
from serving.versions import UnknownModelError

MOST_BYTES = 65536


class Routes:
    """What is answered besides inference."""

    def __init__(self, application: Application, repository: Repository, page: Page | None = None) -> None:
        self._application, self._cache, self._repository = application, application.cache, repository
        self._page = page

    def starlette(self) -> Starlette:
        """The ASGI application."""
        routes = [
            Route("/v2", self.server),
            Route("/v2/", self.server, include_in_schema=False),
            Route("/v2/models", self.models),
            Route("/v1/models", self.listed),
            Route("/v1/models/{name}", self.listed_one),
            Route("/v2/health/live", self.live),
            Route("/v2/health/ready", self.ready),
            Route("/metrics", self.metrics),
            Route("/openapi.json", self.openapi),
        ]
        for prefix in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
            routes += [
                Route(prefix, self.model),
                Route(f"{prefix}/ready", self.model_ready),
                # The application itself takes POST: here only what to say to other methods.
                Route(f"{prefix}/infer", self.not_found, methods=["POST"]),
            ]
        if self._repository.changes:
            unload = "/v2/repository/models/{name}/versions/{version}/unload"
            routes += [
                Route("/v2/repository/index", self.index, methods=["POST"]),
                Route("/v2/repository/models/{name}/load", self.load, methods=["POST"]),
                Route("/v2/repository/models/{name}/unload", self.unload, methods=["POST"]),
                Route(unload, self.unload, methods=["POST"]),
            ]
        if self._page is not None:
            routes.append(Route("/", self.page))
        handlers: dict[Any, Any] = {
            HTTPException: self._refused,
            UnknownModelError: self._unknown,
            RefusedError: self._not_now,
            Exception: self._failed,
        }
        made = Starlette(routes=routes, exception_handlers=handlers)
        made.router.redirect_slashes = False
        return made

    def _answer(
        self, request: Request, body: object, status: int = 200, headers: dict[str, str] | None = None
    ) -> Response:
        response = JSONResponse(body, status, headers)
        response.headers["x-request-id"] = self._application.ids.of(request.scope["headers"])
        if self._application.drain.draining:
            response.headers["connection"] = "close"
        return response

    async def _refused(self, request: Request, error: HTTPException) -> Response:
        messages = {404: "no such path", 405: "this path does not take that method"}
        message = messages.get(error.status_code, str(error.detail))
        return self._answer(request, {"error": message}, error.status_code, dict(error.headers or {}))

    async def _unknown(self, request: Request, error: UnknownModelError) -> Response:
        return self._answer(request, {"error": str(error)}, 404)

    async def _not_now(self, request: Request, error: RefusedError) -> Response:
        more = {} if error.retry_after is None else {"retry-after": str(error.retry_after)}
        if error.status == 401:
            more["www-authenticate"] = "Bearer"
        if error.status in (401, 403):
            more["connection"] = "close"  # with whatever is still to come
        return self._answer(request, {"error": str(error)}, error.status, more)

    async def _failed(self, request: Request, error: Exception) -> Response:
        return self._answer(request, {"error": "internal error"}, 500)

    async def not_found(self, request: Request) -> Response:
        """What cannot come here."""
        raise HTTPException(404)

    async def server(self, request: Request) -> Response:
        """Server metadata."""
        return self._answer(request, self._repository.metadata())

    async def live(self, request: Request) -> Response:
        """The process answers."""
        return self._answer(request, {"live": True})

    async def ready(self, request: Request) -> Response:
        """Requests are served."""
        ready = self._application.drain.ready
        return self._answer(request, {"ready": ready}, 200 if ready else 503)

    async def page(self, request: Request) -> Response:
        """The page to try the bundle by hand."""
        page = self._page
        if page is None:
            raise HTTPException(404)
        return Response(page.content, headers=page.headers, media_type="text/html")

    async def models(self, request: Request) -> Response:
        """The names of the models."""
        return self._answer(request, {"models": self._names()})

    async def listed(self, request: Request) -> Response:
        """The models in OpenAI's form."""
        return self._answer(request, {"object": "list", "data": [_listed(name) for name in self._names()]})

    async def listed_one(self, request: Request) -> Response:
        """One of them; 404 in OpenAI's form where there is none."""
        name = request.path_params["name"]
        if name in self._names():
            return self._answer(request, _listed(name))
        return self._answer(request, error_of(404, "unknown-model", str(self._cache.unknown(name))), 404)

    def _names(self) -> list[str]:
        self._application.drain.admit()
        return sorted({state.name for state in self._cache.states()})

    async def model(self, request: Request) -> Response:
        """The interface of a model, which is loaded for it where it is not."""
        name, version = request.path_params["name"], request.path_params.get("version")
        self._application.drain.admit()
        lease = await self._application.leased(name, version)
        try:
            return self._answer(request, metadata(lease.loaded.model, self._cache.versions(name), lease.loaded.texts))
        finally:
            self._cache.release(lease)

    async def model_ready(self, request: Request) -> Response:
        """Whether requests for a model are served without loading it first."""
        ready = self._repository.is_ready(request.path_params["name"], request.path_params.get("version"))
        body = {"name": request.path_params["name"], "ready": ready}
        return self._answer(request, body, 200 if ready else 503)

    async def metrics(self, request: Request) -> Response:
        """Prometheus' text format."""
        return Response(self._application.metrics.text(), media_type=CONTENT_TYPE.decode())

    async def openapi(self, request: Request) -> Response:
        """This interface, with the inputs of what is loaded."""
        return self._answer(request, document(self._cache.leased(), self._repository.changes))

    async def _body(self, request: Request) -> dict[str, Any]:
        content = bytearray()
        try:
            async with asyncio.timeout(self._application.limits.seconds):
                async for part in request.stream():
                    content += part
                    if len(content) > MOST_BYTES:
                        raise HTTPException(
                            413, f"the body may have {MOST_BYTES} bytes at most", {"connection": "close"}
                        )
        except TimeoutError as error:
            raise HTTPException(408, "the body did not arrive in time", {"connection": "close"}) from error
        try:
            found = json.loads(content) if content else {}
        except (ValueError, RecursionError) as error:
            raise HTTPException(400, "the body is not JSON") from error
        if not isinstance(found, dict):
            raise HTTPException(400, "the body is not a JSON object")
        return found

    def _guard(self, request: Request) -> None:
        """Refuse who may not change models, before the body is read."""
        headers = dict[str, str]()
        for name, value in request.headers.items():
            # Two of one name are no clear statement: joined, they are right in no comparison.
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        self._repository.guard.check(request.client.host if request.client is not None else "", headers)

    async def index(self, request: Request) -> Response:
        """Every model and version that is there."""
        self._guard(request)
        ready = (await self._body(request)).get("ready", False)
        if not isinstance(ready, bool):
            raise HTTPException(400, "ready is neither true nor false")
        return self._answer(request, [_entry(state) for state in await self._repository.index(ready)])

    async def load(self, request: Request) -> Response:
        """Load the newest version of a model; requests that name no version then get it."""
        self._guard(request)
        if (await self._body(request)).get("parameters"):
            raise HTTPException(400, "parameters are not supported: a bundle is loaded as it is")
        await self._repository.load(request.path_params["name"])
        return self._answer(request, {})

    async def unload(self, request: Request) -> Response:
        """Unload a version of a model, or all of them, once their requests have ended."""
        self._guard(request)
        parameters = (await self._body(request)).get("parameters") or {}
        version = request.path_params.get("version")
        if isinstance(parameters, dict) and version is None:
            version = parameters.get("version")
        if not isinstance(parameters, dict) or not isinstance(version, str | None):
            raise HTTPException(400, "parameters is not an object, or its version is not a string")
        await self._repository.unload(request.path_params["name"], version)
        return self._answer(request, {})


def _listed(name: str) -> dict[str, str | int]:
    """A model as OpenAI lists it; when it was made is not known."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "ortc"}


def _entry(state: State) -> dict[str, str | int]:
    """An entry of the repository's index; what a version takes is told of what is loaded."""
    told: dict[str, str | int] = {
        "name": state.name,
        "version": state.version,
        "state": state.state,
        "reason": state.reason,
    }
    if state.state == "READY":
        told |= {"memory_bytes": state.bytes, "device_memory_bytes": state.device_bytes}
    return told
