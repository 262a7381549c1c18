"""What a bundle answers: the tensors of a model, or what its repository's tokenizer, pooling and labels make of it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ortc.common.texts import Line
from ortc.spec.vocabulary import Model

Pool = Literal["mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
"""How the vectors of all tokens become one, by the names of sentence-transformers."""


class TextInterface(Model):
    """Settings that replace those of the model's repository; what is left out follows the repository."""

    max_length: int | None = Field(
        default=None,
        ge=2,
        description="Most tokens of a text, special tokens included; longer texts are cut. When not given: "
        "sentence_bert_config.json, tokenizer_config.json, tokenizer.json, then the bound of the axis.",
    )
    truncation: Literal["right", "left", "refuse"] | None = Field(
        default=None,
        description="The side on which longer texts are cut, or `refuse` for an error. The tokenizer's side when not "
        "given.",
    )
    prompt: str | None = Field(
        default=None,
        max_length=4096,
        description="The name of one of the repository's prompts, or a text, that is put before every text; an empty "
        "text for none. The repository's default when not given.",
    )
    pooling: Pool | None = Field(
        default=None, description="How the vectors of all tokens become `sentence_embedding`, instead of modules.json."
    )
    normalize: bool | None = Field(
        default=None, description="Whether `sentence_embedding` has length 1, instead of modules.json."
    )
    labels: tuple[Line, ...] | None = Field(
        default=None, min_length=1, description="Names of the classes in their order, instead of `id2label`."
    )


Interface = Literal["auto", "tensors"] | TextInterface
