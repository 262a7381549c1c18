"""Send wrong requests to the server: `python tests/fuzz/fuzz_server.py [HTTP] [GRPC]`, 20,000 of each by default.

Right requests of tensors and of texts are changed in their documents, their messages and their bytes; some break off in
the middle. No answer may be a 5xx but 503, INTERNAL or UNKNOWN, none may fail to come, and the server may not grow.
record_server.json keeps the result of the last whole run that found nothing.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import importlib.metadata
import json
import platform
import random
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.support import answer_servers, bundles, malformed
from tests.support.serving import Running, body, serve

REQUESTS = 20_000
PART = 2_000  # after which memory is looked at
MOST_GROWTH = 32 * 2**20  # bytes, from the first part on
RECORD = Path(__file__).with_name("record_server.json")
Body = tuple[bytes, dict[str, str]]
TEXTS: dict[str, dict[str, Any]] = {
    "/v1/embeddings": {"model": "vectors", "input": ["a b", "cat"], "encoding_format": "float", "user": "x"},
    "/v1/rerank": {"model": "scores", "query": "a", "documents": ["b", "c d"], "top_n": 1, "return_documents": True},
    "/v1/predict": {"model": "topics", "inputs": [{"text": "a b", "labels": ["cat", "dog"]}]},
    "/v1/predict?": {"model": "names", "inputs": ["a b", "nobody c"]},
    "/v2/models/classes/infer": {
        "id": "1",
        "inputs": [{"name": "text", "shape": [2], "datatype": "BYTES", "data": ["a b", "good"]}],
        "outputs": [{"name": "label"}],
    },
}
"""Right requests of texts, by route."""


def main() -> int:
    """Fuzz both protocols; returns 1 where a rule was broken."""
    over_http, over_grpc = ([int(word) for word in sys.argv[1:]] + [REQUESTS, REQUESTS])[:2]
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        repository = answer_servers.write_repository(Path(place) / "repository")
        bundles.text().write(repository / "text")
        more = [f"--preload={name}" for name in ("text", "classes", "scores", "topics", "names")]
        with serve(repository / "vectors", "--repository", str(repository), "--grpc-port", "0", *more) as running:
            found = {"http": http_part(running, over_http), "grpc": grpc_part(running, over_grpc)}
            right = [running.request("POST", "/v2/models/text/infer", body([[1, 2]]))[0]]
            right += [running.request("POST", path, json.dumps(asked).encode())[0] for path, asked in TEXTS.items()]
            running.stop()
    result = {**found, "right_afterwards": right, "seconds": round(time.monotonic() - began)}
    sys.stdout.write(json.dumps(result, indent=2) + "\n")
    statuses, codes = found["http"]["found"], found["grpc"]["found"]
    wrong = sum(count for status, count in statuses.items() if status.startswith("5") and status != "503")
    wrong += codes.get("INTERNAL", 0) + codes.get("UNKNOWN", 0) + codes.get("DEADLINE_EXCEEDED", 0)
    grown = max(part["grown_bytes"] for part in found.values())
    if wrong or grown > MOST_GROWTH or set(right) != {200}:
        return 1
    if min(over_http, over_grpc) >= REQUESTS:
        RECORD.write_text(json.dumps(record(result), indent=2) + "\n", "utf-8")
    return 0


def record(result: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a whole run."""
    import onnxruntime

    packages = ("ortc", "numpy", "uvicorn", "grpcio", "tokenizers")
    return {
        "format_version": 1,
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        **result,
        "limits": {"grown_bytes": MOST_GROWTH},
        "versions": {
            "python": platform.python_version(),
            "onnxruntime": onnxruntime.__version__,  # as onnxruntime or onnxruntime-gpu
            **{name: importlib.metadata.version(name) for name in packages},
        },
    }


def tensor_bodies(count: int) -> Iterator[Body]:
    """Wrong requests of tensors, without an end."""
    ids = np.arange(6).reshape(2, 3)
    inputs = [
        {"name": name, "shape": [2, 3], "datatype": "INT64", "parameters": {"binary_data_size": ids.nbytes}}
        for name in ("ids", "mask")
    ]
    return malformed.mutations({"id": "1", "inputs": inputs}, ids.tobytes() * 2, seed=count)


def http_part(running: Running, count: int) -> dict[str, Any]:
    """What became of so many requests, and by how much the server grew after the first part."""
    bodies = {"/v2/models/text/infer": tensor_bodies(count)}
    bodies |= {path: malformed.mutations(asked, b"", seed=count) for path, asked in TEXTS.items()}
    paths = [*bodies]
    chance = random.Random(count)  # noqa: S311 - for tests
    found: Counter[str] = Counter()
    resident = []
    for number in range(count):
        if not number % PART:
            resident.append(running.metric("process_resident_memory_bytes"))
        path = paths[0] if number % 2 else chance.choice(paths[1:])
        content, headers = next(bodies[path])
        if number % 4 < 3:
            found[str(running.exchange("POST", path, content, headers)[0])] += 1
        else:
            found[raw(running.port, request_bytes(path, content, headers, chance))] += 1
    resident.append(running.metric("process_resident_memory_bytes"))
    return {"found": dict(sorted(found.items())), "grown_bytes": resident[-1] - resident[min(1, len(resident) - 1)]}


def request_bytes(path: str, content: bytes, headers: dict[str, str], chance: random.Random) -> bytes:
    """A request with some of its bytes changed, left out or doubled."""
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(content)}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    whole = bytearray("\r\n".join((*lines, "", "")).encode() + content)
    for _ in range(chance.randint(1, 5)):
        at = chance.randrange(len(whole))
        whole[at : at + chance.randrange(4)] = chance.randbytes(chance.randrange(4))
    return bytes(whole[: chance.randrange(1, len(whole) + 1)] if chance.random() < 0.2 else whole)


def raw(port: int, request: bytes) -> str:
    """The status that is answered to these bytes by a client that sends no more; `closed` where there is none."""
    with socket.create_connection(("127.0.0.1", port), timeout=120) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
        try:
            answer = connection.recv(65536)
        except ConnectionError:
            return "closed"
    return answer.split(b" ", 2)[1].decode("latin-1") if answer.startswith(b"HTTP/1.1 ") else "closed"


def grpc_part(running: Running, count: int) -> dict[str, Any]:
    """The same of calls over gRPC."""
    messages = bundles.runtime_module("serving.messages")
    request = messages.make("inference", messages.INFERENCE)["ModelInferRequest"](model_name="text", id="1")
    ids = np.arange(6).reshape(2, 3)
    for name in ("ids", "mask"):
        request.inputs.add(name=name, datatype="INT64", shape=ids.shape)
        request.raw_input_contents.append(ids.tobytes())
    path = f"/{messages.SERVICE}/ModelInfer"
    first = malformed.send_rpc_mutations(running.grpc, path, request, min(PART, count))
    before = running.metric("process_resident_memory_bytes")
    found = first + malformed.send_rpc_mutations(running.grpc, path, request, count - min(PART, count))
    grown = running.metric("process_resident_memory_bytes") - before
    return {"found": dict(sorted(found.items())), "grown_bytes": grown}


if __name__ == "__main__":
    sys.exit(main())
