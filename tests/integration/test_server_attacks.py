"""Hostile clients beside real ones: what is refused, what makes room, and what the server holds meanwhile."""

from __future__ import annotations

import contextlib
import json
import resource
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tests.support import attacks, bundles
from tests.support.serving import SECONDS, Running, binary_body, body, raw, read_until_serving, serve, start

pytestmark = pytest.mark.integration
INFER = "/v2/models/text/infer"
MIB = 2**20
messages = bundles.runtime_module("serving.messages")
REQUEST = messages.make("inference", messages.INFERENCE)["ModelInferRequest"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundles.text().write(tmp_path_factory.mktemp("attacks") / "bundle")


@pytest.fixture(scope="module")
def server(bundle: Path) -> Iterator[Running]:
    with serve(bundle, "--grpc-port", "0") as running:
        yield running
        running.stop()


def resident(running: Running, name: str = "VmHWM") -> int:
    """The most bytes that the process held so far, or with VmRSS those that it holds now."""
    status = Path(f"/proc/{running.process.pid}/status").read_text("utf-8")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(f"{name}:"))


def answers(running: Running) -> None:
    """A real client of each protocol is answered."""
    assert running.request("POST", INFER, body([[1, 2]]))[0] == 200
    if "grpc" in running.events[-1]:
        with grpc.insecure_channel(running.grpc) as channel:
            infer(channel)


def soon_answers(running: Running) -> None:
    """A real client is answered once those that have sent nothing for a second make room."""
    deadline = time.monotonic() + SECONDS
    while running.request("POST", INFER, body([[1, 2]]))[0] == 503 and time.monotonic() < deadline:
        time.sleep(0.1)
    answers(running)


def infer(channel: grpc.Channel) -> None:
    request = REQUEST(model_name="text")
    for name in ("ids", "mask"):
        request.inputs.add(name=name, datatype="INT64", shape=[1, 2])
        request.raw_input_contents.append(np.ones((1, 2), np.int64).tobytes())
    path = f"/{messages.SERVICE}/ModelInfer"
    assert channel.unary_unary(path)(request.SerializeToString(), timeout=SECONDS)


# --- what becomes of small bodies ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        attacks.strings("ids", "INT64", 4000, 60_000),
        attacks.strings("unknown", "INT64", 4000, 60_000),
        attacks.strings("ids", "BYTES", 4000, 60_000),
        attacks.nested("ids", "INT64", 15_000_000),
        attacks.nested("ids", "INT64", 60_000),
        b'{"inputs":[' + b"{}," * 5_000_000 + b"{}]}",
        b'{"inputs":[{"name":"ids","shape":[1],"datatype":"INT64","data":[' + b"0," * 7_000_000 + b"0]}]}",
        b'{"id":"' + b"x" * 15_000_000 + b'","inputs":[]}',
        b'{"inputs":[],"outputs":[{"name":"' + b"hidden" * 2_500_000 + b'"}]}',
        b" " * 15_000_000,
    ],
    ids=["strings", "unknown", "bytes", "lists", "fewer-lists", "objects", "values", "id", "output", "space"],
)
def test_a_body_is_never_worth_many_times_its_bytes(server: Running, content: bytes) -> None:
    answers(server)
    before = resident(server)
    status, _, answer = server.exchange("POST", INFER, content)
    assert status == 400
    assert len(answer) < 2000
    assert resident(server) - before < 2 * len(content) + 16 * MIB
    answers(server)


@pytest.mark.parametrize(
    "content",
    [
        b"".join(b"\x2a\x00" for _ in range(2_000_000)),  # inputs
        b"".join(b"\x3a\x00" for _ in range(2_000_000)),  # raw_input_contents
        b"\x2a\xc0\x84\x3d" + b"\x2a\xbc\x84\x3d" + b"\x42\x00" * 500_000,
        REQUEST(model_name="x" * 1_000_000).SerializeToString(),
    ],
    ids=["inputs", "raw", "bytes_contents", "name"],
)
def test_a_message_is_never_worth_many_times_its_bytes(server: Running, content: bytes) -> None:
    answers(server)
    before = resident(server)
    with grpc.insecure_channel(server.grpc) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(f"/{messages.SERVICE}/ModelInfer")(content, timeout=SECONDS)
    assert caught.value.code().name in ("INVALID_ARGUMENT", "NOT_FOUND")
    assert len(caught.value.details()) < 2000
    assert resident(server) - before < 4 * len(content) + 16 * MIB


@pytest.mark.parametrize("place", ["input", "output", "model", "datatype", "version"])
def test_no_name_is_echoed_whole(server: Running, place: str) -> None:
    long = "n" * 5000
    path, content = INFER, body([[1]])
    if place == "input":
        content = json.dumps(
            {"inputs": [{"name": long[:1000], "shape": [1], "datatype": "INT64", "data": [1]}]}
        ).encode()
    elif place == "output":
        content = body([[1]], outputs=[{"name": long[:1000]}])
    elif place == "datatype":
        entry = {"name": "ids", "shape": [1], "datatype": long, "data": [1]}
        content = json.dumps({"inputs": [entry]}).encode()
    elif place == "model":
        path = f"/v2/models/{long}/infer"
    else:
        path = f"/v2/models/text/versions/{long}/infer"
    status, _, answer = server.exchange("POST", path, content)
    assert status in (400, 404)
    assert len(answer) < 500
    assert b"n" * 100 not in answer


# --- clients that keep the server waiting --------------------------------------------------------------------------


def test_clients_that_announce_bodies_stop_nobody(server: Running) -> None:
    with attacks.connections(server.port, 64, attacks.head(INFER, 16 * MIB)):
        for _ in range(20):
            answers(server)


def test_clients_that_send_most_of_their_bodies_stop_no_small_request(bundle: Path) -> None:
    with serve(bundle, "--max-buffered-bytes", str(32 * MIB)) as running:
        answers(running)
        before = resident(running)
        first = attacks.head(INFER, 16 * MIB) + b" " * (15 * MIB)
        with attacks.connections(running.port, 8, first):
            for _ in range(20):
                answers(running)
        assert resident(running) - before < 3 * 32 * MIB
        running.process.kill()


def test_a_large_body_that_stops_is_ended_long_before_its_request_is(bundle: Path) -> None:
    with serve(bundle, "--request-seconds", "1000") as running:
        with attacks.connections(running.port, 1, attacks.head(INFER, 16 * MIB) + b" " * MIB) as (slow,):
            slow.settimeout(SECONDS)
            assert slow.recv(100).startswith(b"HTTP/1.1 408")
        running.process.kill()


@pytest.mark.parametrize("method", ["ModelInfer", "ServerLive"])
def test_calls_without_messages_stop_nobody(server: Running, method: str) -> None:
    first = attacks.unfinished(f"/{messages.SERVICE}/{method}", 100, 16 * MIB, 0)
    with attacks.connections(server.grpc_port, 4, first):
        for _ in range(10):
            answers(server)


@pytest.mark.parametrize("method", ["ModelInfer", "ServerLive"])
def test_unfinished_messages_stop_nobody_and_are_bounded(bundle: Path, method: str) -> None:
    """A thousand calls send a part of a message of 16 MiB."""
    with serve(bundle, "--grpc-port", "0", "--max-buffered-bytes", str(32 * MIB)) as running:
        answers(running)
        before = resident(running)
        first = attacks.unfinished(f"/{messages.SERVICE}/{method}", 250, 15 * MIB, 60_000)
        with attacks.connections(running.grpc_port, 4, first):
            for _ in range(10):
                answers(running)
        assert resident(running) - before < 200 * MIB
        running.process.kill()


def test_more_connections_than_descriptors_stop_nobody_and_fill_no_log(bundle: Path) -> None:
    with start(bundle) as process, contextlib.ExitStack() as stack:
        stack.callback(process.kill)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (150, 150))
        running = read_until_serving(process)
        with attacks.connections(running.port, 600):
            for _ in range(20):
                answers(running)
        with attacks.connections(running.port, 100, attacks.head(INFER, 1000)):
            soon_answers(running)
        running.stop()
        assert len(running.log) < 100


def test_a_client_that_does_not_read_is_closed(bundle: Path) -> None:
    """Each asks for far more than the kernel holds, and takes none of it."""
    recipe = bundles.text()
    recipe.manifest["axes"][0]["max"] = 4096
    content = body([[7] * 12] * 2000, outputs=[{"name": "hidden"}])
    asked = (attacks.head(INFER, len(content)) + content) * 4
    with serve(recipe.write(bundle.parent / "wide"), "--request-seconds", "1000") as running:
        answers(running)
        before, descriptors = resident(running), running.metric("process_open_fds")
        with attacks.connections(running.port, 16, asked, window=4096):
            while running.metric("process_open_fds") < descriptors + 16:
                answers(running)
            while running.metric("process_open_fds") > descriptors:
                answers(running)
        assert resident(running) - before < 256 * MIB
        events = running.stop()
    closed = [1 + event.get("suppressed", 0) for event in events if event["event"] == "unread-answer"]
    assert sum(closed) == 16


# --- heads, pipelines, logs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("padding", "status"), [(65536 - 100, b"200"), (65536, b"431"), (130_000, b"431"), (250_000, b"431")]
)
@pytest.mark.parametrize("shape", ["field", "fields", "space", "target"])
def test_a_head_has_64_kib(server: Running, padding: int, status: bytes, shape: str) -> None:
    fixed = b"Host: x\r\nConnection: close\r\n"
    target = b"/v2/health/live"
    if shape == "field":
        fixed += b"A: " + b"a" * padding + b"\r\n"
    elif shape == "fields":
        fixed += b"A: bbbbbbbbbbbbbbbbbbbbbbbbbbb\r\n" * (padding // 32)
    elif shape == "space":
        fixed += b"A:" + b" " * padding + b"b\r\n"
    else:
        target += b"?" + b"a" * padding
    with contextlib.suppress(ConnectionError):  # it may close while the rest is still on its way
        answer = raw(server.port, b"GET " + target + b" HTTP/1.1\r\n" + fixed + b"\r\n")
        assert answer.startswith(b"HTTP/1.1 " + status), answer[:200]
    assert server.request("GET", "/v2/health/live")[0] == 200


def test_a_head_behind_another_request_is_bounded_as_well(server: Running) -> None:
    first = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    second = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 80_000 + b"\r\n\r\n"
    with contextlib.suppress(ConnectionError):
        answer = raw(server.port, first + second)
        assert answer.count(b"HTTP/1.1 200") <= 1
        assert answer.endswith(b"}")


def test_a_pipeline_is_answered_in_order(server: Running) -> None:
    paths = [b"/v2/health/live", b"/v2", b"/v2/models/text/ready"] * 2000
    requests = b"".join(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n" for path in paths)
    with socket.create_connection(("127.0.0.1", server.port), timeout=SECONDS) as connection:
        sender = threading.Thread(target=connection.sendall, args=(requests,))
        sender.start()
        found = b""
        while found.count(b"HTTP/1.1 200") < len(paths) or not found.endswith(b"}"):
            found += connection.recv(65536)
        sender.join()
    bodies = [part.rpartition(b"\r\n\r\n")[2] for part in found.split(b"HTTP/1.1 200")[1:]]
    assert [next(iter(json.loads(text))) for text in bodies] == ["live", "name", "name"] * 2000


def test_a_flood_of_equal_refusals_is_a_few_lines_and_a_number(bundle: Path) -> None:
    with serve(bundle) as running:
        for number in range(2000):
            assert running.request("POST", f"/v2/models/unknown-{number}/infer", b"{}")[0] == 404
        events = [event for event in running.stop() if event["event"] in ("request", "log-suppressed")]
    assert len(events) < 400
    assert sum(event.get("suppressed", 0) for event in events) + sum(e["event"] == "request" for e in events) == 2000


def test_clients_that_leave_have_nothing_run_for_them(bundle: Path) -> None:
    with serve(bundle, "--max-batch-size", "4", "--max-queue-delay-us", "400000") as running:
        content = body([[1, 2]])
        before = running.metric("ortc_compute_seconds_count", model="text")
        for _ in range(50):
            with socket.create_connection(("127.0.0.1", running.port), timeout=SECONDS) as connection:
                connection.sendall(attacks.head(INFER, len(content)) + content[:-1])
            with socket.create_connection(("127.0.0.1", running.port), timeout=SECONDS) as connection:
                connection.sendall(attacks.head(INFER, len(content)) + content)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # close by a reset
        while running.metric("ortc_request_errors_total", model="text", kind="disconnected") < 50:
            pass
        assert running.metric("ortc_compute_seconds_count", model="text") - before < 50
        answers(running)
        running.stop()


def test_errors_have_the_label_of_their_model_and_are_counted_among_requests(server: Running) -> None:
    def counted(**labels: Any) -> tuple[float, float]:
        return (
            server.metric("ortc_requests_total", **labels),
            server.metric("ortc_request_errors_total", **labels),
        )

    known, unknown = counted(model="text"), counted(model="")
    for path in (INFER, "/v2/models/text/versions/9/infer", "/v2/models/nobody/infer"):
        assert server.request("POST", path, b"{}")[0] in (400, 404)
    assert counted(model="text") == (known[0] + 2, known[1] + 2)
    assert counted(model="") == (unknown[0] + 1, unknown[1] + 1)
    assert server.metric("ortc_requests_total", model="nobody") == 0


def test_binary_requests_of_every_size_pass(server: Running) -> None:
    """What the bounds let pass is what the model takes."""
    for rows in (1, 2, 4):
        inputs = {"ids": np.ones((rows, 12), np.int64), "mask": np.ones((rows, 12), np.int64)}
        content, length = binary_body(inputs, {"ids": "INT64", "mask": "INT64"})
        headers = {"Inference-Header-Content-Length": length}
        assert server.exchange("POST", INFER, content, headers)[0] == 200
