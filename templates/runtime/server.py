"""Serve the bundle around this file over HTTP: the Open Inference Protocol v2, its JSON part.

    python runtime/server.py --host 0.0.0.0 --port 8080

Every file is hashed and every golden case run before the socket opens. Routes, NAME being the bundle's name:

    GET  /v2                       server metadata
    GET  /v2/health/live           200 while the process answers
    GET  /v2/health/ready          200 while requests are served, 503 once SIGTERM came
    GET  /v2/models/NAME           the interface; /v2/models/NAME/ready; both also under /versions/VERSION
    POST /v2/models/NAME/infer     {"inputs": [{"name", "shape", "datatype", "data"}], "outputs": [{"name"}], "id"}

SIGTERM: not ready, running requests end, exit 0. Exit codes otherwise: those of loader.py, 12 for a bundle that is not
fit to serve. Needs what loader.py needs.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import signal
import socket
import socketserver
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

if __name__ == "__main__":
    # As in loader.py: no threads for BLAS, which nothing here uses.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from loader import Arrays, BundleError, InputError, Model, Tensor, failure
from numpy.typing import NDArray

DATATYPES = {
    "BOOL": "bool",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
    **{f"{sign.upper()}INT{bits}": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
NAMES = {dtype: name for name, dtype in DATATYPES.items()}
SOCKET_SECONDS = 30.0  # for one read: a client that sends nothing holds a thread no longer than this
LINGER_SECONDS = 2.0


class UnfitError(BundleError):
    """The bundle says of itself that it must not serve."""

    code: ClassVar[str] = "unfit"
    exit_code: ClassVar[int] = 12


class HttpError(Exception):
    """An answer that is not 200; the message goes to the client."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


def _bad(message: str) -> HttpError:
    return HttpError(HTTPStatus.BAD_REQUEST, message)


# --- the protocol --------------------------------------------------------------------------------------------------


def decode(body: bytes, tensors: Sequence[Tensor]) -> tuple[Arrays, list[str] | None, str | None]:
    """An inference request: (inputs, names of the outputs asked for or None, its id or None).

    Raises:
        HttpError: 400, with what to send instead.
    """
    try:
        request = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise _bad(f"the body is not JSON: {error}") from error
    if not isinstance(request, dict) or not isinstance(request.get("inputs"), list):
        raise _bad('expected a JSON object with "inputs": [{"name", "shape", "datatype", "data"}, ...]')
    identifier, asked = request.get("id"), request.get("outputs")
    if identifier is not None and not isinstance(identifier, str):
        raise _bad("id is not a string")
    dtypes = {tensor.name: tensor.dtype for tensor in tensors}
    arrays: Arrays = {}
    for entry in request["inputs"]:
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise _bad("every input needs a name")
        name = entry["name"]
        if name in arrays:
            raise _bad(f"input {name!r} is given twice")
        arrays[name] = _decode_one(entry, f"input {name!r}", dtypes.get(name))
    if asked is None:
        return arrays, None, identifier
    if not isinstance(asked, list) or not all(isinstance(o, dict) and isinstance(o.get("name"), str) for o in asked):
        raise _bad('outputs is not a list of {"name"}; leave it out for all outputs')
    return arrays, [output["name"] for output in asked] or None, identifier


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is not a JSON number")


def _decode_one(entry: dict[str, Any], what: str, dtype: np.dtype[Any] | None) -> NDArray[Any]:
    datatype, shape, data = (entry.get(key) for key in ("datatype", "shape", "data"))
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        raise _bad(f"{what}: datatype is {datatype!r}, expected one of {', '.join(DATATYPES)}")
    if dtype is not None and DATATYPES[datatype] != dtype.name:
        raise _bad(f"{what}: datatype is {datatype}, the model takes {NAMES[dtype.name]}")
    if not isinstance(shape, list) or not all(type(size) is int and 0 <= size < 2**31 for size in shape):
        raise _bad(f"{what}: shape is not a list of sizes")
    if not isinstance(data, list):
        raise _bad(f"{what}: data is not a list of values (binary data is not supported)")
    wanted = np.dtype(DATATYPES[datatype])
    try:
        found = np.array(data)
        # numpy makes floats of integers that lie on both sides of 2**63.
        if wanted == np.uint64 and found.dtype.kind == "f" and all(type(v) is int for v in np.array(data, object).flat):
            found = np.array(data, wanted)
    except OverflowError as error:
        raise _bad(f"{what}: data holds values outside {datatype}") from error
    except (ValueError, RecursionError) as error:
        raise _bad(f"{what}: data is neither flat nor a regular nesting of lists") from error
    # Integers may be sent for floating-point values; nothing else changes its kind. An empty list has no kind.
    kinds = {"b": "b", "i": "iu", "u": "iu", "f": "fiu"}[wanted.kind]
    if found.size and found.dtype.kind not in kinds:
        raise _bad(f"{what}: data holds values that are not {datatype}")
    if found.size != math.prod(shape) or (found.ndim != 1 and list(found.shape) != shape):
        raise _bad(f"{what}: shape is {shape}, data has shape {list(found.shape)}")
    if wanted.kind in "iu" and found.size:
        limits = np.iinfo(wanted)
        if int(found.min()) < limits.min or int(found.max()) > limits.max:
            raise _bad(f"{what}: data holds values outside {datatype}, which is {limits.min} to {limits.max}")
    with np.errstate(over="ignore"):
        array = found.astype(wanted).reshape(shape)
    if wanted.kind == "f" and not np.isfinite(array).all():
        raise _bad(f"{what}: data holds values too large for {datatype}")
    return array


def encode(model: Model, answer: Arrays, identifier: str | None) -> dict[str, Any]:
    """An inference response."""
    outputs = []
    for name, array in answer.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise HttpError(
                HTTPStatus.INTERNAL_SERVER_ERROR, f"output {name!r} holds NaN or infinity, which JSON cannot say"
            )
        datatype = NAMES[array.dtype.name]
        outputs.append({"name": name, "datatype": datatype, "shape": list(array.shape), "data": array.ravel().tolist()})
    reply = {"model_name": model.name, "model_version": model.version, "outputs": outputs}
    return reply if identifier is None else {**reply, "id": identifier}


def metadata(model: Model) -> dict[str, Any]:
    """The interface of the model; a dynamic axis is -1."""

    def described(tensors: Sequence[Tensor]) -> list[dict[str, Any]]:
        return [
            {
                "name": tensor.name,
                "datatype": NAMES[tensor.dtype.name],
                "shape": [size if isinstance(size, int) else -1 for size in tensor.shape],
            }
            for tensor in tensors
        ]

    return {
        "name": model.name,
        "versions": [model.version],
        "platform": "onnxruntime_onnx",
        "inputs": described(model.inputs),
        "outputs": described(model.outputs),
    }


# --- HTTP ----------------------------------------------------------------------------------------------------------


class Server(ThreadingHTTPServer):
    """One model behind a socket. `ready` and the number of running requests decide when it may end."""

    daemon_threads = True  # idle connections must not keep the process alive; running requests are waited for
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], model: Model, max_body_bytes: int) -> None:
        self.model = model
        self.max_body_bytes = max_body_bytes
        self.ready = True
        self.running = 0
        self.changed = threading.Condition()
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, Handler)

    def server_bind(self) -> None:
        """Bind without HTTPServer's reverse DNS lookup, which can hang where there is no DNS."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections that break are not news; anything else is a bug and is printed."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)

    def drain(self, seconds: float) -> None:
        """Take no more work, wait for what runs, then end `serve_forever`."""
        with self.changed:
            self.ready = False
            self.changed.wait_for(lambda: self.running == 0, seconds)
        self.shutdown()


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    timeout = SOCKET_SECONDS
    _unread = False
    _admitted: bool | None = None
    disable_nagle_algorithm = True
    # Head and body in one write: an answer of up to this size is sent whole or not at all, also when the process ends.
    wbufsize = 2**16

    def do_GET(self) -> None:
        if "Content-Length" in self.headers or "Transfer-Encoding" in self.headers:
            self._leave_unread()
        self._answer(self._get)

    def handle_one_request(self) -> None:
        """Count the request as running from its first line to the end of its answer."""
        self._admitted = None
        try:
            super().handle_one_request()
        finally:
            if self._admitted is not None:
                with self.server.changed:
                    self.server.running -= 1
                    self.server.changed.notify_all()

    def parse_request(self) -> bool:
        """Called when the first line is there; whether the request is served is decided now, once."""
        with self.server.changed:
            self.server.running += 1
            self._admitted = self.server.ready
        return super().parse_request()

    def handle_expect_100(self) -> bool:
        """Send the interim answer at once: the client waits for it with its body."""
        allowed = super().handle_expect_100()
        self.wfile.flush()
        return allowed

    def do_POST(self) -> None:
        self._answer(self._post)

    def _answer(self, route: Callable[[], dict[str, Any]]) -> None:
        try:
            try:
                status, document = HTTPStatus.OK, route()
            except HttpError as error:
                status, document = error.status, {"error": str(error)}
            except InputError as error:
                status, document = HTTPStatus.BAD_REQUEST, {"error": str(error)}
            except Exception as error:
                if isinstance(error, (ConnectionError, TimeoutError)):
                    raise  # the client is gone, or too slow; there is nobody to tell
                traceback.print_exception(error, file=sys.stderr)
                status, document = HTTPStatus.INTERNAL_SERVER_ERROR, {"error": "internal error"}
            self._send(status, document)
            if self._unread:
                self._linger()
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def _get(self) -> dict[str, Any]:
        model, path = self.server.model, self.path.partition("?")[0]
        if path == "/v2/health/live":
            return {"live": True}
        if path == "/v2/health/ready":
            self._require_ready()
            return {"ready": True}
        if path in ("/v2", "/v2/"):
            return {"name": "ortc", "version": model.version, "extensions": []}
        if self._model_route("") is not None:
            return metadata(model)
        if self._model_route("/ready") is not None:
            self._require_ready()
            return {"name": model.name, "ready": True}
        raise HttpError(HTTPStatus.NOT_FOUND, f"no such path; the model is at /v2/models/{model.name}")

    def _post(self) -> dict[str, Any]:
        model = self.server.model
        length = self._body_length()
        if self._model_route("/infer") is None:
            self._leave_unread()
            raise HttpError(HTTPStatus.NOT_FOUND, f"no such path; POST to /v2/models/{model.name}/infer")
        if not self._admitted:
            self._leave_unread()
        self._require_ready()
        body = self.rfile.read(length)
        if len(body) < length:
            raise ConnectionResetError("the client left in the middle of the body")
        arrays, asked, identifier = decode(body, model.inputs)
        return encode(model, model.run(arrays, asked), identifier)

    def _leave_unread(self) -> None:
        # On a connection that stays open the body would be taken for the next request.
        self._unread = self.close_connection = True

    def _linger(self) -> None:
        """Throw away what the client still sends, for a while: closing now would reset it, answer and all."""
        self.connection.shutdown(socket.SHUT_WR)
        self.connection.settimeout(1.0)
        deadline = time.monotonic() + LINGER_SECONDS
        while time.monotonic() < deadline and self.connection.recv(65536):
            pass

    def _model_route(self, action: str) -> re.Match[str] | None:
        model = self.server.model
        pattern = f"/v2/models/{re.escape(model.name)}(/versions/{re.escape(model.version)})?{action}"
        return re.fullmatch(pattern, self.path.partition("?")[0])

    def _require_ready(self) -> None:
        if not self._admitted:
            raise HttpError(HTTPStatus.SERVICE_UNAVAILABLE, "the server is shutting down")

    def _body_length(self) -> int:
        lengths, limit = self.headers.get_all("Content-Length", []), self.server.max_body_bytes
        if "Transfer-Encoding" in self.headers or not lengths:
            problem = HttpError(HTTPStatus.LENGTH_REQUIRED, "send Content-Length; chunked bodies are not supported")
        elif len(lengths) > 1 or not re.fullmatch("[0-9]{1,18}", lengths[0]):
            problem = _bad("Content-Length is not one number")
        elif int(lengths[0]) > limit:
            problem = HttpError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body may have {limit} bytes at most")
        else:
            return int(lengths[0])
        self._leave_unread()
        raise problem

    def _send(self, status: HTTPStatus, document: dict[str, Any]) -> None:
        body = json.dumps(document, allow_nan=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What http.server itself refuses (a malformed head, an unknown method), as JSON too."""
        self.close_connection = True
        self._send(HTTPStatus(code), {"error": message or explain or HTTPStatus(code).phrase})

    def version_string(self) -> str:
        """The Server header, without Python's version."""
        return "ortc"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """No access log: a line a request costs more than a small model."""


# --- command line --------------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """Load, check, serve until SIGTERM or SIGINT; returns the exit code."""
    parser = argparse.ArgumentParser(prog="server.py", description="Serve the bundle: Open Inference Protocol v2.")
    parser.add_argument("--bundle", default=str(Path(__file__).resolve().parent.parent), help="default: the one around")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--threads", type=int, help="for one operator; default: what session.json says")
    parser.add_argument("--allow-unfit", action="store_true", help="serve a bundle that is marked unfit to serve")
    parser.add_argument("--max-body-bytes", type=int, default=16 * 2**20)
    parser.add_argument("--drain-seconds", type=float, default=30.0, help="longest wait for running requests")
    arguments = parser.parse_args(argv)
    try:
        model = Model.load(arguments.bundle, verify="full", threads=arguments.threads)
        if not model.manifest.get("fit_to_serve") and not arguments.allow_unfit:
            reason = model.manifest.get("unfit_reason")
            raise UnfitError(f"{model.name} {model.version} is not fit to serve: {reason}. --allow-unfit serves it.")
    except BundleError as error:
        print(failure(error), file=sys.stderr)
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps({"ok": True, "result": {**model.info(), "golden": list(model.golden)}}), file=sys.stderr)
    try:
        server = Server((arguments.host, arguments.port), model, arguments.max_body_bytes)
    except OSError as error:
        print(f"error: cannot listen on {arguments.host}:{arguments.port}: {error.strerror}", file=sys.stderr)
        return 2
    stopping = threading.Event()

    def stop(*_: object) -> None:
        if not stopping.is_set():
            stopping.set()
            # Not here: shutdown() waits for the thread that serves, which is this one.
            threading.Thread(target=server.drain, args=(arguments.drain_seconds,)).start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    host, port = server.server_address[:2]
    title = f"{model.name} {model.version} ({model.target})"
    print(f"serving {title} on http://{host!s}:{port}/v2/models/{model.name}", file=sys.stderr, flush=True)
    with server:
        server.serve_forever(poll_interval=0.05)
    return 0


if __name__ == "__main__":
    sys.exit(main())
