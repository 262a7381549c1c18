"""The size budget against the weights alone, where their number is known without loading them."""

import importlib.util
import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ortc.diagnostics import Diagnostic
from ortc.load import LoadedProfile, LoadedSpec
from ortc.resolve import variants_for
from ortc.rules import checks as rules
from ortc.spec import HuggingFaceSource, PyTorchSource
from ortc.units import format_bytes

_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}
_MAX_HEADER = 100_000_000
_CERTAIN_SHARE = 4
"""A task may leave out heads and towers of a Hugging Face model; a quarter of it is certain."""


def check(loaded: LoadedSpec, profiles: dict[str, LoadedProfile]) -> Iterator[Diagnostic]:
    """Budgets that the weights alone exceed in the smallest precision that the target may use."""
    budgets = {name: target.size_budget for name, target in loaded.spec.targets.items()}
    if not any(budgets.values()) or (count := parameter_count(loaded)) is None:
        return
    share = _CERTAIN_SHARE if isinstance(loaded.spec.model, HuggingFaceSource) else 1
    for name, item in profiles.items():
        budget, profile = budgets[name], item.profile
        precision = loaded.spec.targets[name].precision or profile.precision
        allowed = variants_for(profile, precision)
        if budget is None or not allowed:
            continue
        smallest = min(allowed, key=lambda variant: _BYTES.get(variant.precision, 1))
        need = count * _BYTES.get(smallest.precision, 1)
        if budget >= need:
            continue
        yield Diagnostic(
            rules.SIZE_IMPOSSIBLE if budget < need / share else rules.SIZE_UNLIKELY,
            f"the size budget of `{name}` is {format_bytes(budget)}, and {count:,} parameters take "
            f"{format_bytes(need)} in {smallest.precision}",
            loaded.document.locate(("targets", name, "size_budget")),
            help="raise the budget, allow a smaller precision, or choose a smaller model",
        )


def parameter_count(loaded: LoadedSpec) -> int | None:
    """The number of parameters of the model, or a lower bound of it; None when nothing at hand tells."""
    match loaded.spec.model:
        case PyTorchSource(weights=str() as name):
            return _safetensors_count(loaded.root / name)
        case HuggingFaceSource() as model:
            for place in _places(loaded, model):
                found = _safetensors_count(place / "model.safetensors")
                if found is None:
                    found = _config_count(place / "config.json")
                if found is not None:
                    return found
    return None


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
            try:
                found = importlib.util.find_spec(package) if package.isidentifier() else None
            except (ImportError, ValueError):
                found = None
            for base in (found.submodule_search_locations or ()) if found else ():
                yield Path(base) / directory


def _safetensors_count(path: Path) -> int | None:
    """Elements of all tensors in a safetensors file, from its header.

    Source: the format's description in huggingface/safetensors, README.md.
    """
    if path.suffix != ".safetensors":
        return None
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > _MAX_HEADER:
                return None
            header: dict[str, Any] = json.loads(file.read(length))
        return sum(int(math.prod(entry["shape"])) for name, entry in header.items() if name != "__metadata__")
    except (OSError, ValueError, struct.error, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _config_count(path: Path) -> int | None:
    """A lower bound for the parameters of a transformer encoder or decoder of the usual form, from its configuration.

    The token embedding, and in each layer the query and output projections and two feed-forward matrices; key and value
    projections may be shared between heads, and are not counted.
    """
    try:
        config = json.loads(path.read_bytes())
        vocabulary, width, layers, inner = (
            int(config[key]) for key in ("vocab_size", "hidden_size", "num_hidden_layers", "intermediate_size")
        )
        if config.get("model_type") == "albert" or min(vocabulary, width, layers, inner) < 1:
            return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return vocabulary * width + layers * (2 * width * width + 2 * width * inner)
