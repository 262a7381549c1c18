"""Images over HTTP and gRPC: every way to send one, and what is refused."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.http as triton
from tests.support import bundles, image_bundles
from tests.support.answer_servers import KINDS
from tests.support.image_bundles import LABELS, answer_of, colour, encoded, noise, pixels_of
from tests.support.serving import SECONDS, Running, serve

pytestmark = pytest.mark.integration
IMAGES = [noise(2, 9, 31), colour(10, 220, 40), noise(3, 40, 12)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    root = image_bundles.write(tmp_path_factory.mktemp("images") / "colours")
    with serve(root, "--grpc-port", "0", "--log-requests") as running:
        yield running
        running.stop()


def in_base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def predict(server: Running, inputs: Any) -> tuple[int, Any]:
    return server.request("POST", "/v1/predict", json.dumps({"model": "colours", "inputs": inputs}).encode())


def same(found: Any, content: bytes) -> bool:
    expected = answer_of(pixels_of(content))
    scores = [[entry["score"] for entry in answer] for answer in (found, expected)]
    return [entry["label"] for entry in found] == [entry["label"] for entry in expected] and np.allclose(
        *scores, atol=1e-5
    )


def test_images_in_json_are_answered(server: Running) -> None:
    url = f"data:image/png;base64,{in_base64(IMAGES[0])}"
    for inputs in (in_base64(IMAGES[0]), {"image": in_base64(IMAGES[0])}, url):
        status, answer = predict(server, inputs)
        assert status == 200, answer
        assert same(answer["outputs"][0], IMAGES[0])
    status, answer = predict(server, [{"image": in_base64(content)} for content in IMAGES])
    assert status == 200
    assert all(map(same, answer["outputs"], IMAGES))


def form(*parts: tuple[str, bytes], boundary: str = "xyz") -> tuple[bytes, dict[str, str]]:
    lines = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="a.png"\r\n\r\n'.encode()
        + content
        + b"\r\n"
        for name, content in parts
    ]
    return b"".join(lines) + f"--{boundary}--\r\n".encode(), {
        "Content-Type": f"multipart/form-data; boundary={boundary}"
    }


def test_a_form_with_files_is_answered(server: Running) -> None:
    body, headers = form(("model", b"colours"), *(("image", content) for content in IMAGES))
    status, answer = server.request("POST", "/v1/predict", body, **headers)
    assert status == 200, answer
    assert all(map(same, answer["outputs"], IMAGES))


@pytest.mark.parametrize(
    ("body", "kind", "status", "message"),
    [
        (b"", "multipart/form-data; boundary=a", 400, "does not begin with the boundary"),
        (b"--a\r\nX: y\r\n\r\nz", "multipart/form-data; boundary=a", 400, "ends before its form does"),
        (b"--a\r\nX: y\r\n\r\nz\r\n--a--", "multipart/form-data; boundary=a", 400, "no headers with a name"),
        (form(("picture", b"x"))[0], "multipart/form-data; boundary=xyz", 400, "that is not expected"),
        (form(*[("image", b"x")] * 70)[0], "multipart/form-data; boundary=xyz", 413, "more than 66 parts"),
        (form(("model", b"colours"))[0], "multipart/form-data; boundary=xyz", 400, "there is no image"),
        (form(("image", b"x"))[0], "multipart/mixed; boundary=xyz", 415, "not multipart/form-data"),
        (form(("image", b"x"))[0], "multipart/form-data", 415, "not multipart/form-data"),
    ],
)
def test_a_form_that_is_wrong_is_refused(server: Running, body: bytes, kind: str, status: int, message: str) -> None:
    found, answer = server.request("POST", "/v1/predict", body, **{"Content-Type": kind})
    assert (found, message in answer["error"]["message"]) == (status, True), answer


@pytest.mark.parametrize("binary", [True, False])
def test_tritons_client_sends_images(server: Running, binary: bool) -> None:
    client = triton.InferenceServerClient(f"127.0.0.1:{server.port}", network_timeout=SECONDS)
    values: list[Any] = IMAGES if binary else [in_base64(content) for content in IMAGES]
    given = triton.InferInput("image", [len(values)], "BYTES")
    given.set_data_from_numpy(np.array(values, dtype=object), binary_data=binary)
    outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("probabilities", "label")]
    answer = client.infer("colours", [given], outputs=outputs)
    expected = [{entry["label"]: entry["score"] for entry in answer_of(pixels_of(content))} for content in IMAGES]
    wanted = [[scores[label] for label in LABELS] for scores in expected]
    assert np.allclose(answer.as_numpy("probabilities"), wanted, atol=1e-5)
    found = [label.decode() if isinstance(label, bytes) else label for label in answer.as_numpy("label")]
    assert found == [max(scores, key=lambda label: scores[label]) for scores in expected]


def test_grpc_takes_images(server: Running) -> None:
    request = KINDS["ModelInferRequest"](model_name="colours")
    entry = request.inputs.add(name="image", datatype="BYTES", shape=[1])
    entry.contents.bytes_contents.append(IMAGES[0])
    with grpc.insecure_channel(server.grpc) as channel:
        call = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=KINDS["ModelInferRequest"].SerializeToString,
            response_deserializer=KINDS["ModelInferResponse"].FromString,
        )
        answer = call(request, timeout=SECONDS)
    outputs = {output.name: output for output in answer.outputs}
    expected = {entry["label"]: entry["score"] for entry in answer_of(pixels_of(IMAGES[0]))}
    found = list(outputs["probabilities"].contents.fp32_contents)
    assert np.allclose(found, [expected[label] for label in LABELS], atol=1e-5)


def png(width: int, height: int, data: bytes = b"", extra: bytes = b"") -> bytes:
    """A PNG file that states a size, whatever it holds."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + extra
        + chunk(b"IDAT", data or zlib.compress(b"\0" * 100))
        + chunk(b"IEND", b"")
    )


def text_bomb() -> bytes:
    content = b"a\0\0" + zlib.compress(b"x" * 2**27)
    return struct.pack(">I", len(content)) + b"zTXt" + content + struct.pack(">I", zlib.crc32(b"zTXt" + content))


HOSTILE = {
    "no image": (b"no image at all", "cannot be read"),
    "empty": (b"", "cannot be read"),
    "truncated": (noise(5, 60, 60)[:3000], "cannot be read"),
    "a bomb": (png(60000, 60000), "pixels"),
    "a large header": (png(2**31 - 1, 2**31 - 1), "pixels"),
    "one row of many pixels": (encoded(np.zeros((1, 100000, 3), np.uint8)), "pixels"),
    "data that is not deflated": (png(20, 20, b"garbage"), "cannot be read"),
    "text that grows": (png(20, 20, b"", text_bomb()), "of profiles and texts"),
    "16 bits a channel": (encoded(np.zeros((9, 9), np.uint16)), "8 bits"),
    "a script": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "cannot be read"),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "cannot be read"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_image_is_refused_and_harms_nobody(server: Running, name: str) -> None:
    content, message = HOSTILE[name]
    status, answer = predict(server, in_base64(content))
    assert status in (400, 413), answer
    assert message in answer["error"]["message"]
    assert predict(server, in_base64(IMAGES[1]))[0] == 200


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ("/etc/passwd", "not base64"),
        ("../golden/answers.json", "not base64"),
        ({"text": "a"}, "neither base64 of an image"),
        ([], "inputs is empty"),
        (["YQ=="] * 65, "at most 64"),
        ("data:text/html;base64,YQ==", "not base64"),
    ],
)
def test_what_is_no_image_is_refused(server: Running, inputs: Any, message: str) -> None:
    status, answer = predict(server, inputs)
    assert status in (400, 413)
    assert message in answer["error"]["message"], answer


def test_other_routes_name_the_right_one(server: Running) -> None:
    body = json.dumps({"model": "colours", "input": "a"}).encode()
    status, answer = server.request("POST", "/v1/embeddings", body)
    assert (status, "use /v1/predict" in answer["error"]["message"]) == (400, True)


def test_the_document_has_an_example_that_works_for_every_route(server: Running) -> None:
    document = server.request("GET", "/openapi.json")[1]
    post = document["paths"]["/v1/predict"]["post"]["requestBody"]["content"]
    assert "multipart/form-data" in post
    (example,) = post["application/json"]["examples"].values()
    assert server.request("POST", "/v1/predict", json.dumps(example["value"]).encode())[0] == 200
    shown = document["paths"]["/v2/models/colours/infer"]["post"]["requestBody"]["content"]["application/json"][
        "examples"
    ]
    assert server.request("POST", "/v2/models/colours/infer", json.dumps(shown["images"]["value"]).encode())[0] == 200
    assert document["x-models"][0]["takes"] == "image"


def test_metadata_has_the_image_beside_the_tensor(server: Running) -> None:
    found = server.request("GET", "/v2/models/colours")[1]
    assert [entry["name"] for entry in found["inputs"]] == ["pixel_values", "image"]


def test_the_self_test_names_an_image_that_is_read_otherwise(tmp_path: Path) -> None:
    root = image_bundles.write(tmp_path / "colours")
    model = bundles.runtime_module("loader").Model
    with model.load(root) as loaded:
        assert loaded.answer(IMAGES[1])[0]["label"] == "green"
    path = root / "processing/processing.json"
    path.write_text(path.read_text("utf-8").replace("bicubic", "bilinear"), "utf-8")
    bundles.seal(root)
    with pytest.raises(Exception, match=r"the golden image noise\.png becomes other pixels"):
        model.load(root)
