"""How the server ends, and which bundles it never serves."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.support import bundles
from tests.support.refusals import INFER, refusal
from tests.support.serving import SECONDS, body, serve, start

pytestmark = pytest.mark.integration


def test_a_request_in_flight_is_answered_after_sigterm(tmp_path: Path) -> None:
    content = body([[7]])
    head = (
        f"POST {INFER} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        f"Content-Length: {len(content)}\r\nExpect: 100-continue\r\n\r\n"
    )
    with (
        serve(bundles.text().write(tmp_path / "bundle")) as running,
        socket.create_connection(("127.0.0.1", running.port), timeout=SECONDS) as connection,
    ):
        connection.sendall(head.encode())
        # The interim answer says that the request is being handled; only its body is still to come.
        assert connection.recv(100).startswith(b"HTTP/1.1 100")
        running.process.send_signal(signal.SIGTERM)
        while running.request("GET", "/v2/health/ready")[0] != 503:
            pass
        assert running.request("GET", "/v2/health/live")[0] == 200
        status, headers, _ = running.exchange("POST", INFER, content)
        assert (status, headers["retry-after"], headers["connection"]) == (503, "1", "close")
        connection.sendall(content)
        answer = b""
        while part := connection.recv(65536):
            answer += part
        assert answer.startswith(b"HTTP/1.1 200")
        running.ended()


def test_a_client_that_sends_nothing_does_not_keep_the_server_alive(tmp_path: Path) -> None:
    with (
        serve(bundles.linear().write(tmp_path / "bundle"), "--drain-seconds", "1") as running,
        socket.create_connection(("127.0.0.1", running.port), timeout=SECONDS),
        socket.create_connection(("127.0.0.1", running.port), timeout=SECONDS) as slow,
    ):
        slow.sendall(b"POST /v2/models/linear/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
        running.request("GET", "/v2/health/live")
        running.stop(signal.SIGINT)


def test_sigterm_under_load_fails_no_request_that_was_being_answered(tmp_path: Path) -> None:
    content = body([[7] * 12] * 4)
    statuses: list[int] = []
    broken: list[Exception] = []
    started = threading.Event()

    def client(port: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
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
        assert started.wait(SECONDS)
        running.stop()
        for done in clients:
            done.result(SECONDS)
    assert broken == []
    assert set(statuses) <= {200, 503}
    assert 200 in statuses


def test_after_sigterm_it_serves_on_for_as_long_as_asked(tmp_path: Path) -> None:
    bundle = bundles.text().write(tmp_path / "bundle")
    with serve(bundle, "--shutdown-delay-seconds", "100000") as running:
        running.process.send_signal(signal.SIGTERM)
        while running.request("GET", "/v2/health/ready")[0] != 503:
            pass
        status, headers, _ = running.exchange("POST", INFER, body([[1]]))
        assert (status, headers["connection"]) == (200, "close")
        running.stop(signal.SIGINT)  # the second signal ends at once


def test_the_delay_before_a_drain_ends(tmp_path: Path) -> None:
    with serve(bundles.text().write(tmp_path / "bundle"), "--shutdown-delay-seconds", "0.2") as running:
        running.stop()


def test_an_unfit_bundle_is_served_only_when_asked_for(tmp_path: Path) -> None:
    recipe = bundles.linear()
    recipe.manifest |= {"fit_to_serve": False, "unfit_reason": "random weights"}
    bundle = recipe.write(tmp_path / "bundle")
    assert "not fit to serve: random weights. --allow-unfit serves it." in refusal(start(bundle), 12)
    with serve_unfit(bundle) as port:
        socket.create_connection(("127.0.0.1", port), timeout=SECONDS).close()


@contextlib.contextmanager
def serve_unfit(bundle: Path) -> Iterator[int]:
    with start(bundle, "--allow-unfit") as process:
        try:
            assert process.stderr is not None
            assert json.loads(process.stderr.readline())["event"] == "listening"
            assert process.stderr.readline().startswith("warning: ")
            assert json.loads(process.stderr.readline())["fit_to_serve"] is False
            yield int(json.loads(process.stderr.readline())["url"].rpartition(":")[2])
        finally:
            process.kill()


def test_a_model_that_gives_other_numbers_is_never_served(tmp_path: Path) -> None:
    """Every digest right: whoever changed the model sealed it again."""
    bundle = bundles.linear().write(tmp_path / "bundle")
    bundles.onnx.save(bundles.linear_model(seed=1), bundle / "model/model.onnx")
    told = refusal(start(bundles.seal(bundle)), 9)
    assert told.startswith("error: golden case 'case-0', output 'y': max_abs is ")
    assert "do not serve it" in told


def test_a_bundle_for_cuda_is_never_served_by_a_cpu(tmp_path: Path) -> None:
    bundle = bundles.linear().write(tmp_path / "bundle")
    providers = [{"name": f"{name}ExecutionProvider", "options": {}} for name in ("CUDA", "CPU")]
    bundles.edit_json(bundle / "session.json", providers=providers)
    process = start(bundles.seal(bundle), CUDA_VISIBLE_DEVICES="")
    told = refusal(process, 6)
    assert told.startswith("error: ")
    assert "CUDAExecutionProvider" in told
