"""Texts of many clients and of different lengths share runs of a server, and are answered as each by itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support import answering_bundles as answering
from tests.support import bundles
from tests.support.serving import Running, serve, start

pytestmark = pytest.mark.integration
TEXTS = ["a", "a b", "", "good dog", "a b c d e f", "bad cat a b c d e f g h a b", "zürich 😀 a", "h g f e d"]
CLIENTS, TOKENS = 16, 40


@pytest.fixture(scope="module", params=["embedding", "token-embeddings"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Running]]:
    root = answering.write(tmp_path_factory.mktemp(request.param) / "bundle", request.param, "texts")
    with serve(root, "--max-batch-tokens", str(TOKENS), "--max-queue-delay-us", "20000") as running:
        yield request.param, running
        running.stop()


def test_texts_of_many_lengths_share_runs(server: tuple[str, Running]) -> None:
    kind, running = server

    def ask(number: int) -> Any:
        body = {"model": "texts", "inputs": TEXTS[number % len(TEXTS)]}
        status, answer = running.request("POST", "/v1/predict", json.dumps(body).encode())
        assert status == 200, answer
        return answer["outputs"][0]

    with ThreadPoolExecutor(CLIENTS) as pool:
        found = list(pool.map(ask, range(12 * CLIENTS)))
    for number, answer in enumerate(found):
        wanted = answering.expected(kind, TEXTS[number % len(TEXTS)])
        assert np.asarray(answer).shape == wanted.shape
        assert np.abs(np.asarray(answer) - wanted).max() < 1e-5
    requests, runs = (running.metric(f"ortc_batch_size_{what}") for what in ("sum", "count"))
    assert requests == 12 * CLIENTS
    assert runs < 0.9 * requests


def test_a_list_of_texts_is_answered_in_its_order(server: tuple[str, Running]) -> None:
    kind, running = server
    body = {"model": "texts", "inputs": TEXTS * 3}
    status, answer = running.request("POST", "/v1/predict", json.dumps(body).encode())
    assert status == 200
    for text, vector in zip(TEXTS * 3, answer["outputs"], strict=True):
        assert np.abs(np.asarray(vector) - answering.expected(kind, text)).max() < 1e-5


def test_a_bundle_whose_answers_depend_on_their_neighbours_is_not_batched(tmp_path: Path) -> None:
    root = answering.write(tmp_path / "bundle", "embedding", "texts")
    path = root / "manifest.json"
    manifest = json.loads(path.read_bytes())
    manifest["variant"]["batch_invariant"] = False
    bundles.write_json(path, manifest)
    bundles.seal(root)
    with start(root, "--max-batch-tokens", "64") as process:
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 2
    assert "must not be batched" in said
    assert "--max-batch-tokens" in said
