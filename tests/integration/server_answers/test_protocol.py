"""Texts as inputs of the Open Inference Protocol: over HTTP, as binary tensors, over gRPC."""

from __future__ import annotations

import json
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.http as triton
from tests.support import answering_bundles as answering
from tests.support.answer_servers import KEY, KINDS, TEXTS, vectors
from tests.support.serving import SECONDS, Running

pytestmark = pytest.mark.integration


def test_metadata_has_the_texts_beside_the_tensors(server: Running) -> None:
    found = server.request("GET", "/v2/models/classes")[1]
    assert [entry["name"] for entry in found["inputs"]] == [*answering.INPUTS, "text", "text_pair"]
    assert found["inputs"][3] == {"name": "text", "datatype": "BYTES", "shape": [-1]}
    assert found["outputs"][-1] == {"name": "label", "datatype": "BYTES", "shape": [-1]}
    assert [entry["name"] for entry in server.request("GET", "/v2/models/vectors")[1]["inputs"]][3:] == ["text"]
    assert [entry["name"] for entry in server.request("GET", "/v2/models/linear")[1]["inputs"]] == ["x"]


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("shape", [[len(TEXTS)], [len(TEXTS), 1]])
def test_tritons_client_sends_texts(server: Running, binary: bool, shape: list[int]) -> None:
    client = triton.InferenceServerClient(f"127.0.0.1:{server.port}", network_timeout=SECONDS)

    def asked(name: str, texts: list[str]) -> Any:
        made = triton.InferInput(name, shape, "BYTES")
        return made.set_data_from_numpy(np.array(texts, dtype=object).reshape(shape), binary_data=binary)

    outputs = [triton.InferRequestedOutput("sentence_embedding", binary_data=binary)]
    result = client.infer("vectors", [asked("text", TEXTS)], outputs=outputs)
    assert np.abs(result.as_numpy("sentence_embedding") - vectors(server, TEXTS)).max() < 1e-6
    outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("label", "probabilities")]
    for pairs in (False, True):
        texts = [asked("text", TEXTS), *([asked("text_pair", TEXTS[::-1])] if pairs else [])]
        result = client.infer("classes", texts, outputs=outputs)
        entries = [{"text": a, "text_pair": b} for a, b in zip(TEXTS, TEXTS[::-1], strict=True)] if pairs else TEXTS
        wanted = np.array([answering.expected("labels", entry, 1) for entry in entries])
        assert np.abs(result.as_numpy("probabilities") - wanted).max() < 1e-5
        labels = [label.decode() if isinstance(label, bytes) else label for label in result.as_numpy("label")]
        assert labels == [answering.LABELS[place] for place in wanted.argmax(axis=1)]
    client.close()


def test_vectors_of_tokens_are_filled_with_zeros(server: Running) -> None:
    texts = {"name": "text", "datatype": "BYTES", "shape": [2], "data": ["a", "a b c"]}
    status, answer = server.request("POST", "/v2/models/words/infer", json.dumps({"inputs": [texts]}).encode())
    assert status == 200, answer
    hidden, count = answer["outputs"]
    assert (hidden["shape"], count["name"], count["data"]) == ([2, 5, 8], "token_count", [3, 5])
    found = np.array(hidden["data"]).reshape(2, 5, 8)
    assert np.abs(found[0, :3] - answering.expected("token-embeddings", "a", 3)).max() < 1e-5
    assert not found[0, 3:].any()


def text_entry(**changes: Any) -> dict[str, Any]:
    return {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a"]} | changes


IDS = {"name": "input_ids", "datatype": "INT64", "shape": [1, 2], "data": [2, 3]}
PAIR = text_entry(name="text_pair")


@pytest.mark.parametrize(
    ("model", "inputs", "said"),
    [
        ("vectors", [text_entry(), IDS], "text and the tensor 'input_ids'; send one or the other"),
        ("vectors", [IDS], "is missing"),
        ("vectors", [text_entry(), text_entry()], "given twice"),
        ("vectors", [text_entry(), PAIR], "single texts, not pairs"),
        ("classes", [PAIR], "input 'text_pair' needs input 'text'"),
        ("classes", [text_entry(shape=[2], data=["a", "b"]), PAIR], "has 2 texts, input 'text_pair' has 1"),
        ("vectors", [text_entry(datatype="INT64")], "datatype is not BYTES"),
        ("vectors", [text_entry(shape=[2])], "its shape says 2 texts, it holds 1"),
        ("vectors", [text_entry(shape=[1, 2])], "shape is neither"),
        ("vectors", [text_entry(shape=[True])], "shape is neither"),
        ("vectors", [text_entry(shape=[-1])], "shape is neither"),
        ("vectors", [text_entry(shape=[0], data=[])], "there is no text"),
        ("vectors", [text_entry(data=[1])], "not a list of strings"),
        ("vectors", [text_entry(data="a")], "not a list of strings"),
        ("vectors", [text_entry(shape=[2**40])], "at most 2048 texts"),
        ("vectors", [text_entry(parameters={"binary_data_size": 10})], "not a number of bytes within the body"),
        ("scores", [text_entry()], "scores pairs of texts"),
        ("linear", [text_entry(name="x")], "datatype is BYTES, the model takes FP32"),
    ],
)
def test_texts_that_are_wrong_are_refused(server: Running, model: str, inputs: list[Any], said: str) -> None:
    status, answer = server.request("POST", f"/v2/models/{model}/infer", json.dumps({"inputs": inputs}).encode())
    assert status in (400, 413)
    assert said in answer["error"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "end before its 1 texts"),
        (b"\x01\x00\x00", "end before its 1 texts"),
        (b"\xff\xff\xff\xffa", "end before its 1 texts"),
        (b"\x01\x00\x00\x00ab", "1 bytes follow"),
        (b"\x01\x00\x00\x00\xff", "not UTF-8"),
        (b"\x03\x00\x00\x00\xed\xa0\x80", "not UTF-8"),
    ],
)
def test_bytes_that_are_no_texts_are_refused(server: Running, content: bytes, said: str) -> None:
    head = json.dumps({"inputs": [text_entry(parameters={"binary_data_size": len(content)})]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    status, _, answer = server.exchange("POST", "/v2/models/vectors/infer", head + content, headers)
    assert status == 400
    assert said in json.loads(answer)["error"]
    with pytest.raises(grpc.RpcError) as refused:
        call(server, rpc_request("vectors", content))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert said in refused.value.details()


def rpc_request(model: str, raw: bytes | None = None, **texts: list[str]) -> Any:
    """A call with texts in contents, or with one text in raw bytes."""
    request = KINDS["ModelInferRequest"](model_name=model)
    for name, given in ({"text": [""]} if raw is not None else texts).items():
        entry = request.inputs.add(name=name, datatype="BYTES", shape=[len(given)])
        if raw is None:
            entry.contents.bytes_contents.extend(text.encode() for text in given)
        else:
            request.raw_input_contents.append(raw)
    return request


def call(server: Running, request: Any, **metadata: str) -> Any:
    with grpc.insecure_channel(server.grpc) as channel:
        method = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=KINDS["ModelInferResponse"].FromString,
        )
        return method(request, timeout=SECONDS, metadata=list(metadata.items()))


def test_texts_over_grpc_are_answered_as_they_came(server: Running) -> None:
    answer = call(server, rpc_request("classes", text=TEXTS, text_pair=TEXTS))
    found = {output.name: output for output in answer.outputs}
    wanted = np.array([answering.expected("labels", {"text": text, "text_pair": text}, 1) for text in TEXTS])
    assert np.abs(np.array(found["probabilities"].contents.fp32_contents).reshape(-1, 3) - wanted).max() < 1e-5
    labels = [answering.LABELS[place].encode() for place in wanted.argmax(axis=1)]
    assert list(found["label"].contents.bytes_contents) == labels
    answer = call(server, rpc_request("vectors", b"\x03\x00\x00\x00a b"))
    vector = np.frombuffer(answer.raw_output_contents[0], np.float32)
    assert np.abs(vector - answering.expected("embedding", "a b")).max() < 1e-5


def test_a_call_over_grpc_needs_a_key(guarded: Running) -> None:
    request = rpc_request("vectors", text=["a"])
    for metadata in ({}, {"authorization": "Bearer wrong"}):
        with pytest.raises(grpc.RpcError) as refused:
            call(guarded, request, **metadata)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert call(guarded, request, authorization=f"Bearer {KEY}").outputs
    with grpc.insecure_channel(guarded.grpc) as channel:
        for method, is_open in (("ServerLive", True), ("ServerReady", True), ("ModelReady", False)):
            ask_for = channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
            if is_open:
                assert ask_for(b"", timeout=SECONDS)
            else:
                with pytest.raises(grpc.RpcError, match="API key"):
                    ask_for(b"", timeout=SECONDS)
