"""Sounds over HTTP and gRPC: every way to send one, and what is refused."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.http as triton
from tests.support import audio_bundles, bundles
from tests.support.audio_bundles import logits_of, sound, text_of, values_of
from tests.support.serving import SECONDS, Running, serve
from tests.unit.runtime.test_sounds import HOSTILE

pytestmark = pytest.mark.integration
messages = bundles.runtime_module("serving.messages")
KINDS = messages.make("inference", messages.INFERENCE)
SOUNDS = [sound(11, 950), sound(12, 4000), sound(13, 9000, 44_100, 24), sound(14, 950, bits=8)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    root = audio_bundles.write(tmp_path_factory.mktemp("sounds") / "letters")
    with serve(root, "--grpc-port", "0", "--log-requests") as running:
        yield running
        running.stop()


def in_base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def predict(server: Running, inputs: Any) -> tuple[int, Any]:
    return server.request("POST", "/v1/predict", json.dumps({"model": "letters", "inputs": inputs}).encode())


def texts(contents: list[bytes]) -> list[str]:
    return [text_of(values_of(content)) for content in contents]


def test_sounds_in_json_are_answered(server: Running) -> None:
    url = f"data:audio/wav;base64,{in_base64(SOUNDS[0])}"
    for inputs in (in_base64(SOUNDS[0]), {"audio": in_base64(SOUNDS[0])}, url):
        status, answer = predict(server, inputs)
        assert (status, answer.get("outputs")) == (200, [{"text": texts(SOUNDS)[0]}]), answer
    status, answer = predict(server, [{"audio": in_base64(content)} for content in SOUNDS])
    assert (status, [entry["text"] for entry in answer["outputs"]]) == (200, texts(SOUNDS))
    assert len(set(texts(SOUNDS))) == len(SOUNDS)


def form(*parts: tuple[str, bytes]) -> tuple[bytes, dict[str, str]]:
    lines = [
        f'--xyz\r\nContent-Disposition: form-data; name="{name}"; filename="a.wav"\r\n\r\n'.encode() + content + b"\r\n"
        for name, content in parts
    ]
    return b"".join(lines) + b"--xyz--\r\n", {"Content-Type": "multipart/form-data; boundary=xyz"}


def test_a_form_with_files_is_answered(server: Running) -> None:
    body, headers = form(("model", b"letters"), *(("audio", content) for content in SOUNDS))
    status, answer = server.request("POST", "/v1/predict", body, **headers)
    assert (status, [entry["text"] for entry in answer["outputs"]]) == (200, texts(SOUNDS))
    body, headers = form(("image", SOUNDS[0]))
    status, answer = server.request("POST", "/v1/predict", body, **headers)
    assert (status, "neither base64 of a sound" in answer["error"]["message"]) == (400, True), answer


@pytest.mark.parametrize("binary", [True, False])
def test_tritons_client_sends_sounds(server: Running, binary: bool) -> None:
    client = triton.InferenceServerClient(f"127.0.0.1:{server.port}", network_timeout=SECONDS)
    values: list[Any] = SOUNDS if binary else [in_base64(content) for content in SOUNDS]
    given = triton.InferInput("audio", [len(values)], "BYTES")
    given.set_data_from_numpy(np.array(values, dtype=object), binary_data=binary)
    names = ("transcript", "logits", "token_count")
    outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in names]
    answer = client.infer("letters", [given], outputs=outputs)
    found = [text.decode() if isinstance(text, bytes) else text for text in answer.as_numpy("transcript")]
    assert found == texts(SOUNDS)
    wanted = [logits_of(values_of(content)) for content in SOUNDS]
    assert answer.as_numpy("token_count").tolist() == [len(rows) for rows in wanted]
    for rows, scores in zip(wanted, answer.as_numpy("logits"), strict=True):
        assert np.allclose(scores[: len(rows)], rows, atol=1e-4)
        assert not scores[len(rows) :].any()


def test_grpc_takes_sounds(server: Running) -> None:
    request = KINDS["ModelInferRequest"](model_name="letters")
    entry = request.inputs.add(name="audio", datatype="BYTES", shape=[1])
    entry.contents.bytes_contents.append(SOUNDS[2])
    request.outputs.add(name="transcript")
    with grpc.insecure_channel(server.grpc) as channel:
        call = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=KINDS["ModelInferRequest"].SerializeToString,
            response_deserializer=KINDS["ModelInferResponse"].FromString,
        )
        answer = call(request, timeout=SECONDS)
    (output,) = answer.outputs
    assert [text.decode() for text in output.contents.bytes_contents] == [texts(SOUNDS)[2]]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_sound_is_refused_and_harms_nobody(server: Running, name: str) -> None:
    content, message = HOSTILE[name]
    status, answer = predict(server, in_base64(content))
    assert status in (400, 413), answer
    assert message in answer["error"]["message"] or status == 413
    body, headers = form(("audio", content))
    assert server.request("POST", "/v1/predict", body, **headers)[0] == status
    assert predict(server, in_base64(SOUNDS[1]))[0] == 200


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ("/etc/passwd", "not base64"),
        ({"image": "YQ=="}, "neither base64 of a sound"),
        ({"text": "a"}, "neither base64 of a sound"),
        (["YQ=="] * 65, "at most 64"),
        ("data:text/html;base64,YQ==", "not base64"),
    ],
)
def test_what_is_no_sound_is_refused(server: Running, inputs: Any, message: str) -> None:
    status, answer = predict(server, inputs)
    assert status in (400, 413)
    assert message in answer["error"]["message"], answer


def test_the_document_has_an_example_that_works_for_every_route(server: Running) -> None:
    document = server.request("GET", "/openapi.json")[1]
    post = document["paths"]["/v1/predict"]["post"]["requestBody"]["content"]
    assert list(post["multipart/form-data"]["schema"]["properties"]) == ["audio", "model"]
    (example,) = post["application/json"]["examples"].values()
    assert server.request("POST", "/v1/predict", json.dumps(example["value"]).encode())[0] == 200
    infer = document["paths"]["/v2/models/letters/infer"]["post"]["requestBody"]["content"]["application/json"]
    shown = infer["examples"]["sounds"]["value"]
    assert server.request("POST", "/v2/models/letters/infer", json.dumps(shown).encode())[0] == 200
    assert document["x-models"][0]["takes"] == "audio"


def test_metadata_has_the_sound_beside_the_tensor(server: Running) -> None:
    found = server.request("GET", "/v2/models/letters")[1]
    assert [entry["name"] for entry in found["inputs"]] == ["input_values", "audio"]
    assert [entry["name"] for entry in found["outputs"]] == ["logits", "transcript", "token_count"]


def test_the_self_test_names_a_sound_that_is_read_otherwise(tmp_path: Path) -> None:
    root = audio_bundles.write(tmp_path / "letters")
    model = bundles.runtime_module("loader").Model
    with model.load(root) as loaded:
        assert loaded.answer(SOUNDS[2]) == {"text": texts(SOUNDS)[2]}
        assert loaded.answer(values_of(SOUNDS[2])) == {"text": texts(SOUNDS)[2]}
    path = root / "processing/processing.json"
    path.write_text(path.read_text("utf-8").replace('"rate": 8000', '"rate": 8100'), "utf-8")
    bundles.seal(root)
    with pytest.raises(Exception, match=r"the golden sound short\.wav becomes features of shape"):
        model.load(root)
