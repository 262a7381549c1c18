"""Feature extractors of transformers: which of them a bundle reproduces, and the files that say how sounds are read."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

from ortc.inspection.repository import Repository

EXTRACTOR_FILES = ("preprocessor_config.json", "processor_config.json")
"""Files that say how a model's sounds are prepared; the second one has a part `feature_extractor`."""
WAVES, SPECTROGRAMS = "Wav2Vec2FeatureExtractor", "ASTFeatureExtractor"
REPRODUCED = (WAVES, SPECTROGRAMS)
"""Feature extractors of transformers that have a form as settings."""
VOCABULARY = "vocab.json"
"""The file that names the tokens of speech recognition."""
SPELLING = (VOCABULARY, "tokenizer_config.json")
"""Files without which no transcript is spelled."""
_PART = "feature_extractor"


def has_extractor(names: Container[str]) -> bool:
    """Whether one of the names of a repository's files is of a feature extractor's settings."""
    return any(name in names for name in EXTRACTOR_FILES)


def extractor_config(repository: Repository) -> Mapping[str, Any]:
    """Return the settings of a repository's feature extractor; empty where no file here has any."""
    first, second = (repository.mapping(name) for name in EXTRACTOR_FILES)
    if first:
        return first
    nested = second.get(_PART)
    return nested if isinstance(nested, dict) else {}


def unreproduced(repository: Repository) -> str | None:
    """Return what a feature extractor has that is not reproduced, as far as a file here names it; None for nothing."""
    config = extractor_config(repository)
    name = config.get("feature_extractor_type")
    if isinstance(name, str) and name not in REPRODUCED:
        return f"the feature extractor {name}"
    kind = config.get("processor_class") or repository.mapping(EXTRACTOR_FILES[1]).get("processor_class")
    if isinstance(kind, str) and kind.endswith("WithLM"):
        return f"the language model of {kind}"
    return None
