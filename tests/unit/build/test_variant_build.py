"""Variants whose runtime cannot be installed here lose with that reason, and no other variant does."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.support.plans import target

from ortc.build.variant import VariantBuilder
from ortc.execution.host import Host


def builder(platform: str) -> VariantBuilder:
    """One that cannot make anything: neither the model nor a cache is there."""
    host = Host(platform=platform, cpu="a CPU", isa=(), cores=2, memory=2**30, gpus=())
    context: Any = SimpleNamespace(host=host)
    model: Any = SimpleNamespace(canonical=Path("model"))
    return VariantBuilder(context, model, target())


@pytest.mark.parametrize(("platform", "python"), [("linux/arm64", (3, 12)), ("linux/amd64", (3, 14))])
def test_a_runtime_without_wheels(monkeypatch: pytest.MonkeyPatch, platform: str, python: tuple[int, int]) -> None:
    monkeypatch.setattr(sys, "version_info", (*python, 0, "final", 0))
    openvino = next(variant for variant in target().variants if variant.runtime.package == "onnxruntime-openvino")
    found = builder(platform).make(openvino, "all")
    assert found.failed is not None
    version = ".".join(map(str, python))
    assert found.failed.observed == f"onnxruntime-openvino 1.24.1 has no wheels for {platform}, Python {version}"
    plain = next(variant for variant in target().variants if variant.runtime.package == "onnxruntime")
    with pytest.raises(AttributeError, match="runner"):  # it goes on to make it
        builder(platform).make(plain, "all")
