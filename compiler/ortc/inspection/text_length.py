"""The greatest length of a text in tokens, by what a spec and a model's repository say of it."""

from __future__ import annotations

from ortc.inspection.recipe import Recipe, read_recipe
from ortc.inspection.repository import Repository
from ortc.spec.interface import TextInterface
from ortc.spec.model_sources import HuggingFaceSource

_UNLIMITED = 10**9
"""A number of tokens from which on tokenizer_config.json names no limit: transformers writes 1e30 for none."""


def declared_length(source: HuggingFaceSource, repository: Repository) -> tuple[int, str] | None:
    """Return the most tokens that a text may have, and the place that says so; None where nothing says it.

    The first of these counts: the spec's interface, sentence_bert_config.json, tokenizer_config.json, tokenizer.json.
    Padding to a fixed length, which tokenizer.json may hold, plays no part.

    Raises:
        RecipeError: the recipe of the repository cannot be reproduced.
    """
    interface = source.interface
    if isinstance(interface, TextInterface) and interface.max_length is not None:
        return interface.max_length, "interface.max_length"
    recipe: Recipe | None = read_recipe(repository)
    if recipe is not None and recipe.max_length is not None:
        return recipe.max_length, "sentence_bert_config.json"
    limit = repository.mapping("tokenizer_config.json").get("model_max_length")
    if isinstance(limit, int | float) and not isinstance(limit, bool) and 0 < limit < _UNLIMITED:
        return int(limit), "tokenizer_config.json"
    truncation = repository.mapping("tokenizer.json").get("truncation")
    stored = truncation.get("max_length") if isinstance(truncation, dict) else None
    return (stored, "tokenizer.json") if isinstance(stored, int) and stored > 0 else None
