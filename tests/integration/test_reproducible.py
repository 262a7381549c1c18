"""The same inputs give the same bytes, wherever and with whatever cache a build runs."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.builds import PATIENT, Build, Compiler, checkout

pytestmark = pytest.mark.integration


def test_another_checkout_and_cache(built: Build, make_cache: Callable[[Path], Path], tmp_path: Path) -> None:
    """For targets with one variant, or none whose choice depends on timings."""
    other = Compiler(make_cache(tmp_path / "cache"), checkout(tmp_path / "elsewhere" / "clone"))
    again = other.build("specs/digits.yaml", *PATIENT, output=tmp_path / "dist").succeeded()
    for target in ("cpu", "edge"):
        one, two = (build.succeeded().bundle("digits", target) for build in (built, again))
        assert lines(one / "SHA256SUMS") == lines(two / "SHA256SUMS"), "\n".join(
            difflib.unified_diff(lines(one / "manifest.json"), lines(two / "manifest.json"), lineterm="", n=0)
        )


def lines(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines()
