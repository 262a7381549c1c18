"""Serve one bundle on 127.0.0.1, with the headers that give a page threads, beside what ortc asks of it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from socketserver import TCPServer
from types import MappingProxyType, TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from ortc.common.resources import templates_dir

OWN = "/.ortc/"
BLANK = f"{OWN}blank.html"
DRIVER = f"{OWN}driver.mjs"
_DRIVERS: Mapping[str, str] = MappingProxyType(
    {DRIVER: "browser.mjs", f"{OWN}operations.mjs": "operations.mjs"},
)
_BLANK = (
    b'<!doctype html><html lang="en"><meta charset="utf-8"><link rel="icon" href="data:,"><title>ortc</title></html>\n'
)
_TYPES: Mapping[str, str] = MappingProxyType(
    {
        ".html": "text/html; charset=utf-8",
        ".css": "text/css; charset=utf-8",
        ".mjs": "text/javascript; charset=utf-8",
        ".js": "text/javascript; charset=utf-8",
        ".json": "application/json",
        ".wasm": "application/wasm",
    }
)
_HEADERS = (
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Embedder-Policy", "require-corp"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("X-Content-Type-Options", "nosniff"),
    ("Cache-Control", "no-store"),
)
_MOST_BYTES = 2**31


class _Server(ThreadingHTTPServer):
    """Binds without asking a resolver what the host is called."""

    daemon_threads = True

    def server_bind(self) -> None:
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", int(self.server_address[1])

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of connections that a page closed in the middle: pages are closed when they have answered."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class Site:
    """A server of one directory. Use as a context manager.

    `given` and `taken` are files beside the bundle, by the name below `/.ortc/in/` and `/.ortc/out/`.
    `bytes` counts what was sent of the bundle.
    """

    def __init__(self, bundle: Path) -> None:
        self.bundle = bundle.resolve()
        self.given: dict[str, Path] = {}
        self.taken: dict[str, Path] = {}
        self.bytes = 0
        self._lock = threading.Lock()
        self._server: _Server | None = None

    def __enter__(self) -> Self:
        self._server = _Server(("127.0.0.1", 0), partial(_Handler, self))
        threading.Thread(target=self._server.serve_forever, name="site", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    @property
    def origin(self) -> str:
        """Scheme, host and port of a site that is open.

        Raises:
            RuntimeError: it is not open.
        """
        if self._server is None:
            raise RuntimeError("the site is not open")
        return f"http://127.0.0.1:{self._server.server_port}"

    def content(self, path: str) -> bytes | None:
        """The bytes that a path names; None for a path of no file."""
        name = unquote(urlsplit(path).path)
        if name == BLANK:
            return _BLANK
        if name in _DRIVERS:
            return (templates_dir() / "drivers" / _DRIVERS[name]).read_bytes()
        if name.startswith(f"{OWN}in/"):
            given = self.given.get(name.removeprefix(f"{OWN}in/"))
            return None if given is None else given.read_bytes()
        parts = PurePosixPath(name.lstrip("/") or "index.html").parts
        file = self.bundle.joinpath(*parts)
        if "\0" in name or ".." in parts or not file.resolve().is_relative_to(self.bundle) or not file.is_file():
            return None
        content = file.read_bytes()
        with self._lock:
            self.bytes += len(content)
        return content

    def take(self, path: str, content: bytes) -> bool:
        """Write what a page hands over; whether its name is one that was asked for."""
        place = self.taken.get(unquote(urlsplit(path).path).removeprefix(f"{OWN}out/"))
        if place is None:
            return False
        place.write_bytes(content)
        return True


class _Handler(BaseHTTPRequestHandler):
    """Answers requests of pages of this machine."""

    protocol_version = "HTTP/1.1"

    def __init__(self, served: Site, *arguments: Any) -> None:
        self.served = served
        super().__init__(*arguments)

    def do_GET(self) -> None:
        """Send a file."""
        content = self.served.content(self.path)
        kind = _TYPES.get(PurePosixPath(urlsplit(self.path).path or "/index.html").suffix, "application/octet-stream")
        if urlsplit(self.path).path.endswith("/"):
            kind = _TYPES[".html"]
        self._answer(200 if content is not None else 404, content or b"", kind)

    def do_POST(self) -> None:
        """Take an answer of the model."""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > _MOST_BYTES:
            self._answer(411, b"", "text/plain")
            return
        is_known = self.served.take(self.path, self.rfile.read(int(length)))
        self._answer(204 if is_known else 404, b"", "text/plain")

    def _answer(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if status != 204:
            self.send_header("Content-Length", str(len(content)))
        for name, value in _HEADERS:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
        """Write no log."""
