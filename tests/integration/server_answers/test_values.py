"""The server of bundles that answer texts: vectors, scores and classes over HTTP, and what it refuses."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support import answering_bundles as answering
from tests.support import bundles
from tests.support.answer_servers import KEY, TEXTS, ask, open_server, vectors
from tests.support.serving import SECONDS, Running

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[Running]:
    with open_server(repository) as running:
        yield running
        server_inference(running)
        events = running.stop()
        routes = {event["route"] for event in events if event["event"] == "request"}
        assert "infer" in routes
        assert routes <= {"infer", "embeddings", "rerank", "predict"}


def server_inference(server: Running) -> None:
    """Tensors are taken beside texts."""
    ids, types = answering.ids_of("a b")
    values = (ids, [1] * len(ids), types)
    inputs = [
        {"name": name, "shape": [1, len(ids)], "datatype": "INT64", "data": data}
        for name, data in zip(answering.INPUTS, values, strict=True)
    ]
    status, answer = server.request("POST", "/v2/models/vectors/infer", json.dumps({"inputs": inputs}).encode())
    assert status == 200
    assert np.abs(np.array(answer["outputs"][0]["data"]) - answering.expected("embedding", "a b")).max() < 1e-5


def test_vectors_of_texts_are_those_of_the_model(server: Running) -> None:
    wanted = np.array([answering.expected("embedding", text) for text in TEXTS])
    assert np.abs(vectors(server, TEXTS) - wanted).max() < 1e-5
    assert np.abs(vectors(server, TEXTS[0]) - wanted[:1]).max() < 1e-5
    assert np.abs(vectors(server, "") - wanted[1:2]).max() < 1e-5
    assert np.abs(vectors(server, "a", prompt="query") - answering.expected("embedding", "query: a")).max() < 1e-5


def test_vectors_come_in_openais_form(server: Running) -> None:
    status, answer = ask(server, "embeddings", model="vectors", input=TEXTS, encoding_format="base64", user="me")
    tokens = sum(len(answering.ids_of(text)[0]) for text in TEXTS)
    assert status == 200
    assert {key: answer[key] for key in ("object", "model", "usage")} == {
        "object": "list",
        "model": "vectors",
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    found = [np.frombuffer(base64.b64decode(entry["embedding"]), "<f4") for entry in answer["data"]]
    assert np.abs(np.array(found) - vectors(server, TEXTS)).max() < 1e-6


def test_token_ids_are_taken_as_they_are(server: Running) -> None:
    ids = [answering.ids_of(text)[0] for text in TEXTS]
    assert np.abs(vectors(server, ids) - vectors(server, TEXTS)).max() < 1e-6
    assert np.abs(vectors(server, ids[0]) - vectors(server, TEXTS[0])).max() < 1e-6


def test_many_texts_are_answered_in_order(server: Running) -> None:
    """2,048 texts are 512 runs of this model."""
    words = answering.WORDS[6:14]
    texts = [" ".join(words[place % 8] for place in range(index, index + 1 + index % 9)) for index in range(2048)]
    before = server.metric("ortc_compute_seconds_count", model="vectors")
    found = vectors(server, texts)
    assert server.metric("ortc_compute_seconds_count", model="vectors") >= before + 512
    for index in range(0, 2048, 97):
        assert np.abs(found[index] - answering.expected("embedding", texts[index])).max() < 1e-5


def test_documents_are_ranked_by_their_scores(server: Running) -> None:
    documents = ["dog", {"text": "cat"}, "a b c", "dog"]
    texts = ["dog", "cat", "a b c", "dog"]
    scores = [float(answering.expected("score", {"text": "good dog", "text_pair": text}, 2)[0]) for text in texts]
    order = sorted(range(4), key=lambda index: -scores[index])
    status, answer = ask(server, "rerank", model="scores", query="good dog", documents=documents)
    assert status == 200, answer
    assert [result["index"] for result in answer["results"]] == order
    assert [result["relevance_score"] for result in answer["results"]] == pytest.approx(
        [scores[index] for index in order], abs=1e-5
    )
    assert answer["usage"]["total_tokens"] > 0
    more = {"top_n": 2, "return_documents": True}
    status, answer = ask(server, "rerank", model="scores", query="good dog", documents=documents, **more)
    assert [result["document"] for result in answer["results"]] == [{"text": texts[index]} for index in order[:2]]


def test_predictions_are_the_models_answers(server: Running) -> None:
    pair = {"text": "good", "text_pair": "dog"}
    status, answer = ask(server, "predict", model="classes", inputs=["a good dog", pair])
    assert status == 200, answer
    for text, classes in zip(("a good dog", pair), answer["outputs"], strict=True):
        wanted = dict(zip(answering.LABELS, answering.expected("labels", text, 1).tolist(), strict=True))
        assert {entry["label"]: entry["score"] for entry in classes} == pytest.approx(wanted, abs=1e-5)
        assert classes == sorted(classes, key=lambda entry: -entry["score"])
    # The bundle that the server was started with, where no model is named.
    status, answer = ask(server, "predict", inputs="a b")
    assert (answer["model"], len(answer["outputs"])) == ("vectors", 1)
    assert np.abs(np.array(answer["outputs"][0]) - answering.expected("embedding", "a b")).max() < 1e-5
    status, answer = ask(server, "predict", model="words", inputs=["a", "a b"])
    assert [np.array(rows).shape for rows in answer["outputs"]] == [(3, 8), (4, 8)]
    status, answer = ask(server, "predict", model="scores", inputs=pair)
    assert answer["outputs"] == pytest.approx([float(answering.expected("score", pair, 2)[0])], abs=1e-5)


def test_answers_of_every_kind_are_those_of_the_loader(server: Running, repository: Path) -> None:
    """Also where an answer takes several rows, or the whole request."""
    pair = {"text": "good", "text_pair": "dog"}
    topics = {"text": "a good dog", "labels": ["dog", "cat", "good bad", "a", "b"]}
    asked = {
        "classes": ["a", pair],
        "scores": [pair],
        "words": ["a b", ""],
        "topics": [topics, {**topics, "multi_label": True}, {**topics, "hypothesis": "{} a"}],
        "names": [*TEXTS, "a b c"],
    }
    module = bundles.runtime_module("loading.model")
    for name, inputs in asked.items():
        status, answer = ask(server, "predict", model=name, inputs=inputs)
        assert status == 200, answer
        with module.Model.load(repository / name) as model:
            wanted = [bundles.runtime_module("loading.arrays").plain(one) for one in model.answer(inputs)]
        assert rounded(answer["outputs"]) == rounded(wanted)
    status, answer = ask(server, "predict", model="topics", inputs={"text": "a", "labels": []})
    assert (status, "0 labels" in answer["error"]["message"]) == (400, True)
    status, answer = ask(server, "predict", model="topics", inputs={"text": {}, "labels": ["a"]})
    assert (status, "a text is a dict" in answer["error"]["message"]) == (400, True)
    text = [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a"]}]
    status, answer = server.request("POST", "/v2/models/topics/infer", json.dumps({"inputs": text}).encode())
    assert (status, "input 'text' is unknown" in answer["error"]) == (400, True)


def test_a_vector_is_cut_to_a_size_of_the_model(server: Running) -> None:
    whole = vectors(server, TEXTS)
    for size in (2, 5, 8):
        status, answer = ask(server, "embeddings", model="short", input=TEXTS, dimensions=size)
        assert status == 200, answer
        found = np.array([entry["embedding"] for entry in answer["data"]])
        wanted = whole[:, :size] / np.linalg.norm(whole[:, :size], axis=1, keepdims=True)
        assert np.abs(found - wanted).max() < 1e-6


def test_an_object_of_a_text_alone_is_that_text(server: Running) -> None:
    for model in ("classes", "names", "words", "vectors"):
        answers = [
            ask(server, "predict", model=model, inputs=inputs)
            for inputs in ("a b c", {"text": "a b c"}, [{"text": "a b c"}])
        ]
        assert [status for status, _ in answers] == [200] * 3
        assert answers[0][1] == answers[1][1] == answers[2][1]


def rounded(value: Any) -> Any:
    """An answer whose numbers have four digits behind the point."""
    if isinstance(value, dict):
        return {name: rounded(part) for name, part in value.items()}
    if isinstance(value, list):
        return [rounded(part) for part in value]
    return round(value, 4) if isinstance(value, float) else value


WRONG: list[tuple[str, dict[str, Any], int, str, str | None]] = [
    ("embeddings", {"input": "a"}, 400, "you must provide a model parameter", None),
    ("embeddings", {"model": "nobody", "input": "a"}, 404, "vectors", "model"),
    ("embeddings", {"model": "x" * 5000, "input": "a"}, 400, "model is not the name", "model"),
    ("embeddings", {"model": "classes", "input": "a"}, 400, "use /v1/predict", "model"),
    ("embeddings", {"model": "linear", "input": "a"}, 400, "takes tensors alone", None),
    ("embeddings", {"model": "vectors"}, 400, "input is empty or of another form", "input"),
    ("embeddings", {"model": "vectors", "input": []}, 400, "input is empty", "input"),
    ("embeddings", {"model": "vectors", "input": [[]]}, 400, "at least one token id", "input"),
    ("embeddings", {"model": "vectors", "input": ["a", 1]}, 400, "input[1] is not a string", "input"),
    ("embeddings", {"model": "vectors", "input": [1, "a"]}, 400, "not a list of at least one token id", "input"),
    ("embeddings", {"model": "vectors", "input": [True]}, 400, "input[0] is not a string", "input"),
    ("embeddings", {"model": "vectors", "input": [1.5]}, 400, "input[0] is not a string", "input"),
    ("embeddings", {"model": "vectors", "input": [10**6]}, 400, "there is no token 1000000", None),
    ("embeddings", {"model": "vectors", "input": [-1]}, 400, "there is no token -1", None),
    ("embeddings", {"model": "vectors", "input": [4] * 13}, 400, "there are 13 token ids. Send 1 to 12.", None),
    ("embeddings", {"model": "vectors", "input": ["a"] * 2049}, 400, "at most 2048 are taken", "input"),
    ("embeddings", {"model": "vectors", "input": "a" * (2**18 + 1)}, 413, "send it in parts", None),
    ("embeddings", {"model": "vectors", "input": "\ufdfa" * 20_000}, 413, "characters in its longest form", None),
    ("embeddings", {"model": "vectors", "input": "a", "dimensions": 4}, 400, "cannot be cut", "dimensions"),
    ("embeddings", {"model": "short", "input": "a", "dimensions": 4}, 400, "which are cut to 2, 5", "dimensions"),
    ("embeddings", {"model": "vectors", "input": "a", "dimensions": 0}, 400, "whole number", "dimensions"),
    ("embeddings", {"model": "vectors", "input": "a", "dimensions": True}, 400, "whole number", "dimensions"),
    ("embeddings", {"model": "vectors", "input": "a", "encoding_format": "hex"}, 400, "neither", "encoding_format"),
    ("embeddings", {"model": "vectors", "input": "a", "prompt": "none"}, 400, "there is no prompt 'none'", None),
    ("embeddings", {"model": "vectors", "input": "a", "truncate": 1}, 400, "'truncate' is unknown", "truncate"),
    ("rerank", {"model": "vectors", "query": "a", "documents": ["b"]}, 400, "use /v1/embeddings", "model"),
    ("rerank", {"query": "a", "documents": ["b"]}, 400, "use /v1/embeddings", "model"),
    ("rerank", {"model": "scores", "query": 1, "documents": ["b"]}, 400, "query is not a string", "query"),
    ("rerank", {"model": "scores", "query": "a", "documents": []}, 400, "documents is not a list", "documents"),
    ("rerank", {"model": "scores", "query": "a", "documents": [{"text": 1}]}, 400, "documents[0]", "documents"),
    ("rerank", {"model": "scores", "query": "a", "documents": ["b"], "top_n": 0}, 400, "top_n", "top_n"),
    ("predict", {"model": "classes", "inputs": []}, 400, "inputs is empty", "inputs"),
    ("predict", {"model": "classes", "inputs": {"texts": "a"}}, 400, "a pair has ['texts']", None),
    ("predict", {"model": "scores", "inputs": {"text": "a"}}, 400, "scores pairs of texts", None),
    ("predict", {"model": "classes", "inputs": {"text": 1}}, 400, "a text is a int", None),
    ("predict", {"model": "classes", "inputs": [["a", "b"]]}, 400, "inputs[0] is neither", "inputs"),
    ("predict", {"model": "vectors", "inputs": {"text": "a", "text_pair": "b"}}, 400, "takes single texts", None),
    ("predict", {"model": "scores", "inputs": "a"}, 400, "scores pairs of texts", None),
]


@pytest.mark.parametrize(("route", "document", "status", "said", "parameter"), WRONG)
def test_what_is_wrong_is_said_in_openais_form(
    server: Running, route: str, document: dict[str, Any], status: int, said: str, parameter: str | None
) -> None:
    found, answer = ask(server, route, **document)
    assert found == status, answer
    error = answer["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert said in error["message"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == parameter
    assert error["code"] == ("model_not_found" if status == 404 else None)
    assert ("message" in answer) == (route == "rerank")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "the body is not JSON"),
        (b"[]", "the body is not a JSON object"),
        (b'{"model": "vectors", "input": "\\ud800"}', "the body is not JSON"),
        (b'{"model": "vectors", "input": "\xff"}', "the body is not JSON"),
        (b'{"model": "vectors", "input": "a", "dimensions": NaN}', "the body is not JSON"),
        (b'{"input": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "more lists than a request may"),
        (b'{"input": ' + b"[" * 5_000 + b"]" * 5_000 + b"}", "the body is not JSON"),
        (b'{"input": [' + b"1," * 2_000_000 + b"1]}", "more values than a request may"),
        (b'{"input": [' + b"{}," * 100_000 + b"{}]}", "more objects than a request may"),
    ],
)
def test_bodies_that_are_no_request_are_refused(server: Running, body: bytes, said: str) -> None:
    for route in ("embeddings", "rerank", "predict"):
        status, answer = server.request("POST", f"/v1/{route}", body)
        assert status == 400
        assert said in answer["error"]["message"]


def test_texts_may_hold_what_json_is_made_of(server: Running) -> None:
    """Signs in strings are no values: code and tables are texts, too."""
    text = '{"a": [1, 2, [], {}]}, \\" ' * 1_000
    assert vectors(server, [text] * 4).shape == (4, 8)


def counted(server: Running, unlike: tuple[float, float] | None = None) -> tuple[float, float]:
    """Requests and refused ones, once two expositions agree: a busy server sends an older one."""
    labels = {"model": "scores", "version": "1.0.0", "route": "rerank"}
    found, deadline = (-1.0, -1.0), time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        before = found
        found = server.metric("ortc_requests_total", **labels), server.metric("ortc_request_errors_total", **labels)
        if found == before != unlike:
            break
        time.sleep(0.5)
    return found


def test_requests_are_counted_by_model_and_route(server: Running) -> None:
    before = counted(server)
    assert ask(server, "rerank", model="scores", query="a", documents=["b"])[0] == 200
    assert ask(server, "rerank", model="scores", query="a", documents=["b"], prompt="x")[0] == 400
    after = counted(server, unlike=before)
    assert (after[0] - before[0], after[1] - before[1]) == (2, 1)


def test_a_large_text_keeps_nobody_waiting(server: Running) -> None:
    """Token ids are made in threads, while others are served."""
    text = "a b c ," * 30_000
    with ThreadPoolExecutor(2) as pool:
        large = [pool.submit(ask, server, "embeddings", model="vectors", input=text) for _ in range(2)]
        during = 0
        while not all(done.done() for done in large):
            assert server.request("GET", "/v2/health/live")[0] == 200
            during += 1
        assert [done.result(SECONDS)[0] for done in large] == [200, 200]
    assert during > 5


def test_who_has_no_key_is_refused(guarded: Running) -> None:
    right = {"Authorization": f"Bearer {KEY}"}
    body = json.dumps({"model": "vectors", "input": "a"}).encode()
    for path, content, method in (
        ("/v1/embeddings", body, "POST"),
        ("/v2/models/vectors/infer", b"{}", "POST"),
        ("/v2/models/vectors", None, "GET"),
        ("/v2", None, "GET"),
        ("/openapi.json", None, "GET"),
    ):
        for headers in ({}, {"Authorization": f"Bearer {KEY}x"}):
            status, found, answer = guarded.exchange(method, path, content, headers)
            assert (status, found["www-authenticate"]) == (401, "Bearer")
            error = json.loads(answer)["error"]
            assert (error["code"] if path.startswith("/v1") else error) in ("invalid_api_key", error)
        assert guarded.exchange(method, path, content, right)[0] in (200, 400)
    for path in ("/v2/health/live", "/v2/health/ready", "/metrics"):
        assert guarded.exchange("GET", path)[0] == 200


def test_pages_of_the_origin_may_ask_and_no_others(guarded: Running) -> None:
    wish = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    ours, others = "https://app.example", "https://evil.example"
    status, found, _ = guarded.exchange("OPTIONS", "/v1/embeddings", None, {"Origin": ours, **wish})
    assert (status, found["access-control-allow-origin"]) == (204, ours)
    assert "authorization" in found["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in found
    status, found, _ = guarded.exchange("OPTIONS", "/v1/embeddings", None, {"Origin": others, **wish})
    assert "access-control-allow-origin" not in found
    for path in ("/v2/health/live", "/v2/models/vectors"):
        for origin in (ours, others):
            headers = guarded.exchange("GET", path, None, {"Origin": origin})[1]
            assert headers.get("access-control-allow-origin") == (ours if origin == ours else None)
            assert headers["vary"] == "origin"
    assert guarded.exchange("OPTIONS", "/v2/repository/index", None, {"Origin": ours, **wish})[0] != 204


def test_models_are_listed(server: Running) -> None:
    names = ["classes", "linear", "names", "scores", "short", "topics", "vectors", "words"]
    assert server.request("GET", "/v2/models") == (200, {"models": names})
    status, answer = server.request("GET", "/v1/models")
    assert (status, [entry["id"] for entry in answer["data"]]) == (200, names)
    assert server.request("GET", "/v1/models/vectors") == (200, answer["data"][6])
    status, answer = server.request("GET", "/v1/models/nobody")
    assert (status, answer["error"]["code"]) == (404, "model_not_found")
    for path in ("/v2/models/nobody", "/v2/models/nobody/ready"):
        status, answer = server.request("GET", path)
        assert (status, answer["error"]) == (404, f"there is no such model; there are {', '.join(names)}")
    status, answer = server.request("GET", "/v2/models/vectors/versions/2.0.0")
    assert (status, answer["error"]) == (404, "there is no such version of the model; there are 1.0.0")


@pytest.mark.parametrize("program", ["server.py", "loader.py", "measure.py"])
def test_a_missing_numpy_is_no_traceback(repository: Path, program: str) -> None:
    command = [sys.executable, "-S", str(repository / "vectors" / "runtime" / program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 5
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: numpy cannot be imported")
    documents = done.stderr if program == "server.py" else done.stdout
    assert json.loads(documents.splitlines()[0])["error"]["code"] == "runtime-version"


def test_openais_own_client_works_as_it_is(server: Running, guarded: Running) -> None:
    openai = pytest.importorskip("openai", reason="OpenAI's client: pip install openai")
    with openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="unused", max_retries=0) as client:
        for options in ({}, {"encoding_format": "float"}):
            answer = client.embeddings.create(model="vectors", input=TEXTS, **options)
            found = np.array([entry.embedding for entry in answer.data])
            assert np.abs(found - vectors(server, TEXTS)).max() < 1e-6
            assert answer.usage.prompt_tokens > 0
        ids = [answering.ids_of(text)[0] for text in TEXTS]
        assert len(client.embeddings.create(model="vectors", input=ids).data) == len(TEXTS)
        assert [model.id for model in client.models.list()][-1] == "words"
        with pytest.raises(openai.NotFoundError) as missing:
            client.embeddings.create(model="nobody", input="a")
        assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
        with pytest.raises(openai.BadRequestError, match="cannot be cut"):
            client.embeddings.create(model="vectors", input="a", dimensions=2)
    place = f"http://127.0.0.1:{guarded.port}/v1"
    with openai.OpenAI(base_url=place, api_key=KEY) as client:
        assert client.embeddings.create(model="vectors", input="a").data
    with openai.OpenAI(base_url=place, api_key="wrong") as client, pytest.raises(openai.AuthenticationError):
        client.embeddings.create(model="vectors", input="a")
