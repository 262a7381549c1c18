"""The files of a hub repository that a build reads, and those that it refuses."""

from __future__ import annotations

WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")
PICKLE_SUFFIXES = (".pkl", ".pickle", ".joblib")
HUB_PATTERNS = (
    "config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "vocab.json",
)
"""What is taken from a hub repository when the spec lists no files. Never code, never pickles."""
