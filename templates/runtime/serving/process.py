"""The server as a process: load, listen, serve, and end in order."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import nvml
import uvicorn
from loader import Model, UsageError, read_manifest

from serving import logs
from serving.app import Application, Limits
from serving.cache import Known, ModelCache, device_need, find_bundles, gpu_of
from serving.connection import Connection
from serving.metrics import Metrics
from serving.models import Opener, Served, Settings
from serving.repository import Repository
from serving.routes import Routes
from serving.tracing import Tracing
from serving.web import Web

if TYPE_CHECKING:
    from serving.rpc import RpcServer

KEEP_ALIVE_SECONDS = 75  # longer than load balancers hold idle connections, so that it is they who close them
BACKLOG = 1024
REFUSING_SECONDS = 0.5  # of gRPC, before its connections close
LAST_SECONDS = 2.0  # for connections to close, and then for runs to end, once draining is over


@dataclass(frozen=True)
class Options:
    """The command line. Times are seconds."""

    bundle: Path
    host: str
    port: int
    grpc_port: int | None
    settings: Settings
    limits: Limits
    drain_seconds: float
    shutdown_delay: float
    repository: Path | None
    preload: tuple[str, ...]
    model_memory: int | None
    device_memory: int | None
    log_requests: bool
    trace: bool


class Server(uvicorn.Server):
    """Drains before it ends, and takes signals as the wish to."""

    def __init__(
        self, config: uvicorn.Config, application: Application, repository: Repository, options: Options
    ) -> None:
        """The application is the one of the configuration."""
        super().__init__(config)
        self._application, self._repository, self._options = application, repository, options
        self._rpc: RpcServer | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._draining: asyncio.Task[None] | None = None

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Uvicorn's own would raise the signal again at the end: the exit code is to be 0."""
        self._loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.handle_exit)
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Say that it serves, once it does and signals are heard."""
        await super().startup(sockets)
        also: dict[str, str] = {}
        if self._options.grpc_port is not None:
            from serving.rpc import RpcServer

            self._rpc = RpcServer(self._application, self._repository)
            port = await self._rpc.start(self._options.host, self._options.grpc_port)
            also["grpc"] = _place(self._options.host, port)
        for listener in sockets or ():
            host, port = listener.getsockname()[:2]
            logs.write("info", "serving", url=f"http://{_place(host, port)}", **also)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal drains; a second SIGINT ends at once."""
        if self._draining is not None and sig == signal.SIGINT:
            self.should_exit = self.force_exit = True
        elif self._loop is not None:
            self._loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        if self._draining is None:
            self._draining = asyncio.get_running_loop().create_task(self._end())

    async def _end(self) -> None:
        logs.write("info", "draining", in_flight=self._application.in_flight)
        await self._application.drain(self._options.shutdown_delay, self._options.drain_seconds)
        if self._rpc is not None:
            # What has arrived when the server stops, and was not looked at yet, is cancelled, which clients do not try
            # again. Until then all are told that the server is not available, which they do, elsewhere.
            await asyncio.sleep(REFUSING_SECONDS)
            await self._rpc.stop(LAST_SECONDS)
        self.should_exit = True


def _place(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def serve(options: Options) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code.

    Raises:
        BundleError: The bundle, or one to be preloaded, is not to be served, or the options do not fit it.
    """
    logs.install()
    if options.grpc_port is not None:
        _check_grpc()
    tracing = Tracing() if options.trace else None
    metrics = Metrics()
    budgets = {"host": options.model_memory, "device": _device_memory(options)}
    for kind, budget in budgets.items():
        if budget is not None:
            metrics.budget.labels(kind).set(budget)
    cache: ModelCache[Served] = ModelCache(
        Opener(metrics, options.settings),
        budget=budgets["host"],
        device_budget=budgets["device"],
        on_evict=metrics.evictions.inc,
    )
    rescan = _load(options, cache)
    # What is there by now stays: the collector need not look through it again and again while requests wait.
    gc.collect()
    gc.freeze()
    listener = _listen(options.host, options.port)
    application = Application(cache, metrics, options.limits, log_requests=options.log_requests, tracing=tracing)
    repository = Repository(application, rescan)
    config = uvicorn.Config(
        Web(application, Routes(application, repository).starlette()),
        http=Connection,
        ws="none",
        loop="asyncio",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=int(LAST_SECONDS),
    )
    Server(config, application, repository, options).run(sockets=[listener])
    return _end(cache, tracing)


def _device_memory(options: Options) -> int | None:
    """Bytes of the device that all models may take: what was asked for, else what is free before any is loaded."""
    if options.device_memory is not None:
        return options.device_memory
    gpu = gpu_of(options.bundle)
    return None if gpu is None else nvml.free_bytes(gpu)


def _check_grpc() -> None:
    """Look for the packages before anything is loaded."""
    try:
        import serving.rpc  # noqa: F401
    except ImportError as error:
        raise UsageError(f"--grpc-port needs the packages of requirements-grpc.txt: {error}. Install them.") from error


def _listen(host: str, port: int) -> socket.socket:
    # Not create_server(): asyncio turns Nagle's algorithm off only where the protocol is named. With it an answer of
    # several parts would wait for the client's delayed acknowledgement of the first: 40 ms.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise UsageError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    return listener


def _load(options: Options, cache: ModelCache[Served]) -> Callable[[], None] | None:
    """Load the bundle and what is to be preloaded; returns how to look for other bundles."""
    manifest = read_manifest(options.bundle, "none")  # loading it verifies
    name, version, target = (str(manifest.get(key)) for key in ("name", "version", "target"))
    weights = int(manifest.get("model", {}).get("bytes", 0))
    own = Known(name, version, options.bundle, weights, *device_need(options.bundle, weights))
    cache.learn([own])
    cache.load(name, newest=True)
    for served in cache.leased():
        _report(served.model)
    if options.repository is None:
        if options.preload:
            raise UsageError("--preload names bundles of a repository. Give --repository DIRECTORY.")
        return None
    repository = options.repository
    if not repository.is_dir():
        raise UsageError(f"--repository {repository} is not a directory.")

    def rescan() -> None:
        cache.learn([*find_bundles(repository, target).values(), own])

    rescan()
    for wanted in options.preload:
        cache.load(wanted, newest=True)
    return rescan


def _report(model: Model) -> None:
    logs.write("info", "loaded", **model.info(), golden=list(model.golden))


def _end(cache: ModelCache[Served], tracing: Tracing | None) -> int:
    models = cache.leased()
    for served in models:
        served.scheduler.close(terminate=True)
    for served in models:
        served.scheduler.join(LAST_SECONDS)
    if tracing is not None:
        tracing.close()
    logs.write("info", "ended")
    sys.stdout.flush()
    sys.stderr.flush()
    if any(served.scheduler.busy for served in models):
        # A run that does not look at its `terminate` would be cut while the interpreter is taken down around it.
        os._exit(0)
    return 0
