"""What is done around a model's tensors: processing.json of a bundle, as one typed model.

The compiler writes it and `templates/runtime/processing` reads it; docs/answers.md is its reference.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ortc.common.values import Frozen

FORMAT_VERSION = 1
DIRECTORY = "processing"
DOCUMENT = f"{DIRECTORY}/processing.json"
TOKENIZER = f"{DIRECTORY}/tokenizer.json"
EMBEDDING = "sentence_embedding"
"""The output that holds one vector for each text."""

PROBABILITIES = "probabilities"
"""The output that holds the scores of classes after softmax or sigmoid."""
LOGITS = "logits"
"""The output of a classifier before softmax or sigmoid."""

Kind = Literal["embedding", "token-embeddings", "labels", "score"]
"""What an answer is: a vector for a text, one for each of its tokens, classes with scores, or one score of a pair."""


class Padding(Frozen):
    """What fills a row that is shorter than others, and on which side."""

    side: Literal["left", "right"]
    token: int
    type: int


class TextProcessing(Frozen):
    """How texts become token ids."""

    max_length: int = Field(ge=1, description="Most tokens of a text, special tokens included.")
    truncation: Literal["left", "right", "refuse"]
    padding: Padding
    prompt: str = Field(default="", description="Put before every text, unless the caller names another.")
    prompts: dict[str, str] = Field(default_factory=dict, description="Texts that a caller may put before, by name.")
    pairs: bool = Field(default=False, description="Whether a request may be a pair of texts.")


class AnswerForm(Frozen):
    """How output tensors become an answer."""

    kind: Kind
    output: str = Field(description="The tensor that the answer is read from.")
    labels: tuple[str, ...] = Field(default=(), description="Names of the classes, in the order of the tensor.")


class Processing(Frozen):
    """processing.json."""

    format_version: int = FORMAT_VERSION
    task: str
    text: TextProcessing
    answer: AnswerForm
