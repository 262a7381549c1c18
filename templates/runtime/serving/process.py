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
from loading.errors import BundleError, UsageError
from loading.files import read_manifest
from loading.model import Model

from serving import logs
from serving.access import Access
from serving.app import Application
from serving.cache import ModelCache
from serving.calls import Limits
from serving.catalogue import Known, device_need, find_bundles, gpu_of, stamp_of
from serving.connection import Connection
from serving.guard import Guard
from serving.memory import container_limit
from serving.metrics import Metrics
from serving.models import Opener, Served, Settings, rss_bytes
from serving.page import Page
from serving.repository import Repository
from serving.routes import Routes
from serving.sockets import BACKLOG, KERNEL_BYTES, Acceptor, Connections, listen, most_connections
from serving.threads import in_thread
from serving.tracing import Tracing
from serving.web import Web

if TYPE_CHECKING:
    from serving.rpc import RpcServer

KEEP_ALIVE_SECONDS = 75  # longer than load balancers hold idle connections, so that it is they who close them
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
SWEEP_SECONDS = 0.5
LEAST_MEMORY, LEAST_CONNECTIONS = 8 * 2**20, 128  # however little the container has left
CONNECTION_BYTES = 4 * KERNEL_BYTES  # what the kernel may hold of one: twice its buffers, in both directions
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
    guard: Guard
    access: Access
    page: bool
    log_requests: bool
    trace: bool


class Server(uvicorn.Server):
    """Listens, loads meanwhile, drains before it ends, and takes signals as the wish to end.

    `failure` is why it ended before it was ready.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        application: Application,
        repository: Repository,
        options: Options,
        load: Callable[[], Callable[[], None] | None],
    ) -> None:
        """The application is the one of the configuration; `load` loads the models and returns how to look for more."""
        super().__init__(config)
        self._application, self._repository, self._options, self._load = application, repository, options, load
        self._connections: Connections[Connection] = application.connections
        self._rpc: RpcServer | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._draining: asyncio.Task[None] | None = None
        self._wanted_to_end = False
        self.loading = True
        self.failure: BaseException | None = None
        # From here on a signal waits for the event loop; before, it ended the program.
        for number in SIGNALS:
            signal.signal(number, self.handle_exit)

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Do nothing: uvicorn's own would raise the signal again at the end, and the exit code is to be 0."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and load in the meantime."""
        self._loop = asyncio.get_running_loop()
        await self.lifespan.startup()

        def make() -> Connection:
            return Connection(
                self._connections, config=self.config, server_state=self.server_state, app_state={}, _loop=self._loop
            )

        self.servers = [Acceptor(listener, make, self._connections.evict) for listener in sockets or ()]  # type: ignore[misc]
        self.started = True
        places: dict[str, str] = {}
        for listener in sockets or ():
            host, port = listener.getsockname()[:2]
            places["url"] = f"http://{_place(host, port)}"
        try:
            if self._options.grpc_port is not None:
                from serving.rpc import RpcServer

                self._rpc = RpcServer(self._application, self._repository, self._options.access)
                port = await self._rpc.start(self._options.host, self._options.grpc_port)
                places["grpc"] = _place(self._options.host, port)
        except UsageError as error:
            self.failure, self.should_exit = error, True
            return
        logs.write("info", "listening", **places)
        self._tasks = [self._loop.create_task(work) for work in (self._become_ready(places), self._sweep())]
        if self._wanted_to_end:
            self._drain()

    async def _become_ready(self, places: dict[str, str]) -> None:
        try:
            self._repository.rescan = await in_thread(self._load)
        except BundleError as error:
            self.failure = error
        except Exception as error:  # noqa: BLE001 - raised again by the main thread
            self.failure = error
        self.loading = False
        if self.failure is not None:
            self.should_exit = True
            return
        # What is there by now stays: the collector need not look through it again and again while requests wait.
        gc.collect()
        gc.freeze()
        self._adapt()
        self._application.drain.starting = False
        if self._draining is None:
            logs.write("info", "serving", **places)

    def _adapt(self) -> None:
        """Keep requests and connections within what the container has left, where the options do not say otherwise."""
        limit = container_limit()
        if limit is None:
            return
        left = max(0, limit - rss_bytes())
        if not self._options.limits.fixed:
            self._application.memory.limit = min(self._application.memory.limit, max(left // 2, LEAST_MEMORY))
        self._connections.limit = min(self._connections.limit, max(left // 4 // CONNECTION_BYTES, LEAST_CONNECTIONS))

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            try:
                self._connections.sweep()
                self._application.memory.sweep()
            except Exception as error:  # noqa: BLE001 - the next sweep must come, whatever one connection does
                logs.failed("sweep", error)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal drains; a second SIGINT ends at once."""
        if self._draining is not None and sig == signal.SIGINT:
            self.should_exit = self.force_exit = True
        elif self._loop is not None and self._tasks:
            self._loop.call_soon_threadsafe(self._drain)
        else:
            self._wanted_to_end = True

    def _drain(self) -> None:
        if self._draining is None:
            self._draining = asyncio.get_running_loop().create_task(self._end())

    async def _end(self) -> None:
        logs.write("info", "draining", in_flight=self._application.drain.in_flight)
        if self.loading:
            self.should_exit = True
            return
        await self._application.drain.run(self._options.shutdown_delay, self._options.drain_seconds)
        if self._rpc is not None:
            # What has arrived when the server stops, and was not looked at yet, is cancelled, which clients do not try
            # again. Until then all are told that the server is not available, which they do, elsewhere.
            await asyncio.sleep(REFUSING_SECONDS)
            await self._rpc.stop(LAST_SECONDS)
        self.should_exit = True


def _place(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def serve(options: Options) -> int:
    """Serve until SIGTERM, SIGINT or SIGHUP; returns the exit code.

    Raises:
        BundleError: The bundle, or one to be preloaded, is not to be served, or the options do not fit it.
    """
    logs.install()
    if options.grpc_port is not None:
        _check_grpc()
    tracing = Tracing() if options.trace else None
    metrics = Metrics()
    cache: ModelCache[Served] = ModelCache(
        Opener(metrics, options.settings),
        budget=options.model_memory,
        on_evict=metrics.evictions.inc,
    )
    protocols = 1 if options.grpc_port is None else 2
    connections: Connections[Connection] = Connections(most_connections(options.limits.connections, protocols))
    application = Application(
        cache, metrics, options.limits, connections, log_requests=options.log_requests, tracing=tracing
    )
    metrics.watch(lambda: len(connections), lambda: connections.refusals, lambda: application.memory.taken)
    repository = Repository(application, changes=options.repository is not None, guard=options.guard)
    config = uvicorn.Config(
        Web(application, Routes(application, repository, Page() if options.page else None).starlette(), options.access),
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
    listener = listen(options.host, options.port)
    server = Server(config, application, repository, options, lambda: _load(options, application, metrics))
    server.run(sockets=[listener])
    if server.failure is not None:
        raise server.failure
    return _end(cache, tracing, loading=server.loading)


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


def _load(options: Options, application: Application, metrics: Metrics) -> Callable[[], None] | None:
    """Load the bundle and what is to be preloaded; returns how to look for other bundles."""
    cache = application.cache
    cache.budgets.device = _device_memory(options)
    for kind, budget in (("host", cache.budgets.host), ("device", cache.budgets.device)):
        if budget is not None:
            metrics.budget.labels(kind).set(budget)
    manifest = read_manifest(options.bundle, "none")  # loading it verifies
    name, version, target = (str(manifest.get(key)) for key in ("name", "version", "target"))
    weights = int(manifest.get("model", {}).get("bytes", 0))
    own = Known(name, version, options.bundle, weights, *device_need(options.bundle, weights), stamp_of(options.bundle))
    cache.learn([own])
    application.default = name
    cache.load(name, newest=True)
    for served in cache.leased():
        _report(served.model)
    if options.repository is None:
        if options.preload:
            raise UsageError("--preload names bundles of a repository. Give --repository DIRECTORY.")
        return None
    repository = options.repository
    if not os.path.isdir(repository):  # noqa: PTH112  # pathlib's raises an error for names that are too long
        raise UsageError(f"--repository {ascii(str(repository))[1:-1][:200]} is not a directory.")

    def rescan() -> None:
        cache.learn([*find_bundles(repository, target).values(), own])

    rescan()
    for wanted in options.preload:
        cache.load(wanted, newest=True)
    return rescan


def _report(model: Model) -> None:
    logs.write("info", "loaded", **model.info(), golden=list(model.golden))


def _end(cache: ModelCache[Served], tracing: Tracing | None, *, loading: bool) -> int:
    models = cache.leased()
    for served in models:
        served.scheduler.close(terminate=True)
    for served in models:
        served.scheduler.join(LAST_SECONDS)
    if tracing is not None:
        tracing.close()
    logs.write("info", "ended")
    sys.stdout.flush()
    logs.close()
    if loading or any(served.scheduler.busy for served in models):
        # A load or a run that does not end would be cut while the interpreter is taken down around it.
        os._exit(0)
    return 0
