"""The page and the document of a server of texts, and what bounds and mutations of requests come to."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import time
from collections import Counter
from typing import Any

import pytest
from tests.support import malformed
from tests.support.answer_servers import ask, vectors
from tests.support.serving import SECONDS, Running, raw

pytestmark = pytest.mark.integration


def test_the_page_is_whole_and_lets_nothing_foreign_in(server: Running, guarded: Running) -> None:
    status, headers, content = server.exchange("GET", "/")
    page = content.decode()
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert (policy["default-src"], policy["connect-src"]) == ("'none'", "'self'")
    for kind in ("script", "style"):
        (inline,) = re.findall(f"<{kind}>(.*?)</{kind}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert policy[f"{kind}-src"] == f"'sha256-{digest}'"
        assert page.count(f"<{kind}") == 1
    assert not re.search(r"""https?://|//[a-z]|\son[a-z]+\s*=|\sstyle=|innerHTML|eval\(|@import|url\(""", page)
    assert re.findall(r"""\s(?:src|href|action)=["']?([^"'> ]*)""", page) == ["data:,"]
    assert guarded.exchange("GET", "/")[2] == content  # it says nothing of the bundle
    assert server.exchange("POST", "/", b"")[0] == 405


def test_every_example_of_the_document_works(server: Running) -> None:
    status, document = server.request("GET", "/openapi.json")
    assert status == 200
    worked = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            assert method == "get" or "examples" in body or path.startswith("/v2/repository")
            for example in body.get("examples", {}).values():
                status, answer = server.request("POST", path, json.dumps(example["value"]).encode())
                assert status == 200, (path, answer)
                worked.append(path)
    assert {"/v1/embeddings", "/v1/rerank", "/v1/predict", "/v2/models/linear/infer"} <= set(worked)
    infer = document["paths"]["/v2/models/vectors/infer"]["post"]["requestBody"]["content"]["application/json"]
    ids = infer["schema"]["properties"]["inputs"]["items"]["oneOf"][0]
    assert ids["description"] == "Axes: batch 1 to 4, sequence 1 to 12"
    assert ids["x-axes"][1] == {"name": "sequence", "minimum": 1, "maximum": 12}
    assert {entry["name"]: entry.get("kind") for entry in document["x-models"]} == {
        "classes": "labels",
        "linear": None,
        "names": "entities",
        "scores": "score",
        "short": "embedding",
        "topics": "zero-shot",
        "vectors": "embedding",
        "words": "token-embeddings",
    }


def test_bodies_are_bounded_before_they_are_read(server: Running) -> None:
    for route in ("embeddings", "rerank", "predict"):
        head = f"POST /v1/{route} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        for more, status in (("Content-Length: 20000000", 413), ("Content-Encoding: gzip\r\nContent-Length: 2", 415)):
            answer = raw(server.port, f"{head}{more}\r\n\r\n{{}}".encode())
            assert answer.startswith(f"HTTP/1.1 {status} ".encode())
            error = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
            assert error["type"] == "invalid_request_error"


def test_a_client_that_leaves_takes_its_texts_along(server: Running) -> None:
    """What it asked for is neither run on nor kept."""
    body = json.dumps({"model": "vectors", "input": ["a b c ," * 2_000] * 500}).encode()
    head = f"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    before = server.metric("ortc_request_errors_total", kind="disconnected")
    with socket.create_connection(("127.0.0.1", server.port), timeout=SECONDS) as connection:
        connection.sendall(head + body)
        while server.metric("ortc_buffered_bytes") < len(body):
            time.sleep(0.01)
    while server.metric("ortc_request_errors_total", kind="disconnected") == before:
        time.sleep(0.01)
    while server.metric("ortc_buffered_bytes"):
        time.sleep(0.01)
    assert vectors(server, "a").shape == (1, 8)


REQUESTS: dict[str, dict[str, Any]] = {
    "embeddings": {"model": "vectors", "input": ["a b", "c"], "encoding_format": "float", "dimensions": 8},
    "rerank": {
        "model": "scores",
        "query": "a",
        "documents": ["b", {"text": "c"}],
        "top_n": 1,
        "return_documents": True,
    },
    "predict": {"model": "topics", "inputs": [{"text": "a", "labels": ["dog", "cat"], "multi_label": False}]},
}


@pytest.mark.parametrize("route", REQUESTS)
def test_mutations_of_a_request_never_break_the_server(server: Running, route: str) -> None:
    assert ask(server, route, **REQUESTS[route])[0] == 200
    found: Counter[int] = Counter()
    for (content, headers), _ in zip(malformed.mutations(REQUESTS[route], b"", 7), range(150), strict=False):
        status, _, answer = server.exchange("POST", f"/v1/{route}", content, headers)
        found[status] += 1
        if status != 200:
            assert json.loads(answer)["error"].keys() == {"message", "type", "param", "code"}
    assert not {status for status in found if status >= 500 and status != 503}, found
    assert found[400] > 50
