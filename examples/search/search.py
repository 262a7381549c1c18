"""Search the lines of a file by their meaning: embed them with a bundle's server, keep the vectors, serve a page.

python runtime/server.py --port 8080                     # in a bundle of a sentence encoder
python -m examples.search.search sentences.txt --model bert --port 8000
"""

from __future__ import annotations

import argparse
import html
import json
import urllib.parse
import urllib.request
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

MOST = 2048
"""Texts of one request."""
PAGE = """<!doctype html><meta charset="utf-8"><title>Search</title>
<form><input name="q" value="{query}" autofocus> <button>Search</button></form><ol>{found}</ol>"""


def embed(texts: Sequence[str], server: str, model: str) -> np.ndarray:
    """Vectors of length 1, float64 [texts, hidden]."""
    rows = []
    for start in range(0, len(texts), MOST):
        body = json.dumps({"model": model, "input": list(texts[start : start + MOST])}).encode()
        request = urllib.request.Request(f"{server}/v1/embeddings", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as response:
            rows += [entry["embedding"] for entry in json.load(response)["data"]]
    vectors = np.array(rows, dtype=np.float64)
    unit: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


class Index:
    """Texts with their vectors, in memory.

    Args:
        texts: what is searched; at least one.
        server: the address of the bundle's server.
        model: the name of its model.
    """

    def __init__(self, texts: Sequence[str], server: str, model: str) -> None:
        self.texts, self.server, self.model = list(texts), server, model
        self.vectors = embed(self.texts, server, model)

    def search(self, query: str, count: int = 10) -> list[tuple[float, str]]:
        """The nearest texts with their cosines, the nearest first."""
        scores = self.vectors @ embed([query], self.server, self.model)[0]
        return [(float(scores[place]), self.texts[place]) for place in np.argsort(-scores)[:count]]


def serve(index: Index, port: int) -> ThreadingHTTPServer:
    """A server of the search page, bound to this machine; `serve_forever` starts it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query).get("q", [""])[0]
            found = index.search(query) if query else []
            rows = "".join(f"<li>{score:.3f} {html.escape(text)}</li>" for score, text in found)
            content = PAGE.format(query=html.escape(query), found=rows).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


def main() -> None:
    """Embed a file's lines, then serve the page until somebody ends it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="one text per line")
    parser.add_argument("--server", default="http://127.0.0.1:8080", help="of the bundle")
    parser.add_argument("--model", required=True, help="the bundle's name")
    parser.add_argument("--port", type=int, default=8000, help="of the page")
    arguments = parser.parse_args()
    lines = [line for line in arguments.file.read_text("utf-8").splitlines() if line.strip()]
    page = serve(Index(lines, arguments.server, arguments.model), arguments.port)
    print(f"{len(lines)} texts at http://127.0.0.1:{page.server_port}/")
    page.serve_forever()


if __name__ == "__main__":
    main()
