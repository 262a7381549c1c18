"""Words that were probably meant."""

from __future__ import annotations

import pytest

from ortc.common.suggest import closest

TARGETS = ("cpu", "edge", "server-gpu", "server-gpu-tensorrt", "web")


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("gpu-server", "server-gpu"),
        ("GPU_server", "server-gpu"),
        ("gpu-tensorrt-server", "server-gpu-tensorrt"),
        ("servergpu", "server-gpu"),
        ("gpu", "server-gpu"),
        ("cpus", "cpu"),
        ("tablet", None),
        ("", None),
    ],
)
def test_what_was_meant(word: str, meant: str | None) -> None:
    assert closest(word, TARGETS) == meant
