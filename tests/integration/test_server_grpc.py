"""The server over gRPC: Triton's own client, the codes of what is refused, bounds, and how it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tests.support import bundles
from tests.support.builds import ROOT
from tests.support.serving import SECONDS, Running, serve, start

from ortc.common.resources import cache_root
from ortc.execution.runtime_environment import kept

pytestmark = pytest.mark.integration
messages = bundles.runtime_module("serving.messages")
KINDS = {**messages.make("inference", messages.INFERENCE), **messages.make("grpc.health.v1", messages.HEALTH)}
CLIENT = "tritonclient[grpc]==2.73.0"
Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("repository")
    bundles.text().write(root / "text")
    recipe = bundles.linear()
    recipe.manifest["name"] = "linear"
    recipe.write(root / "linear")
    return root


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[Running]:
    more = ("--grpc-port", "0", "--repository", str(repository), "--max-body-bytes", "100000")
    with serve(repository / "text", *more) as running:
        yield running
        running.stop()


@pytest.fixture(scope="module")
def triton(server: Running) -> Iterator[Ask]:
    """Asks the server through Triton's client, which has an environment of its own."""

    def make(place: Path) -> None:
        for command in (
            [sys.executable, "-m", "venv", str(place)],
            [str(place / "bin/python"), "-m", "pip", "install", "--quiet", CLIENT],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr

    place = cache_root() / "environments" / f"test-triton-{sys.version_info.minor}"
    kept(place, make)
    program = [str(place / "bin/python"), str(ROOT / "tests/support/triton_grpc.py"), server.grpc]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def ask(method: str, **arguments: Any) -> Any:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps([method, arguments]) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield ask
        process.stdin.close()  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def channel(server: Running) -> Iterator[grpc.Channel]:
    with connected(server) as made:
        yield made


def connected(server: Running) -> grpc.Channel:
    return grpc.insecure_channel(server.grpc, options=[("grpc.max_receive_message_length", -1)])


def call(channel: grpc.Channel, method: str, content: bytes = b"", **more: Any) -> bytes:
    """The bytes that a method answers to these bytes."""
    path = method if method.startswith("/") else f"/{messages.SERVICE}/{method}"
    answer: bytes = channel.unary_unary(path)(content, timeout=more.pop("timeout", SECONDS), **more)
    return answer


def infer(channel: grpc.Channel, request: Any, **more: Any) -> Any:
    return KINDS["ModelInferResponse"].FromString(call(channel, "ModelInfer", request.SerializeToString(), **more))


def refused(work: Callable[[], object]) -> tuple[str, str]:
    """The code and the message of the refusal that it meets."""
    with pytest.raises(grpc.RpcError) as caught:
        work()
    return caught.value.code().name, caught.value.details()


def text(ids: Any, *, raw: bool, **more: Any) -> Any:
    """A request to the `text` bundle."""
    array = np.asarray(ids, np.int64)
    request = KINDS["ModelInferRequest"](model_name="text", **more)
    for name, values in (("ids", array), ("mask", np.ones_like(array))):
        entry = request.inputs.add(name=name, datatype="INT64", shape=array.shape)
        if raw:
            request.raw_input_contents.append(values.tobytes())
        else:
            entry.contents.int64_contents.extend(values.ravel().tolist())
    return request


def table() -> Any:
    return bundles.numpy_helper.to_array(bundles.text_model().graph.initializer[0])


# --- Triton's client -----------------------------------------------------------------------------------------------


def test_tritons_client_sees_a_server_and_its_models(triton: Ask) -> None:
    assert triton("is_server_live") is True
    assert triton("is_server_ready") is True
    assert triton("is_model_ready", model_name="text") is True
    assert triton("is_model_ready", model_name="text", model_version="1.0.0") is True
    missing = triton("is_model_ready", model_name="nobody")
    assert missing["status"] == "StatusCode.NOT_FOUND"
    assert triton("get_server_metadata")["extensions"] == ["binary_tensor_data", "model_repository"]
    metadata = triton("get_model_metadata", model_name="text")
    assert metadata["platform"] == "onnxruntime_onnx"
    assert metadata["inputs"][0] == {"name": "ids", "datatype": "INT64", "shape": ["-1", "-1"]}
    assert metadata["outputs"] == [{"name": "hidden", "datatype": "FP32", "shape": ["-1", "-1", "8"]}]


def test_tritons_client_infers(triton: Ask) -> None:
    ids, mask = [[0, 1, 2], [3, 4, 5]], [[1, 1, 1], [1, 0, 0]]
    found = triton("infer", model="text", inputs={"ids": ["INT64", ids], "mask": ["INT64", mask]}, request_id="me")
    assert (found["id"], found["version"]) == ("me", "1.0.0")
    expected = table()[np.array(ids)] * np.array(mask, np.float32)[:, :, None]
    assert np.array_equal(np.array(found["outputs"]["hidden"], np.float32), expected)


def test_tritons_client_is_told_its_mistakes(triton: Ask) -> None:
    def ask(model: str, **inputs: Any) -> tuple[str, str]:
        found = triton("infer", model=model, inputs=inputs)
        return found["status"], found["message"]

    ids = ["INT64", [[1]]]
    assert ask("text", ids=["INT64", [[50]]], mask=ids) == (
        "StatusCode.INVALID_ARGUMENT",
        "input 'ids' holds values from 50 to 50. Send values from 0 to 49.",
    )
    assert ask("text", ids=ids)[1].startswith("input 'mask' is missing")
    assert ask("text", ids=ids, mask=["FP32", [[1]]])[1] == "input 'mask': datatype is FP32, the model takes INT64"
    assert ask("nobody", ids=ids)[0] == "StatusCode.NOT_FOUND"
    named = triton("infer", model="text", inputs={"ids": ids, "mask": ids}, outputs=["hiden"])
    assert "Did you mean 'hidden'" in named["message"]


def test_tritons_client_loads_and_unloads_models(triton: Ask) -> None:
    states = triton("get_model_repository_index")["models"]
    assert {(state["name"], state["state"]) for state in states} >= {("text", "READY")}
    assert triton("load_model", model_name="linear") is None
    assert triton("is_model_ready", model_name="linear") is True
    found = triton("infer", model="linear", inputs={"x": ["FP32", [[0, 0, 0, 0]]]}, outputs=["y"])
    reference = bundles.onnx.reference.ReferenceEvaluator(bundles.linear_model())
    assert np.allclose(found["outputs"]["y"], reference.run(["y"], {"x": np.zeros((1, 4), np.float32)})[0], atol=1e-6)
    assert triton("unload_model", model_name="linear") is None
    assert triton("is_model_ready", model_name="linear")["message"] == "the model was unloaded"
    assert triton("load_model", model_name="nobody")["status"] == "StatusCode.NOT_FOUND"


# --- the protocol --------------------------------------------------------------------------------------------------


def test_messages_are_not_unpacked(channel: grpc.Channel) -> None:
    """A few kilobytes would become as much as a body may have, and be parsed before anybody counts it."""
    request = text([[1, 2]], raw=True)
    code, said = refused(lambda: infer(channel, request, compression=grpc.Compression.Gzip))
    assert code == "UNIMPLEMENTED"
    assert "gzip" in said
    assert infer(channel, request, compression=grpc.Compression.NoCompression).outputs


@pytest.mark.parametrize("raw", [True, False])
def test_tensors_are_answered_as_they_were_sent(channel: grpc.Channel, raw: bool) -> None:
    response = infer(channel, text([[7, 8, 9]], raw=raw, id="a"))
    (output,) = response.outputs
    assert (response.id, output.datatype, list(output.shape)) == ("a", "FP32", [1, 3, 8])
    expected = table()[[7, 8, 9]]
    if raw:
        assert list(response.raw_output_contents) == [expected.tobytes()]
    else:
        assert np.array_equal(np.array(output.contents.fp32_contents, np.float32), expected.ravel())


def test_the_health_protocol_of_grpc_is_answered(channel: grpc.Channel) -> None:
    def check(service: str) -> int:
        content = KINDS["HealthCheckRequest"](service=service).SerializeToString()
        found: int = (
            KINDS["HealthCheckResponse"].FromString(call(channel, "/grpc.health.v1.Health/Check", content)).status
        )
        return found

    assert (check(""), check(messages.SERVICE), check("other")) == (1, 1, 3)


def test_requests_are_counted_beside_those_over_http_and_have_ids(server: Running, channel: grpc.Channel) -> None:
    before = (
        server.metric("ortc_requests_total", model="text"),
        server.metric("ortc_request_errors_total", kind="input"),
    )
    method = channel.unary_unary(f"/{messages.SERVICE}/ModelInfer")
    given = [("x-request-id", "chosen-by-the-client")]
    _, done = method.with_call(text([[1]], raw=True).SerializeToString(), metadata=given, timeout=SECONDS)
    assert ("x-request-id", "chosen-by-the-client") in list(done.trailing_metadata())
    refused(lambda: infer(channel, text([[50]], raw=True)))
    assert server.metric("ortc_requests_total", model="text") == before[0] + 2
    assert server.metric("ortc_request_errors_total", model="text", kind="input") == before[1] + 1


def broken(**changes: Any) -> Any:
    """A right request with something wrong."""
    request = text([[1, 2]], raw=changes.pop("raw", True))
    change = changes.pop("change", None)
    if change is not None:
        change(request)
    return request


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (broken(change=lambda r: r.raw_input_contents.pop()), "1 entries for 2 inputs"),
        (broken(change=lambda r: r.raw_input_contents.append(b"")), "3 entries for 2 inputs"),
        (broken(change=lambda r: r.inputs[0].shape.append(2)), "has 16 bytes, shape"),
        (broken(change=lambda r: r.inputs[0].shape.__setitem__(0, -1)), "shape is not a list of sizes"),
        (broken(change=lambda r: r.inputs[0].contents.int64_contents.append(1)), "contents beside raw_input_contents"),
        (broken(raw=False, change=lambda r: r.inputs[0].contents.int64_contents.append(1)), "has 3 values"),
        (broken(raw=False, change=lambda r: r.inputs[0].contents.fp32_contents.append(1)), "INT64 is sent in int64"),
        (broken(raw=False, change=lambda r: setattr(r.inputs[0], "datatype", "FP16")), "the model takes INT64"),
        (broken(change=lambda r: setattr(r.inputs[0], "datatype", "BYTES")), "is BYTES, the model takes INT64"),
        (broken(change=lambda r: setattr(r.inputs[0], "datatype", "BF16")), "datatype is not one of"),
        (broken(change=lambda r: setattr(r.inputs[1], "name", "ids")), "is given twice"),
        (broken(change=lambda r: [r.outputs.add(name="hidden") for _ in range(2)]), "names one twice"),
        (broken(change=lambda r: r.inputs[0].parameters["shared_memory_region"].MergeFrom(
            KINDS["InferParameter"](string_param="x"))), "is not supported"),
        (broken(change=lambda r: setattr(r, "id", "x" * 2000)), "more than 1024 characters"),
        (broken(change=lambda r: r.inputs[0].ClearField("shape")), "has 16 bytes, shape"),
    ],
)  # fmt: skip
def test_mistakes_are_told(channel: grpc.Channel, request_: Any, message: str) -> None:
    code, found = refused(lambda: infer(channel, request_))
    assert code == "INVALID_ARGUMENT"
    assert message in found


def test_what_is_not_the_protocol_is_refused(channel: grpc.Channel) -> None:
    assert refused(lambda: call(channel, "ModelInfer", b"\xff\xff"))[0] == "INVALID_ARGUMENT"
    assert refused(lambda: call(channel, "ModelReady", b"\xff\xff"))[0] == "INVALID_ARGUMENT"
    assert refused(lambda: call(channel, "ModelReady", b"\x0a\x80\x80\x04" + b"x" * 65536))[0] == "RESOURCE_EXHAUSTED"
    assert refused(lambda: call(channel, "ModelStreamInfer"))[0] == "UNIMPLEMENTED"
    assert refused(lambda: call(channel, "ModelInfer", b""))[0] == "NOT_FOUND"
    empty = channel.stream_unary(f"/{messages.SERVICE}/ModelInfer")
    assert refused(lambda: empty(iter(()), timeout=SECONDS)) == ("INVALID_ARGUMENT", "there is no ModelInferRequest")


def test_a_message_over_the_limit_is_refused_and_never_kept(server: Running, channel: grpc.Channel) -> None:
    def resident() -> float:
        return server.metric("process_resident_memory_bytes")

    infer(channel, text([[1]], raw=True))
    before = resident()
    large = text([[1]], raw=True)
    large.raw_input_contents[0] = bytes(200 * 2**20)
    assert refused(lambda: infer(channel, large))[0] == "RESOURCE_EXHAUSTED"
    assert resident() - before < 50 * 2**20
    assert infer(channel, text([[1]], raw=True)).outputs


def test_concurrent_requests_get_their_own_answers(server: Running) -> None:
    expected = table()

    def client(number: int) -> None:
        with connected(server) as mine:
            for step in range(25):
                ids = [[(number * 7 + step) % 50] * (1 + step % 12)] * (1 + number % 4)
                response = infer(mine, text(ids, raw=bool(step % 2)))
                content = response.raw_output_contents
                found = (
                    content[0]
                    if content
                    else np.array(response.outputs[0].contents.fp32_contents, np.float32).tobytes()
                )
                assert found == expected[np.array(ids)].tobytes()

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(client, number) for number in range(8)]:
            done.result(SECONDS)


# --- NaN, time, load, the end --------------------------------------------------------------------------------------


def linear(rows: Any) -> Any:
    request = KINDS["ModelInferRequest"](model_name="linear")
    request.inputs.add(name="x", datatype="FP32", shape=rows.shape)
    request.raw_input_contents.append(np.asarray(rows, np.float32).tobytes())
    return request


def test_nan_is_refused_as_an_input(repository: Path) -> None:
    bad = np.ones((16, 4), np.float32)
    bad[3, 2] = np.nan
    with serve(repository / "linear", "--grpc-port", "0") as running, connected(running) as channel:
        code, message = refused(lambda: infer(channel, linear(bad)))
        assert (code, "holds NaN" in message) == ("INVALID_ARGUMENT", True)
        running.stop()


def test_a_message_that_does_not_arrive_is_refused(repository: Path) -> None:
    arguments = ("--grpc-port", "0", "--request-seconds", "0.5")
    with serve(repository / "linear", *arguments) as running, connected(running) as channel:
        # A call without its message: the server has its time, and the client may have less.
        released = threading.Event()
        waiting = channel.stream_unary(f"/{messages.SERVICE}/ModelInfer")
        silent = iter(lambda: released.wait(SECONDS) or None, None)
        code, message = refused(lambda: waiting(silent, timeout=SECONDS))
        assert (code, message) == ("DEADLINE_EXCEEDED", "the body did not arrive within 0.5 seconds")
        assert refused(lambda: waiting(silent, timeout=0.1))[0] == "DEADLINE_EXCEEDED"
        released.set()
        assert running.metric("ortc_request_errors_total", kind="slow-body") >= 1
        running.stop()


def test_a_full_queue_refuses_with_the_time_to_come_back(repository: Path) -> None:
    arguments = ("--grpc-port", "0", "--queue-size", "0", "--request-seconds", "1000")
    with serve(repository / "linear", *arguments) as running, connected(running) as channel:
        content = linear(np.ones((16, 4), np.float32)).SerializeToString()
        codes: set[str] = set()
        pauses = []
        method = channel.unary_unary(f"/{messages.SERVICE}/ModelInfer")
        while "RESOURCE_EXHAUSTED" not in codes:
            for future in [method.future(content, timeout=SECONDS) for _ in range(64)]:
                codes.add(future.code().name)
                if future.code() == grpc.StatusCode.RESOURCE_EXHAUSTED:
                    pauses.append(("grpc-retry-pushback-ms", "1000") in list(future.trailing_metadata()))
        assert codes <= {"OK", "RESOURCE_EXHAUSTED"}
        assert all(pauses)
        running.stop()


def test_sigterm_under_load_fails_no_call_that_was_taken(tmp_path: Path) -> None:
    content = text([[7] * 12] * 4, raw=True).SerializeToString()
    codes: list[str] = []
    started = threading.Event()

    def client(place: str) -> None:
        with grpc.insecure_channel(place) as channel:
            method = channel.unary_unary(f"/{messages.SERVICE}/ModelInfer")
            while not codes or codes[-1] == "OK":
                future = method.future(content, timeout=SECONDS)
                codes.append(future.code().name)
                started.set()

    with serve(bundles.text().write(tmp_path / "bundle"), "--grpc-port", "0") as running:
        with ThreadPoolExecutor(8) as pool:
            clients = [pool.submit(client, running.grpc) for _ in range(8)]
            assert started.wait(SECONDS)
            running.process.send_signal(signal.SIGTERM)
            for done in clients:
                done.result(SECONDS)
        events = running.ended()
    assert set(codes) <= {"OK", "UNAVAILABLE"}
    assert "OK" in codes
    assert not [event for event in events if event.get("status") == 499]


def test_a_port_that_is_taken_is_told(server: Running, repository: Path) -> None:
    process = start(repository / "linear", "--grpc-port", server.grpc.rpartition(":")[2])
    _, log = process.communicate(timeout=SECONDS)
    assert process.returncode == 2
    assert log.splitlines()[-1] == f"error: cannot listen on {server.grpc} for gRPC"
