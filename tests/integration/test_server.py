"""The server as a program, over real sockets."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support import bundles

pytestmark = pytest.mark.integration


@dataclass
class Running:
    process: subprocess.Popen[str]
    port: int
    selftest: Any

    def request(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            text = response.read()
            assert response.getheader("Content-Type") == "application/json"
            assert b"Traceback" not in text
            return response.status, json.loads(text)
        finally:
            connection.close()


def start(bundle: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(bundle / "runtime/server.py"), "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )


@contextlib.contextmanager
def serve(bundle: Path, *arguments: str) -> Iterator[Running]:
    """A server that runs inside the block; killed at its end if the test has not stopped it."""
    with start(bundle, *arguments) as process:
        try:
            assert process.stderr is not None
            selftest: Any = None
            for line in process.stderr:
                if line.startswith("{"):
                    selftest = json.loads(line)
                found = re.search(r"serving .* on http://127\.0\.0\.1:(\d+)", line)
                if found:
                    yield Running(process, int(found[1]), selftest)
                    break
            else:
                raise AssertionError(f"the server ended with {process.wait()}: {selftest}")
        finally:
            process.kill()


def stop(running: Running) -> None:
    running.process.send_signal(signal.SIGTERM)
    _, log = running.process.communicate(timeout=60)
    assert "Traceback" not in log
    assert running.process.returncode == 0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    bundle = bundles.text().write(tmp_path_factory.mktemp("server") / "bundle")
    with serve(bundle, "--max-body-bytes", "100000") as running:
        yield running
        stop(running)


def body(ids: Any, mask: Any = None, **more: Any) -> bytes:
    arrays = {"ids": np.asarray(ids), "mask": np.ones_like(ids) if mask is None else np.asarray(mask)}
    inputs = [
        {"name": name, "shape": list(array.shape), "datatype": "INT64", "data": array.tolist()}
        for name, array in arrays.items()
    ]
    return json.dumps({"inputs": inputs, **more}).encode()


INFER = "/v2/models/text/infer"


def test_the_selftest_is_printed_before_the_socket_opens(server: Running) -> None:
    assert server.selftest["ok"] is True
    assert server.selftest["result"]["golden"][0]["max_abs"] == 0


def test_health_and_metadata(server: Running) -> None:
    assert server.request("GET", "/v2/health/live") == (200, {"live": True})
    assert server.request("GET", "/v2/health/ready") == (200, {"ready": True})
    assert server.request("GET", "/v2/models/text/ready") == (200, {"name": "text", "ready": True})
    assert server.request("GET", "/v2")[0] == 200
    status, metadata = server.request("GET", "/v2/models/text")
    assert status == 200
    assert metadata == {
        "name": "text",
        "versions": ["1.0.0"],
        "platform": "onnxruntime_onnx",
        "inputs": [
            {"name": "ids", "datatype": "INT64", "shape": [-1, -1]},
            {"name": "mask", "datatype": "INT64", "shape": [-1, -1]},
        ],
        "outputs": [{"name": "hidden", "datatype": "FP32", "shape": [-1, -1, 8]}],
    }
    assert server.request("GET", "/v2/models/text/versions/1.0.0") == (200, metadata)


def test_an_inference_gives_the_models_answer(server: Running) -> None:
    status, reply = server.request("POST", INFER, body([[0, 1, 2], [3, 4, 5]], [[1, 1, 1], [1, 0, 0]], id="a"))
    assert status == 200
    assert (reply["model_name"], reply["model_version"], reply["id"]) == ("text", "1.0.0", "a")
    (output,) = reply["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("hidden", "FP32", [2, 3, 8])
    table = bundles.text_model().graph.initializer[0]
    expected = bundles.numpy_helper.to_array(table)[np.arange(6)].reshape(2, 3, 8)
    expected = expected * np.array([[1, 1, 1], [1, 0, 0]])[:, :, None]
    assert np.array_equal(np.array(output["data"], np.float32).reshape(2, 3, 8), expected)


def test_a_connection_serves_many_requests(server: Running) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    for word in range(5):
        connection.request("POST", INFER, body([[word]]))
        response = connection.getresponse()
        assert response.status == 200
        response.read()
    connection.close()


def test_concurrent_requests_get_their_own_answers(server: Running) -> None:
    def ask(word: int) -> list[float]:
        status, reply = server.request("POST", INFER, body([[word % 50] * (1 + word % 12)]))
        assert status == 200
        return list(reply["outputs"][0]["data"][-8:])

    alone = [ask(word) for word in range(50)]
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(ask, range(200))) == alone * 4


@pytest.mark.parametrize(
    ("method", "path", "content", "status", "message"),
    [
        ("POST", INFER, b"nonsense", 400, "not JSON"),
        ("POST", INFER, b"{}", 400, "expected a JSON object"),
        ("POST", INFER, body([[1] * 13]), 400, "Send 1 to 12"),
        ("POST", INFER, body([[50]]), 400, "Send values from 0 to 49"),
        ("POST", INFER, body([[1]], [[1, 1]]), 400, "Send the same"),
        ("POST", INFER, body([[1.5]]), 400, "INT64"),
        ("POST", INFER, body([[1]], outputs=[{"name": "hiden"}]), 400, "Did you mean 'hidden'"),
        ("POST", INFER, b'{"inputs": []}', 400, "input 'ids' is missing"),
        ("POST", INFER, b" " * 100_001, 413, "100000 bytes at most"),
        ("POST", "/v2/models/other/infer", body([[1]]), 404, "POST to /v2/models/text/infer"),
        ("POST", "/v2/models/text/versions/2/infer", body([[1]]), 404, "no such path"),
        ("GET", "/v2/models/text/versions/2", None, 404, "no such path"),
        ("GET", "/", None, 404, "no such path"),
        ("DELETE", "/v2/models/text", None, 501, "Unsupported method"),
    ],
)
def test_bad_requests_are_told_why(
    server: Running, method: str, path: str, content: bytes | None, status: int, message: str
) -> None:
    found, reply = server.request(method, path, content)
    assert found == status
    assert reply.keys() == {"error"}
    assert message in reply["error"]
    assert server.request("GET", "/v2/health/ready")[0] == 200


def raw(server: Running, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(request)
        answer = b""
        while part := connection.recv(65536):
            answer += part
        return answer


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"Content-Length: 99999999999999\r\n", b"413"),
        (b"Content-Length: -1\r\n", b"400"),
        (b"Content-Length: 1\r\nContent-Length: 2\r\n", b"400"),
        (b"Transfer-Encoding: chunked\r\n", b"411"),
        (b"", b"411"),
    ],
)
def test_bodies_of_unclear_or_forbidden_length_are_never_read(server: Running, head: bytes, status: bytes) -> None:
    answer = raw(server, b"POST " + INFER.encode() + b" HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert b"Connection: close" in answer


@pytest.mark.parametrize("line", [b"nonsense", b"GET", b"GET / HTTP/9.9", b"\x16\x03\x01\x02", b"GET /" + b"a" * 70000])
def test_what_is_not_http_is_refused_as_json(server: Running, line: bytes) -> None:
    answer = raw(server, line + b"\r\n\r\n")
    assert b"html" not in answer.lower()
    assert server.request("GET", "/v2/health/live")[0] == 200


def test_the_body_of_a_get_is_not_the_next_request(server: Running) -> None:
    smuggled = b"GET /v2/models/other HTTP/1.1\r\nHost: x\r\n\r\n"
    head = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(smuggled)
    answer = raw(server, head + smuggled)
    assert answer.count(b"HTTP/1.1") == 1


def test_a_request_in_flight_is_answered_after_sigterm(tmp_path: Path) -> None:
    content = body([[7]])
    head = (
        f"POST {INFER} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        f"Content-Length: {len(content)}\r\nExpect: 100-continue\r\n\r\n"
    )
    with (
        serve(bundles.text().write(tmp_path / "bundle")) as running,
        socket.create_connection(("127.0.0.1", running.port), timeout=60) as connection,
    ):
        connection.sendall(head.encode())
        # The interim answer says that the request is being handled; only its body is still to come.
        assert connection.recv(100).startswith(b"HTTP/1.1 100")
        running.process.send_signal(signal.SIGTERM)
        while running.request("GET", "/v2/health/ready")[0] != 503:
            pass
        assert running.request("GET", "/v2/health/live")[0] == 200
        assert running.request("POST", INFER, content)[0] == 503
        connection.sendall(content)
        answer = b""
        while part := connection.recv(65536):
            answer += part
        assert answer.startswith(b"HTTP/1.1 200")
        _, log = running.process.communicate(timeout=60)
        assert running.process.returncode == 0
        assert "Traceback" not in log


def test_a_client_that_sends_nothing_does_not_keep_the_server_alive(tmp_path: Path) -> None:
    with (
        serve(bundles.linear().write(tmp_path / "bundle"), "--drain-seconds", "1") as running,
        socket.create_connection(("127.0.0.1", running.port), timeout=60),
        socket.create_connection(("127.0.0.1", running.port), timeout=60) as slow,
    ):
        slow.sendall(b"POST /v2/models/linear/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
        running.request("GET", "/v2/health/live")
        stop(running)


def test_an_unfit_bundle_is_served_only_when_asked_for(tmp_path: Path) -> None:
    recipe = bundles.linear()
    recipe.manifest |= {"fit_to_serve": False, "unfit_reason": "random weights"}
    bundle = recipe.write(tmp_path / "bundle")
    process = start(bundle)
    _, log = process.communicate(timeout=60)
    assert process.returncode == 12
    assert "not fit to serve: random weights. --allow-unfit serves it." in log
    with serve(bundle, "--allow-unfit") as running:
        assert running.request("GET", "/v2/health/ready")[0] == 200
        stop(running)


def test_a_changed_bundle_is_never_served(tmp_path: Path) -> None:
    bundle = bundles.linear().write(tmp_path / "bundle")
    with (bundle / "session.json").open("a") as file:
        file.write(" ")
    process = start(bundle)
    output, log = process.communicate(timeout=60)
    assert process.returncode == 4
    assert output == ""
    assert log.splitlines()[-1].startswith("error: session.json has ")


def test_a_port_in_use_is_said_in_one_line(server: Running, tmp_path: Path) -> None:
    bundle = bundles.linear().write(tmp_path / "bundle")
    process = start(bundle, "--port", str(server.port))
    _, log = process.communicate(timeout=60)
    assert process.returncode == 2
    assert f"error: cannot listen on 127.0.0.1:{server.port}" in log


def test_sigterm_under_load_fails_no_request_that_was_being_answered(tmp_path: Path) -> None:
    content = body([[7] * 12] * 4)
    statuses: list[int] = []
    broken: list[Exception] = []
    started = threading.Event()

    def client(port: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while not statuses or statuses[-1] == 200:
            try:
                connection.request("POST", INFER, content)
                response = connection.getresponse()
            except ConnectionError:
                break  # closed between two requests: not one byte of an answer
            try:
                response.read()
            except (OSError, http.client.HTTPException) as error:
                broken.append(error)
            statuses.append(response.status)
            started.set()
        connection.close()

    with serve(bundles.text().write(tmp_path / "bundle")) as running, ThreadPoolExecutor(8) as pool:
        clients = [pool.submit(client, running.port) for _ in range(8)]
        assert started.wait(60)
        stop(running)
        for done in clients:
            done.result(60)
    assert broken == []
    assert set(statuses) <= {200, 503}
    assert 200 in statuses
