"""Which tensors of a model's forward() become no inputs, read from the text of transformers: nothing is imported."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ortc.common.plain_files import read_plain

_DERIVED = {
    "input_ids",
    "pixel_values",
    "pixel_values_videos",
    "input_values",
    "input_features",
    "past_values",
    "bbox",
    "pixel_mask",
    "xpath_tags_seq",
    "xpath_subs_seq",
}
"""Inputs that are derived wherever forward() has them."""


def left_out(config: Mapping[str, Any], architecture: str) -> tuple[str, ...]:
    """Name the optional tensors of an architecture's forward() that are not derived as inputs.

    Args:
        config: config.json.
        architecture: the class that it names.

    Returns:
        Names in the order of the signature; none where the class is not found.
    """
    derived = {*_DERIVED, *_by_configuration(config)}
    return tuple(name for name in _tensors(str(config.get("model_type")), architecture) if name not in derived)


def _by_configuration(config: Mapping[str, Any]) -> Iterator[str]:
    types = config.get("type_vocab_size")
    if "type_vocab_sizes" in config or config.get("model_type") == "xlnet" or (isinstance(types, int) and types > 1):
        yield "token_type_ids"
    if config.get("feat_extract_norm") != "group":
        yield "attention_mask"
    languages = config.get("n_langs")
    if isinstance(languages, int) and languages > 1 and config.get("use_lang_emb", True):
        yield "langs"


def _tensors(model_type: str, architecture: str) -> Iterator[str]:
    """Parameters of a class's forward() that are annotated as tensors."""
    spec = importlib.util.find_spec("transformers")
    folder = model_type.replace("-", "_")
    for base in (spec.submodule_search_locations or ()) if spec is not None and folder.isidentifier() else ():
        path = Path(base) / "models" / folder / f"modeling_{folder}.py"
        if not path.is_file():
            continue
        tree = ast.parse(read_plain(path))
        classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == architecture]
        for forward in (node for found in classes for node in found.body if isinstance(node, ast.FunctionDef)):
            if forward.name == "forward":
                for argument in (*forward.args.args, *forward.args.kwonlyargs):
                    if argument.annotation is not None and "Tensor" in ast.unparse(argument.annotation):
                        yield argument.arg
