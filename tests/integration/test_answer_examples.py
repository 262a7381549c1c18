"""The examples over a server of a bundle: a search page, and flags of a multi-label classifier."""

from __future__ import annotations

import subprocess
import sys
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from examples.moderation import moderate
from examples.search import search
from tests.support import answering_bundles as answering
from tests.support.serving import Running, serve

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
TEXTS = ["good dog", "bad cat", "a b c <d>", "zürich 😀"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    root = tmp_path_factory.mktemp("examples")
    answering.write(root / "classes", "labels", "classes")
    with serve(
        answering.write(root / "vectors", "embedding", "vectors"), "--repository", str(root), "--preload=classes"
    ) as running:
        yield running
        running.stop()


def test_the_page_finds_a_text_by_itself(server: Running) -> None:
    index = search.Index(TEXTS, f"http://127.0.0.1:{server.port}", "vectors")
    for text in TEXTS:
        (score, found), *others = index.search(text)
        assert (found, round(score, 5)) == (text, 1.0)
        assert len(others) == 3
    page = search.serve(index, 0)
    threading.Thread(target=page.serve_forever, daemon=True).start()
    try:
        query = urllib.parse.quote("a b c <d>")
        with urllib.request.urlopen(f"http://127.0.0.1:{page.server_port}/?q={query}") as response:
            text = response.read().decode()
    finally:
        page.shutdown()
        page.server_close()
    assert "<li>1.000 a b c &lt;d&gt;</li>" in text.partition("<ol>")[2][:40]
    assert text.count("<li>") == 4


def test_texts_are_flagged_by_their_scores(server: Running) -> None:
    address = f"http://127.0.0.1:{server.port}"
    found = moderate.scores(TEXTS, address, "classes")
    for text, scores in zip(TEXTS, found, strict=True):
        wanted = dict(zip(answering.LABELS, answering.expected("labels", text), strict=True))
        assert scores == pytest.approx(wanted, abs=1e-5)
        assert moderate.flags(scores) == [label for label, score in wanted.items() if score > 0.5]
        assert moderate.flags(scores, dict.fromkeys(answering.LABELS, 0.0)) == sorted(scores, key=lambda x: -scores[x])
    command = [sys.executable, "-m", "examples.moderation.moderate", "--model", "classes", "--server", address]
    command += [f"--threshold={label}=1" for label in answering.LABELS]
    done = subprocess.run([*command, *TEXTS], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"fine: {text}" for text in TEXTS]
