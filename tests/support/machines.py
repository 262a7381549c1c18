"""A machine that TensorRT's engines are for."""

from __future__ import annotations

from pathlib import Path

from tests.support import bundles

engines, loader = bundles.runtime_module("loading.engine_cache"), bundles.runtime_module("loader")
selftest, providers = bundles.runtime_module("loading.selftest"), bundles.runtime_module("loading.providers")

MACHINE = ["NVIDIA L4 sm89", "driver580.65.06", "tensorrt101303", "onnxruntime1.31.1"]


def no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")
