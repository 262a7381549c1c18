"""The server as a program, over real sockets: the protocol, its bounds, and how it starts and ends."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support import bundles
from tests.support.refusals import INFER, refusal
from tests.support.serving import SECONDS, Running, binary_body, body, raw, serve, start

pytestmark = pytest.mark.integration
INT64 = {"ids": "INT64", "mask": "INT64"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    bundle = bundles.text().write(tmp_path_factory.mktemp("server") / "bundle")
    with serve(bundle, "--max-body-bytes", "100000", "--log-requests") as running:
        yield running
        events = running.stop()
        requests = [event for event in events if event["event"] == "request"]
        assert {"request_id", "model", "status", "seconds", "time", "level"} <= requests[0].keys()
        assert "chosen-by-the-client" in {event["request_id"] for event in requests}
        assert events[-1]["event"] == "ended"


def table() -> Any:
    return bundles.numpy_helper.to_array(bundles.text_model().graph.initializer[0])


def answer_to(ids: Any, mask: Any) -> Any:
    return table()[np.asarray(ids)] * np.asarray(mask)[:, :, None].astype(np.float32)


def test_what_was_loaded_is_logged_before_it_is_served(server: Running) -> None:
    listening, loaded, serving = server.events
    assert (listening["event"], listening["url"]) == ("listening", serving["url"])
    assert loaded["event"] == "loaded"
    assert loaded["golden"][0]["max_abs"] == 0
    assert serving["url"] == f"http://127.0.0.1:{server.port}"


def test_health_and_metadata(server: Running) -> None:
    assert server.request("GET", "/v2/health/live") == (200, {"live": True})
    assert server.request("GET", "/v2/health/ready") == (200, {"ready": True})
    assert server.request("GET", "/v2/models/text/ready") == (200, {"name": "text", "ready": True})
    assert server.request("GET", "/v2")[1]["extensions"] == ["binary_tensor_data"]
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


def test_an_inference_in_json_gives_the_models_answer(server: Running) -> None:
    ids, mask = [[0, 1, 2], [3, 4, 5]], [[1, 1, 1], [1, 0, 0]]
    status, reply = server.request("POST", INFER, body(ids, mask, id="a"))
    assert status == 200
    assert (reply["model_name"], reply["model_version"], reply["id"]) == ("text", "1.0.0", "a")
    (output,) = reply["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("hidden", "FP32", [2, 3, 8])
    assert np.array_equal(np.array(output["data"], np.float32).reshape(2, 3, 8), answer_to(ids, mask))


@pytest.mark.parametrize("ask", ["request", "output"])
def test_an_inference_in_binary_gives_the_same_bytes(server: Running, ask: str) -> None:
    inputs = {"ids": np.array([[7, 8, 9]]), "mask": np.array([[1, 0, 1]])}
    named = {"outputs": [{"name": "hidden", "parameters": {"binary_data": True}}]}
    more: dict[str, Any] = {"parameters": {"binary_data_output": True}} if ask == "request" else named
    for padding in range(8):  # whatever the alignment of the tensors in the body
        content, length = binary_body(inputs, INT64, id="x" * padding, **more)
        headers = {"Inference-Header-Content-Length": length}
        status, found, answer = server.exchange("POST", INFER, content, headers)
        assert status == 200
        assert found["content-type"] == "application/octet-stream"
        end = int(found["inference-header-content-length"])
        (output,) = json.loads(answer[:end])["outputs"]
        assert output["parameters"] == {"binary_data_size": 96}
        assert answer[end:] == answer_to(inputs["ids"], inputs["mask"]).tobytes()


def test_the_openapi_document_has_the_models_inputs(server: Running) -> None:
    status, document = server.request("GET", "/openapi.json")
    assert status == 200
    schema = document["paths"][INFER]["post"]["requestBody"]["content"]["application/json"]["schema"]
    ids, mask = schema["properties"]["inputs"]["items"]["oneOf"]
    assert ids["properties"]["data"]["items"] == {"type": "integer", "minimum": 0, "maximum": 49}
    assert mask["properties"]["shape"] == {
        "type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 12}, "minItems": 2, "maxItems": 2
    }  # fmt: skip


def test_a_request_id_is_sent_back_and_one_that_is_none_is_not(server: Running) -> None:
    _, headers, _ = server.exchange("POST", INFER, body([[1]]), {"X-Request-Id": "chosen-by-the-client"})
    assert headers["x-request-id"] == "chosen-by-the-client"
    _, headers, _ = server.exchange("POST", INFER, b"nonsense", {"X-Request-Id": "has spaces"})
    assert headers["x-request-id"] != "has spaces"
    assert server.exchange("GET", "/v2/health/live")[1]["x-request-id"]


def test_concurrent_requests_on_kept_connections_get_their_own_answers(server: Running) -> None:
    def client(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=SECONDS)
        with contextlib.closing(connection):
            for step in range(25):
                ids = [[(number * 7 + step) % 50] * (1 + step % 12)] * (1 + number % 4)
                connection.request("POST", INFER, body(ids))
                response = connection.getresponse()
                (output,) = json.loads(response.read())["outputs"]
                assert response.status == 200
                expected = answer_to(ids, np.ones_like(ids))
                assert output["shape"] == list(expected.shape)
                assert np.array_equal(np.array(output["data"], np.float32), expected.ravel())

    with ThreadPoolExecutor(16) as pool:
        for done in [pool.submit(client, number) for number in range(16)]:
            done.result(SECONDS)


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
        ("POST", INFER, b" " * 5_000_000, 413, "100000 bytes at most"),
        ("POST", "/v2/models/other/infer", body([[1]]), 404, "no such model"),
        ("POST", "/v2/models/text/versions/2/infer", body([[1]]), 404, "no such version"),
        ("GET", "/v2/models/text/versions/2", None, 404, "no such version"),
        ("GET", INFER, None, 405, "does not take that method"),
        ("POST", "/v2/repository/index", b"{}", 404, "no such path"),
        ("GET", "/nowhere", None, 404, "no such path"),
        ("DELETE", "/v2/models/text", None, 405, "does not take that method"),
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


def test_compressed_bodies_are_refused(server: Running) -> None:
    status, reply = server.request("POST", INFER, b"x", **{"Content-Encoding": "gzip"})
    assert (status, "Content-Encoding" in reply["error"]) == (415, True)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"Content-Length: 99999999999999\r\n", b"413"),
        (b"Content-Length: -1\r\n", b"400"),
        (b"Content-Length: 1\r\nContent-Length: 2\r\n", b"400"),
        (b"Content-Length: 99999999\r\nExpect: 100-continue\r\n", b"413"),
        (b"Transfer-Encoding: chunked\r\n\r\n186a1\r\n" + b" " * 100001, b"413"),
    ],
)
def test_bodies_of_unclear_or_forbidden_length_are_never_kept(server: Running, head: bytes, status: bytes) -> None:
    answer = raw(server.port, b"POST " + INFER.encode() + b" HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert b"100 Continue" not in answer
    assert b"connection: close" in answer.lower()


def test_a_chunked_body_is_read_within_the_limit(server: Running) -> None:
    content = body([[3]])
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (content[:10], content[10:])) + b"0\r\n\r\n"
    head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert raw(server.port, head.encode() + chunks).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "request_",
    [
        b"nonsense\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\r\n\r\n",
        b"GET /" + b"a" * 400_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"A: " + b"a" * 400_000,
    ],
)
def test_what_is_not_http_is_refused_as_json(server: Running, request_: bytes) -> None:
    with contextlib.suppress(ConnectionError):  # it may close while the rest is still on its way
        answer = raw(server.port, request_)
        assert answer.startswith(b"HTTP/1.1 4")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    assert server.request("GET", "/v2/health/live")[0] == 200


def test_the_body_of_a_get_is_not_the_next_request(server: Running) -> None:
    smuggled = b"GET /v2/models/other HTTP/1.1\r\nHost: x\r\n\r\n"
    head = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(smuggled)
    assert raw(server.port, head + smuggled).count(b"HTTP/1.1") == 1


def test_metrics_count_what_was_served(server: Running) -> None:
    before = (
        server.metric("ortc_requests_total", model="text"),
        server.metric("ortc_request_errors_total", kind="input"),
    )
    for _ in range(3):
        assert server.request("POST", INFER, body([[1, 2]]))[0] == 200
    assert server.request("POST", INFER, body([[50]]))[0] == 400
    assert server.metric("ortc_requests_total", model="text") == before[0] + 4
    assert server.metric("ortc_request_errors_total", model="text", kind="input") == before[1] + 1
    for name in ("ortc_queue_seconds_count", "ortc_compute_seconds_count", "ortc_batch_size_count"):
        assert server.metric(name, model="text", version="1.0.0") >= 3
    assert server.metric("ortc_model_load_seconds", model="text") > 0
    assert server.metric("ortc_model_memory_bytes", model="text") > 0
    assert server.metric("ortc_model_nodes", provider="CPUExecutionProvider") > 0
    golden = answer_to(np.arange(6).reshape(2, 3), [[1, 1, 1], [1, 0, 0]])
    assert server.metric("ortc_output_golden_mean", output="hidden") == pytest.approx(golden.mean(), abs=1e-6)
    assert server.metric("ortc_output_golden_variance", output="hidden") == pytest.approx(golden.var(), rel=1e-5)
    assert server.metric("process_resident_memory_bytes") > 10e6


# --- NaN, load and time --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundles.linear().write(tmp_path_factory.mktemp("linear") / "bundle")


LINEAR = "/v2/models/linear/infer"


def rows() -> tuple[bytes, dict[str, str]]:
    """A request to the `linear` bundle in binary, and its headers."""
    content, length = binary_body({"x": np.ones((16, 4), np.float32)}, {"x": "FP32"})
    return content, {"Inference-Header-Content-Length": length}


def test_nan_is_refused_as_an_input(server_bundle: Path) -> None:
    bad = np.ones((16, 4), np.float32)
    bad[3, 2] = np.nan
    content, length = binary_body({"x": bad}, {"x": "FP32"})
    with serve(server_bundle) as running:
        status, _, answer = running.exchange("POST", LINEAR, content, {"Inference-Header-Content-Length": length})
        assert (status, b"holds NaN" in answer) == (400, True)
        running.stop()


def test_a_body_that_does_not_arrive_is_refused(server_bundle: Path) -> None:
    half = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n{" % LINEAR.encode()
    with serve(server_bundle, "--request-seconds", "0.5") as running:
        assert raw(running.port, half).startswith(b"HTTP/1.1 408")
        assert running.metric("ortc_request_errors_total", kind="slow-body") == 1
        running.stop()


def announced(length: int) -> bytes:
    """The head of a request whose body has so many bytes."""
    return b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (LINEAR.encode(), length)


def test_only_bytes_that_arrived_count(server_bundle: Path) -> None:
    """Forty clients announce ten times the bound: a real request has room."""
    content, headers = rows()
    with serve(server_bundle, "--max-buffered-bytes", "4096") as running, contextlib.ExitStack() as stack:
        for _ in range(40):
            silent = stack.enter_context(socket.create_connection(("127.0.0.1", running.port), timeout=SECONDS))
            silent.sendall(announced(4000) + b"{")
        for _ in range(20):
            assert running.exchange("POST", LINEAR, content, headers)[0] == 200
        running.process.kill()


def test_a_body_that_does_not_go_on_makes_room(server_bundle: Path) -> None:
    content, headers = rows()
    arguments = ("--request-seconds", "1000", "--max-buffered-bytes", "1000")
    with (
        serve(server_bundle, *arguments) as running,
        socket.create_connection(("127.0.0.1", running.port), timeout=SECONDS) as slow,
    ):
        slow.sendall(announced(900) + b" " * 899)
        statuses = set[int]()
        with slow.makefile("rb") as answer:
            reader = threading.Thread(target=lambda: statuses.add(int(answer.readline().split()[1])))
            reader.start()
            while reader.is_alive():
                status, found, _ = running.exchange("POST", LINEAR, content, headers)
                assert status == 200 or (status, found["retry-after"]) == (503, "1")
            reader.join()
        assert statuses == {408}
        assert running.exchange("POST", LINEAR, content, headers)[0] == 200
        running.stop()


def test_a_full_queue_refuses_with_the_time_to_come_back(server_bundle: Path) -> None:
    content, headers = rows()
    with serve(server_bundle, "--queue-size", "0", "--request-seconds", "1000") as running:
        with ThreadPoolExecutor(16) as pool:
            found_statuses: set[int] = set()
            while 429 not in found_statuses:
                done = [pool.submit(running.exchange, "POST", LINEAR, content, headers) for _ in range(64)]
                answers = [one.result(SECONDS) for one in done]
                found_statuses |= {status for status, _, _ in answers}
                assert all("retry-after" in found for status, found, _ in answers if status == 429)
        assert found_statuses <= {200, 429}
        running.stop()


def test_a_bundle_that_is_not_as_it_promises_is_never_served(tmp_path: Path, server: Running) -> None:
    bundle = bundles.linear().write(tmp_path / "bundle")
    used = refusal(start(bundle, "--port", str(server.port)), 2)
    assert used.startswith(f"error: cannot listen on 127.0.0.1:{server.port}")
    bundles.edit_json(bundle / "session.json", providers=[{"name": "QNNExecutionProvider", "options": {}}])
    assert "asks for QNNExecutionProvider" in refusal(start(bundles.seal(bundle)), 6)
    runtime = {"package": "onnxruntime", "version": "99.0.0", "minimum_version": "99.0.0", "python": ["3.11"]}
    bundles.edit_json(bundle / "manifest.json", runtime=runtime)
    assert "too old" in refusal(start(bundles.seal(bundle)), 5)
    with (bundle / "session.json").open("a") as file:
        file.write(" ")
    assert refusal(start(bundle), 4).startswith("error: session.json has ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--port", "-1"), "number from 0 to 65535"),
        (("--port", "99999"), "number from 0 to 65535"),
        (("--threads", "1000000000000000"), "number from 1 to 1024"),
        (("--max-queue-delay-us", "1" + "0" * 400), "number of at least 0"),
        (("--host", "\udcff"), "cannot listen on"),
        (("--repository", "a" * 300), "is not a directory"),
        (("--request-seconds", "nan"), "number of at least 0.001"),
        (("--preload", "x"), "Give --repository"),
        (("--max-batch-size", "17"), "verified up to batch 16"),
    ],
)
def test_options_that_make_no_sense_are_told(server_bundle: Path, arguments: tuple[str, ...], message: str) -> None:
    process = start(server_bundle, *arguments)
    _, log = process.communicate(timeout=SECONDS)
    assert process.returncode == 2
    assert message in log
