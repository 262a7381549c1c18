"""The same inputs give the same bytes, wherever and with whatever cache a build runs."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.builds import PATIENT, PLAIN, Compiler, checkout

pytestmark = pytest.mark.integration


def test_another_checkout_and_cache(ortc: Compiler, make_cache: Callable[[Path], Path], tmp_path: Path) -> None:
    """Without a search, whose outcome depends on timings; `ortc lock` keeps one, see test_incremental.py."""
    other = Compiler(make_cache(tmp_path / "cache"), checkout(tmp_path / "elsewhere" / "clone"))
    one_build, other_build = (
        compiler.build("specs/digits.yaml", "-t", "cpu", *PLAIN, *PATIENT[:2], output=tmp_path / name).succeeded()
        for name, compiler in (("one", ortc), ("other", other))
    )
    one, two = (build.bundle("digits", "cpu") for build in (one_build, other_build))
    assert lines(one / "SHA256SUMS") == lines(two / "SHA256SUMS"), "\n".join(
        difflib.unified_diff(lines(one / "manifest.json"), lines(two / "manifest.json"), lineterm="", n=0)
    )


def lines(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines()
