"""Elements of safetensors files, from their headers and indices alone.

Source: the format's description in huggingface/safetensors, README.md; indices as transformers writes them.
"""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

from ortc.common.plain_files import open_plain, read_plain
from ortc.inspection.weights.model import Weights

_MAX_HEADER = 100_000_000
_MAX_INDEX = 32 * 2**20
_FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
"""Types of weights; whole numbers are positions and masks, which an export may leave out."""
_FP32 = 4
"""Bytes of an element in the reference, however it is stored."""
_STORED = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
_WIDEST = 8
_GATHER = frozenset({frozenset({"Gather"})})
_UNREADABLE = (OSError, ValueError, struct.error, LookupError, TypeError, AttributeError, RecursionError, OverflowError)


def file_weights(path: Path, config: dict[str, Any]) -> tuple[Weights, ...] | None:
    """The weights in one file; None where there is no such file.

    Args:
        path: The file.
        config: The model's configuration, which tells the embedding by its shape; or nothing.
    """
    table = (config.get("vocab_size"), config.get("hidden_size"))
    embedding, others = 0, 0
    try:
        for entry in _header(path):
            shape = tuple(int(size) for size in entry["shape"])
            if entry["dtype"] not in _FLOATS:
                continue
            if shape == table and not embedding:
                # One that is read row by row; another of its shape is the head's.
                embedding = math.prod(shape)
            else:
                others += math.prod(shape)
    except _UNREADABLE:
        return None
    return weights(embedding, others)


def index_weights(path: Path, config: dict[str, Any]) -> tuple[Weights, ...] | None:
    """The weights of a model in several files, by the index of those; None where there is no such index.

    Files that are not there are no hindrance: the index says how many bytes all of them hold.
    """
    try:
        if path.stat().st_size > _MAX_INDEX:
            return None
        index = json.loads(read_plain(path))
        names = sorted({str(name) for name in index["weight_map"].values()})
        if all("/" not in name and "\\" not in name for name in names):
            found = [file_weights(path.parent / name, config) for name in names]
            parts = [part for file in found for part in file or ()]
            if None not in found:
                embedding = max((part.elements for part in parts if part.readers is not None), default=0)
                return weights(embedding, sum(part.elements for part in parts) - embedding)
        metadata = index["metadata"]
        if "total_parameters" in metadata:
            return weights(0, int(metadata["total_parameters"]))
        stored = str(config.get("dtype", config.get("torch_dtype")))
        return weights(0, int(metadata["total_size"]) // _STORED.get(stored, _WIDEST))
    except _UNREADABLE:
        return None


def weights(embedding: int, others: int) -> tuple[Weights, ...]:
    """Elements of an embedding, and of everything else, in fp32."""
    return Weights(embedding, _FP32, _GATHER), Weights(others, _FP32)


def _header(path: Path) -> list[dict[str, Any]]:
    with open_plain(path) as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > _MAX_HEADER:
            raise ValueError(length)
        header: dict[str, Any] = json.loads(file.read(length))
    return [entry for name, entry in header.items() if name != "__metadata__"]
