"""Whatever is sent, the server says why not, and serves on."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest
from tests.support import bundles, malformed
from tests.support.serving import Running, serve

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serve(bundles.text().write(tmp_path_factory.mktemp("malformed") / "bundle"), "--grpc-port", "0") as running:
        yield running
        running.stop()


def right() -> tuple[dict[str, object], bytes]:
    ids = np.arange(6).reshape(2, 3)
    inputs = [
        {"name": name, "shape": [2, 3], "datatype": "INT64", "parameters": {"binary_data_size": ids.nbytes}}
        for name in ("ids", "mask")
    ]
    outputs = [{"name": "hidden", "parameters": {"binary_data": True}}]
    return {"id": "1", "inputs": inputs, "outputs": outputs}, ids.tobytes() * 2


def test_mutations_of_a_request_never_break_the_server(server: Running) -> None:
    document, tail = right()
    found = malformed.send_mutations(server, "/v2/models/text/infer", document, tail, 400)
    assert not {status for status in found if status >= 500 and status != 503}, found
    assert found[400] > 200
    head = json.dumps(document).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    assert server.exchange("POST", "/v2/models/text/infer", head + tail, headers)[0] == 200


def test_mutations_of_a_call_never_break_the_server(server: Running) -> None:
    messages = bundles.runtime_module("serving.messages")
    request = messages.make("inference", messages.INFERENCE)["ModelInferRequest"](model_name="text", id="1")
    ids = np.arange(6).reshape(2, 3)
    for name in ("ids", "mask"):
        request.inputs.add(name=name, datatype="INT64", shape=ids.shape)
        request.raw_input_contents.append(ids.tobytes())
    path = f"/{messages.SERVICE}/ModelInfer"
    found = malformed.send_rpc_mutations(server.grpc, path, request, 1000)
    assert found.keys() <= {"OK", "INVALID_ARGUMENT", "NOT_FOUND"}, found
    assert found["INVALID_ARGUMENT"] > 500
    assert found["OK"] > 0


def test_what_schemathesis_makes_of_the_document_never_breaks_the_server(server: Running) -> None:
    found = malformed.send_generated(server, 80)
    assert not {status for status in found if status >= 500 and status != 503}, found
    assert found[200] >= 3
    assert found[400] >= 3
