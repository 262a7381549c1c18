"""Passes over graphs on disk, as tests compare them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx_ir as ir

from ortc.passes.canonical import MODEL_FILE, write
from ortc.passes.quantization.calibration import Ranges
from ortc.passes.quantization.static import quantize_static
from ortc.passes.rewrite import rewrite


def rewrite_files(source: Path, output: Path, names: tuple[Any, ...], keep: tuple[str, ...] = ()) -> dict[str, int]:
    """Write the graph of one directory to another with rewrites applied; how many places each changed."""
    model = ir.load(source / MODEL_FILE)
    counts = rewrite(model, names, keep)
    write(model, output)
    return counts


def quantize_files(source: Path, output: Path, ranges: Ranges, **options: Any) -> None:
    """Write the graph of one directory to another, quantized statically."""
    model = ir.load(source / MODEL_FILE)
    quantize_static(model, ranges, **options)
    write(model, output)
