"""Where the weights of a spec's model lie, and what those files say of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ortc.common.plain_files import open_plain
from ortc.common.project import find_installed
from ortc.inspection.weights.model import Found, Weights
from ortc.inspection.weights.safetensors import file_weights, index_weights, weights
from ortc.spec.load import LoadedSpec
from ortc.spec.model_sources import ExportedProgramSource, HuggingFaceSource, OnnxSource, PyTorchSource

_CERTAIN_SHARE = 1 / 4
"""A task may leave out heads and towers of a model, and code of the user's what it likes; a quarter is certain."""
_MAX_CONFIG = 2**20


def find_weights(loaded: LoadedSpec) -> Found | None:
    """The weights of the model, or fewer; None when nothing at hand tells."""
    match loaded.spec.model:
        case PyTorchSource(weights_file=str() as name) if name.endswith(".safetensors"):
            found = file_weights(loaded.root / name, {})
            return None if found is None else Found(found, _CERTAIN_SHARE)
        case HuggingFaceSource() as model:
            for place in _places(loaded, model):
                if (found := _directory(place)) is not None:
                    return Found(found, _CERTAIN_SHARE)
        case OnnxSource(path=name):
            from ortc.inspection.weights.graph import graph_weights

            found = graph_weights(loaded.root / name, loaded.spec.export.outputs)
            return None if found is None else Found(found)
        case ExportedProgramSource(path=name):
            from ortc.inspection.pt2_archive import ProgramError, read_program
            from ortc.inspection.weights.program import program_weights

            try:
                return Found(program_weights(read_program(loaded.root / name), loaded.spec.export.outputs))
            except ProgramError:
                # What is wrong with the file is not a matter of its size; the build says it.
                return None
    return None


def _directory(place: Path) -> tuple[Weights, ...] | None:
    config = _config(place / "config.json")
    found = file_weights(place / "model.safetensors", config)
    if found is None:
        found = index_weights(place / "model.safetensors.index.json", config)
    return _usual(config) if found is None else found


def _places(loaded: LoadedSpec, model: HuggingFaceSource) -> Iterator[Path]:
    """Local directories that may hold the files of a model."""
    if model.path is not None:
        yield loaded.root / model.path
    for mirror in model.mirrors:
        scheme, _, place = mirror.partition(":")
        if scheme == "path":
            yield loaded.root / place
        elif scheme == "package":
            package, _, directory = place.partition("/")
            found = find_installed(package)
            for base in found.directories if found else ():
                yield base / directory


def _config(path: Path) -> dict[str, Any]:
    try:
        with open_plain(path) as file:
            config = json.loads(file.read(_MAX_CONFIG))
    except (OSError, ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}


def _usual(config: dict[str, Any]) -> tuple[Weights, ...] | None:
    """A lower bound for the parameters of a transformer encoder or decoder of the usual form, from its configuration.

    The token embedding, and in each layer the query and output projections and two feed-forward matrices; key and value
    projections may be shared between heads, and are not counted.
    """
    try:
        vocabulary, width, layers, inner = (
            int(config[key]) for key in ("vocab_size", "hidden_size", "num_hidden_layers", "intermediate_size")
        )
    except (ValueError, KeyError, TypeError, OverflowError):
        return None
    if config.get("model_type") == "albert" or min(vocabulary, width, layers, inner) < 1:
        return None
    return weights(vocabulary * width, layers * (2 * width * width + 2 * width * inner))
