"""Characters that pages tell apart: as the tokenizers library does, whose Unicode is older than a browser's."""

from __future__ import annotations

import re

import pytest
from tests.support import bert_characters
from tests.support.builds import ROOT

MODULE = ROOT / "templates" / "javascript" / "runtime" / "processing" / "characters.mjs"


def points_of(written: str) -> set[int]:
    """The code points of a set, as the module reads it."""
    numbers = [int(number, 36) for number in written.split()]
    last, found = 0, set[int]()
    for gap, length in zip(numbers[::2], numbers[1::2], strict=True):
        found |= set(range(last + gap, last + gap + length))
        last += gap + length
    return found


def test_sets_are_those_of_the_library(request: pytest.FixtureRequest) -> None:
    """Asked of every block that has letters, and of each sixteenth of the others: they are large, and alike."""
    if request.config.getoption("--update-golden"):
        MODULE.write_text(bert_characters.module(range(0x110)), "utf-8")
    blocks = [*range(12), *range(12, 0x110, 16), 0xE0]
    asked = {point for block in blocks for point in bert_characters.points(block)}
    shipped = dict(re.findall(r'export const (\w+) = within\("([^"]*)"\)', MODULE.read_text("utf-8")))
    for name, points in bert_characters.sets(blocks).items():
        assert points_of(shipped[name]) & asked == set(points), name
