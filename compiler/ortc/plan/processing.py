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

Kind = Literal["embedding", "token-embeddings"]
"""What an answer is: a vector for a text, or one for each of its tokens."""


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


class AnswerForm(Frozen):
    """How output tensors become an answer."""

    kind: Kind
    output: str = Field(description="The tensor that the answer is read from.")


class Processing(Frozen):
    """processing.json."""

    format_version: int = FORMAT_VERSION
    task: str
    text: TextProcessing
    answer: AnswerForm
