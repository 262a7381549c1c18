"""Servers of bundles that answer texts, as tests ask them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tests.support import answering_bundles as answering
from tests.support import bundles
from tests.support.serving import Running, serve

KEY = "0123456789abcdef"
ORIGIN = "https://app.example"
_MESSAGES = bundles.runtime_module("serving.messages")
KINDS = _MESSAGES.make("inference", _MESSAGES.INFERENCE)
"""Messages of the Open Inference Protocol over gRPC, by name."""
TEXTS = ["a b", "", "dog cat c d e", "zürich 😀 nobody", "good " * 40]


def write_repository(root: Path) -> Path:
    """A bundle of each kind, and one of tensors."""
    answering.write(root / "vectors", "embedding", "vectors")
    answering.write(root / "classes", "labels", "classes", seed=1)
    answering.write(root / "scores", "score", "scores", seed=2)
    answering.write(root / "words", "token-embeddings", "words", seed=3)
    answering.write(root / "topics", "zero-shot", "topics", seed=4)
    answering.write(root / "names", "entities", "names", seed=5)
    answering.write(root / "short", "embedding", "short", answer={"dimensions": [2, 5], "normalized": True})
    bundles.linear().write(root / "linear")
    return root


@contextlib.contextmanager
def open_server(repository: Path) -> Iterator[Running]:
    """A server of all of them, over HTTP and gRPC."""
    more = ["--repository", str(repository), "--grpc-port", "0", "--log-requests"]
    more += [f"--preload={name}" for name in ("classes", "scores", "words", "linear", "topics", "names", "short")]
    with serve(repository / "vectors", *more) as running:
        yield running


@contextlib.contextmanager
def guarded_server(repository: Path, keys: Path) -> Iterator[Running]:
    """A server that asks for a key, and lets the pages of one origin ask."""
    keys.write_text(f"{'x' * 16}\n{KEY}\n")
    more = ("--grpc-port", "0", "--api-keys", str(keys), "--cors-origin", ORIGIN)
    with serve(repository / "vectors", *more) as running:
        yield running
        running.stop()


def ask(server: Running, route: str, **document: Any) -> tuple[int, Any]:
    return server.request("POST", f"/v1/{route}", json.dumps(document).encode())


def vectors(server: Running, given: Any, **more: Any) -> Any:
    status, answer = ask(server, "embeddings", model="vectors", input=given, **more)
    assert status == 200, answer
    assert [entry["index"] for entry in answer["data"]] == list(range(len(answer["data"])))
    return np.array([entry["embedding"] for entry in answer["data"]])
