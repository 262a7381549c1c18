"""Bundles that answer rows of numbers, as their own loader says it."""

from __future__ import annotations

from ortc.bundle.manifest import Manifest
from ortc.common.bundle_runtime import runtime_module


def takes_rows(manifest: Manifest) -> bool:
    """Whether a bundle answers rows: a model of ai.onnx.ml, without texts or images, whose inputs are columns."""
    return bool(runtime_module("loading.rows").takes_rows(manifest.model_dump(mode="json")))


def example_row(manifest: Manifest) -> str:
    """A row of such a bundle as a line: zeros, or false, between commas."""
    columns = (["false" if tensor.dtype == "bool" else "0"] * int(tensor.shape[1]) for tensor in manifest.inputs)
    return ",".join(value for values in columns for value in values)
