"""Files as large as ortc reads, in the shapes that cost most: still answered at once, and with few diagnostics."""

import time
from pathlib import Path

import pytest
from tests.support.examples import size

from ortc.plan.checks import check_spec
from ortc.spec.diagnostics.diagnostic import render_text, to_json
from ortc.spec.diagnostics.errors import SpecError
from ortc.spec.syntax.text import MAX_BYTES, MAX_LINES

MOST_SECONDS = size(8)
"""Processor time on a machine that does other work, too; without the bounds some of these took 40 s."""

ROOM = size(MAX_BYTES - 64)
BERT = (Path(__file__).parents[3] / "specs" / "bert.yaml").read_text("utf-8")
SHAPES = {
    "one long string": "a: " + "x" * ROOM,
    "escapes": 'a: "' + "\\n" * (ROOM // 2) + '"',
    "a long tag": "!" * ROOM,
    "duplicate keys in one line": "{" + "a: 1, " * (ROOM // 6),
    "many keys": "".join(f"k{index}: 1\n" for index in range(70_000))[: ROOM - 20],
    "many lines": "a: >\n" + " x\n" * (MAX_LINES - 2),
    "nesting": "a: " + "[" * ROOM,
    "anchors": "".join(f"k{index}: &a{index} 1\n" for index in range(40_000))[: ROOM - 20],
    "unknown targets": BERT + "".join(f"  t{index}: {{}}\n" for index in range(size(4000))),
    "secrets": "a: " + "https://user:password@host/ " * (ROOM // 28),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_is_answered_at_once(shape: str, tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(SHAPES[shape], "utf-8")
    began = time.process_time()
    with pytest.raises(SpecError) as caught:
        check_spec(path)
    text = render_text(caught.value.diagnostics) + to_json(caught.value.diagnostics)
    assert time.process_time() - began < MOST_SECONDS
    assert len(caught.value.diagnostics) <= 100
    assert len(text) < 500_000
    assert "password" not in text
