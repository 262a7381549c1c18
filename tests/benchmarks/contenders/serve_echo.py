"""A bare Starlette endpoint that answers every POST with the same bytes: what HTTP alone costs."""

import socket
import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

PORT, ANSWER = int(sys.argv[1]), b"x" * int(sys.argv[2])


async def echo(request: Request) -> Response:
    """Read the request, answer."""
    await request.body()
    return Response(ANSWER, media_type="application/octet-stream")


async def health(request: Request) -> Response:
    """It serves."""
    return Response()


routes = [Route("/health", health), Route("/v2/models/{name}/infer", echo, methods=["POST"])]
listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("127.0.0.1", PORT))
listener.listen(128)
config = uvicorn.Config(
    Starlette(routes=routes), http="httptools", loop="asyncio", ws="none", lifespan="off", log_config=None,
    access_log=False,
)  # fmt: skip
uvicorn.Server(config).run(sockets=[listener])
