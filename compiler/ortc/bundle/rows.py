"""Bundles that answer rows of numbers, as their own loader says it."""

from __future__ import annotations

import json

from ortc.bundle.manifest import Manifest
from ortc.common.bundle_runtime import runtime_module


def takes_rows(manifest: Manifest) -> bool:
    """Whether a bundle answers rows: a model of ai.onnx.ml, without texts or images, whose inputs are columns."""
    return bool(runtime_module("loading.rows").takes_rows(manifest.model_dump(mode="json")))


def example_row(manifest: Manifest) -> tuple[str, str]:
    """A row of such a bundle as a line, and in Python: zeros, false and words."""
    words: list[str] = []
    values: list[float | bool | str] = []
    shown: dict[str, tuple[str, float | bool | str]] = {"bool": ("false", False), "string": ("text", "text")}
    for tensor in manifest.inputs:
        word, value = shown.get(tensor.dtype, ("0", 0))
        columns = int(tensor.shape[1]) if len(tensor.shape) > 1 else 1
        words += [word] * columns
        values += [value] * columns
    return ",".join(words), json.dumps(values[0]) if values == ["text"] else repr(values)
