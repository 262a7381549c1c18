"""How long a sequence may be for a transformers model, by its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_BEFORE_FIRST = {"roberta": 2, "xlm-roberta": 2, "camembert": 2, "mpnet": 2, "xlm-roberta-xl": 2}
"""Architectures that keep their first positions for padding."""
_COUNTED_ELSEWHERE = frozenset(
    ("gpt2", "gpt_bigcode", "gptj", "codegen", "openai-gpt", "ctrl", "imagegpt", "decision_transformer")
)
"""Architectures that call the number of their positions `n_positions`; others mean something else by it."""


def position_limit(config: Mapping[str, Any]) -> int | None:
    """The longest sequence that a model has positions for; None where its configuration does not say it.

    Args:
        config: config.json; of a model of texts and images, the limit is that of its `text_config`.
    """
    text = config.get("text_config")
    for part in (config, text if isinstance(text, Mapping) else {}):
        kind = str(part.get("model_type"))
        limit = part.get("max_position_embeddings")
        if limit is None and kind in _COUNTED_ELSEWHERE:
            limit = part.get("n_positions")
        if isinstance(limit, int) and not isinstance(limit, bool) and limit > 0:
            return max(1, limit - _BEFORE_FIRST.get(kind, 0))
    return None
