"""Versions of npm packages: npm reads semantic versions alone."""

from __future__ import annotations

import pytest

from ortc.bundle.node_package import semantic


@pytest.mark.parametrize("version", ["1.0.0", "0.1.2-rc.1", "1.2.3+build.5"])
def test_semantic_versions_stay(version: str) -> None:
    assert semantic(version) == version


@pytest.mark.parametrize(
    ("version", "expected"),
    [("1", "0.0.0-v1"), ("01.2.3", "0.0.0-v01-2-3"), ("2026_11", "0.0.0-v2026-11"), ("1.0.0-01", "0.0.0-v1-0-0-01")],
)
def test_other_versions_become_prereleases(version: str, expected: str) -> None:
    assert semantic(version) == expected
