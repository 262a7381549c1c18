"""The same inputs give the same bytes, wherever and with whatever cache a build runs."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.builds import PATIENT, PLAIN, Build, Compiler, checkout

pytestmark = pytest.mark.integration


def test_another_checkout_and_cache(digits: Build, make_cache: Callable[[Path], Path], tmp_path: Path) -> None:
    """Without a search, whose outcome depends on timings; `ortc lock` keeps one, see test_search.py."""
    other = Compiler(make_cache(tmp_path / "cache"), checkout(tmp_path / "elsewhere" / "clone"))
    build = other.build("specs/digits.yaml", *PATIENT, *PLAIN, output=tmp_path / "dist").succeeded()
    for target in ("cpu", "edge"):
        one, two = (made.bundle("digits", target) for made in (digits.succeeded(), build))
        assert lines(one / "SHA256SUMS") == lines(two / "SHA256SUMS"), "\n".join(
            difflib.unified_diff(lines(one / "manifest.json"), lines(two / "manifest.json"), lineterm="", n=0)
        )


def lines(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines()
